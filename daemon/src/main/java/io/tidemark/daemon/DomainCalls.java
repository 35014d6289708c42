// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.BlockStats;
import io.tidemark.domain.Domain;
import io.tidemark.domain.DomainInfo;
import io.tidemark.domain.DomainRef;
import io.tidemark.domain.DomainState;
import io.tidemark.domain.Domains;
import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.Flags;
import io.tidemark.domain.LibvirtException;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.Procedure;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.RpcException;
import io.tidemark.rpc.Wire;
import java.util.ArrayList;
import java.util.List;

/// Calls about domains: which there are, their life, what they are.
final class DomainCalls {
  private final Domains domains;

  DomainCalls(Domains domains) {
    this.domains = domains;
  }

  /// Does something with one domain.
  private interface OnDomain<A, R> {
    R run(Domain domain, A call) throws LibvirtException, RpcException;
  }

  /// Serves a call whose arguments are a domain alone.
  private <R extends Record> void on(
      CallTable<Client> table,
      Procedure<Calls.Domain, R> procedure,
      OnDomain<Calls.Domain, R> run) {
    table.on(procedure, (_, call) -> run.run(domain(call.dom()), call));
  }

  /// Serves a call whose arguments are a domain and flags.
  private <R extends Record> void onFlags(
      CallTable<Client> table,
      Procedure<Calls.DomainFlags, R> procedure,
      OnDomain<Integer, R> run) {
    table.on(procedure, (_, call) -> run.run(domain(call.dom()), call.flags()));
  }

  private Domain domain(Wire.Domain dom) throws LibvirtException {
    return domains.resolve(Convert.ref(dom));
  }

  void addTo(CallTable<Client> table) {
    addListsTo(table);
    addLifeTo(table);
    addQuestionsTo(table);
    addDisksTo(table);
    addWhatIsNeverThereTo(table);
  }

  private void addListsTo(CallTable<Client> table) {
    table
        .on(
            Remote.CONNECT_LIST_ALL_DOMAINS,
            (_, call) -> {
              List<Wire.Domain> found = wire(domains.list(call.flags()));
              return new Replies.Domains(call.needResults() == 0 ? List.of() : found, found.size());
            })
        .on(Remote.DOMAIN_LOOKUP_BY_NAME, (_, call) -> reply(domains.lookupByName(call.name())))
        .on(Remote.DOMAIN_LOOKUP_BY_UUID, (_, call) -> reply(domains.lookupByUuid(call.uuid())))
        .on(Remote.DOMAIN_LOOKUP_BY_ID, (_, call) -> reply(domains.lookupById(call.id())))
        .on(Remote.CONNECT_NUM_OF_DOMAINS, (_, _) -> count(Flags.LIST_ACTIVE))
        .on(Remote.CONNECT_NUM_OF_DEFINED_DOMAINS, (_, _) -> count(Flags.LIST_INACTIVE))
        .on(
            Remote.CONNECT_LIST_DOMAINS,
            (_, call) ->
                new Replies.Ids(
                    domains.list(Flags.LIST_ACTIVE).stream()
                        .map(Domain::id)
                        .limit(Math.max(0, call.most()))
                        .toList()))
        .on(
            Remote.CONNECT_LIST_DEFINED_DOMAINS,
            (_, call) ->
                new Replies.Names(
                    domains.list(Flags.LIST_INACTIVE).stream()
                        .map(Domain::name)
                        .limit(Math.max(0, call.most()))
                        .toList()))
        .on(Remote.CONNECT_GET_ALL_DOMAIN_STATS, (_, call) -> stats(call));
  }

  private void addLifeTo(CallTable<Client> table) {
    table
        .on(Remote.DOMAIN_DEFINE_XML, (_, call) -> reply(domains.defineXml(call.xml(), 0)))
        .on(
            Remote.DOMAIN_DEFINE_XML_FLAGS,
            (_, call) -> reply(domains.defineXml(call.xml(), call.flags())))
        .on(
            Remote.DOMAIN_CREATE_XML,
            (client, call) -> started(client, domains.createXml(call.xml(), call.flags(), client)))
        .on(
            Remote.DOMAIN_CREATE,
            (client, call) -> {
              domain(call.dom()).create(0, client);
              return new Nothing();
            })
        .on(
            Remote.DOMAIN_CREATE_WITH_FLAGS,
            (client, call) -> {
              Domain domain = domain(call.dom());
              domain.create(call.flags(), client);
              return started(client, domain);
            })
        .on(
            Remote.DOMAIN_RENAME,
            (_, call) -> {
              domains.rename(domain(call.dom()), call.name(), call.flags());
              return new Replies.Int(0);
            })
        .on(
            Remote.DOMAIN_SET_AUTOSTART,
            (_, call) -> {
              domain(call.dom()).setAutostart(call.number() != 0);
              return new Nothing();
            });
    on(table, Remote.DOMAIN_DESTROY, (domain, _) -> done(() -> domain.destroy(0)));
    onFlags(table, Remote.DOMAIN_DESTROY_FLAGS, (dom, flags) -> done(() -> dom.destroy(flags)));
    on(table, Remote.DOMAIN_UNDEFINE, (domain, _) -> done(() -> domain.undefine(0)));
    onFlags(table, Remote.DOMAIN_UNDEFINE_FLAGS, (dom, flags) -> done(() -> dom.undefine(flags)));
    on(table, Remote.DOMAIN_SHUTDOWN, (domain, _) -> done(() -> domain.shutdown(0)));
    onFlags(table, Remote.DOMAIN_SHUTDOWN_FLAGS, (dom, flags) -> done(() -> dom.shutdown(flags)));
    on(table, Remote.DOMAIN_SUSPEND, (domain, _) -> done(domain::suspend));
    on(table, Remote.DOMAIN_RESUME, (domain, _) -> done(domain::resume));
  }

  private void addQuestionsTo(CallTable<Client> table) {
    onFlags(
        table, Remote.DOMAIN_GET_XML_DESC, (dom, flags) -> new Replies.Text(dom.xmlDesc(flags)));
    on(
        table,
        Remote.DOMAIN_GET_SECURITY_LABEL,
        (domain, _) -> {
          var _ = domain.state(); // that it is there
          return new Replies.SecurityLabel("", 0);
        });
    on(table, Remote.DOMAIN_GET_OS_TYPE, (domain, _) -> new Replies.Text(domain.osType()));
    on(table, Remote.DOMAIN_GET_AUTOSTART, (domain, _) -> flag(domain.autostart()));
    on(table, Remote.DOMAIN_IS_ACTIVE, (domain, _) -> flag(domain.isActive()));
    on(table, Remote.DOMAIN_IS_PERSISTENT, (domain, _) -> flag(domain.isPersistent()));
    on(table, Remote.DOMAIN_IS_UPDATED, (domain, _) -> flag(domain.isUpdated()));
    on(
        table,
        Remote.DOMAIN_GET_MAX_MEMORY,
        (domain, _) -> new Replies.Hyper(domain.info().maxMemoryKib()));
    on(table, Remote.DOMAIN_GET_MAX_VCPUS, (dom, _) -> new Replies.Int(dom.sizes().maxVcpus()));
    onFlags(
        table,
        Remote.DOMAIN_GET_VCPUS_FLAGS,
        (dom, flags) -> new Replies.Int(dom.sizes().vcpus(flags)));
    on(
        table,
        Remote.DOMAIN_GET_INFO,
        (domain, _) -> {
          DomainInfo info = domain.info();
          return new Replies.DomainInfo(
              info.state(),
              info.maxMemoryKib(),
              info.memoryKib(),
              info.vcpus(),
              info.cpuTimeNanos());
        });
    onFlags(
        table,
        Remote.DOMAIN_GET_STATE,
        (domain, flags) -> {
          DomainState state = domain.state(flags);
          return new Replies.DomainState(state.state(), state.reason());
        });
    onFlags(
        table,
        Remote.DOMAIN_GET_MESSAGES,
        (domain, flags) -> new Replies.Messages(domain.messages(flags)));
    onFlags(
        table,
        Remote.DOMAIN_GET_CONTROL_INFO,
        (domain, flags) -> {
          domain.machine().controlInfo(flags);
          return new Replies.ControlInfo(0, 0, 0);
        });
  }

  private void addDisksTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_GET_BLOCK_INFO,
            (_, call) -> {
              ImageSizes sizes = domain(call.dom()).blockInfo(call.text(), call.flags());
              return new Replies.BlockInfo(sizes.allocation(), sizes.capacity(), sizes.physical());
            })
        .on(
            Remote.DOMAIN_GET_METADATA,
            (_, call) ->
                new Replies.Text(
                    domain(call.dom()).metadata().metadata(call.type(), call.uri(), call.flags())))
        .on(
            Remote.DOMAIN_SET_METADATA,
            (_, call) ->
                done(() ->
                    domain(call.dom())
                        .metadata()
                        .set(call.type(), call.metadata(), call.key(), call.uri(), call.flags())))
        .on(
            Remote.DOMAIN_GET_DISK_ERRORS,
            (_, call) -> {
              Domain domain = domain(call.dom());
              if (call.maxErrors() == 0) {
                return new Replies.DiskErrors(List.of(), domain.diskErrorsAtMost(call.flags()));
              }
              List<Replies.DiskError> errors =
                  domain.diskErrors(call.flags()).stream()
                      .map(error -> new Replies.DiskError(error.target(), error.code()))
                      .limit(Math.max(0, call.maxErrors()))
                      .toList();
              return new Replies.DiskErrors(errors, errors.size());
            })
        .on(
            Remote.DOMAIN_BLOCK_STATS,
            (_, call) -> {
              BlockStats stats = domain(call.dom()).blockStats(call.text());
              return new Replies.BlockStats(
                  stats.readRequests(),
                  stats.readBytes(),
                  stats.writeRequests(),
                  stats.writeBytes(),
                  stats.errors());
            })
        .on(
            Remote.DOMAIN_BLOCK_STATS_FLAGS,
            (_, call) -> {
              List<Wire.TypedParameter> all =
                  Convert.wire(domain(call.dom()).blockStatsParams(call.path(), call.flags()));
              return call.nparams() == 0
                  ? new Replies.BlockStatsParameters(List.of(), all.size())
                  : new Replies.BlockStatsParameters(
                      all.subList(0, Math.clamp(call.nparams(), 0, all.size())), 0);
            });
  }

  /// What can be answered because it cannot exist: saved memory.
  private void addWhatIsNeverThereTo(CallTable<Client> table) {
    onFlags(
        table,
        Remote.DOMAIN_HAS_MANAGED_SAVE_IMAGE,
        (domain, flags) -> flag(domain.machine().hasManagedSave(flags)));
  }

  // ---- parts

  private Replies.DomainStats stats(Calls.DomainStats call) throws LibvirtException {
    List<Replies.StatsRecord> records = new ArrayList<>();
    List<DomainRef> asked = call.doms().stream().map(Convert::ref).toList();
    for (Domain domain : domains.listForStats(asked, call.stats(), call.flags())) {
      try {
        records.add(
            new Replies.StatsRecord(
                Convert.wire(domain.ref()),
                Convert.wire(domain.stats(call.stats(), call.flags()))));
      } catch (LibvirtException e) {
        if (e.code() != ErrorCode.NO_DOMAIN) {
          throw e;
        }
        // It went away meanwhile: not there, not told.
      }
    }
    return new Replies.DomainStats(records);
  }

  /// A client that went while its domain was starting took with it what it wanted ended with it.
  private Replies.Domain started(Client client, Domain domain) {
    if (client.gone()) {
      domains.connectionClosed(client);
    }
    return reply(domain);
  }

  private Replies.Int count(int flags) throws LibvirtException {
    return new Replies.Int(domains.list(flags).size());
  }

  private static List<Wire.Domain> wire(List<Domain> domains) {
    return domains.stream().map(domain -> Convert.wire(domain.ref())).toList();
  }

  private static Replies.Domain reply(Domain domain) {
    return new Replies.Domain(Convert.wire(domain.ref()));
  }

  private static Replies.Int flag(boolean value) {
    return new Replies.Int(value ? 1 : 0);
  }

  /// Does something that has no result.
  interface Act {
    void run() throws LibvirtException;
  }

  static Nothing done(Act act) throws LibvirtException {
    act.run();
    return new Nothing();
  }
}
