// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Domains;
import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.domain.Flags;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.HostRemote;
import io.tidemark.rpc.Procedure;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;

/// Calls about the host, and about what libvirt manages beside domains: storage pools, networks,
/// interfaces, secrets, filters, host devices. There are none of those, which is what is answered,
/// so that clients that list them show nothing instead of failing.
final class HostCalls {
  /// Every flag of virConnectListAllStoragePools.
  private static final int POOL_FLAGS = 0x1fffff;

  private static final Map<Integer, ErrorDomain> LIST_DOMAINS =
      Map.of(
          281, ErrorDomain.STORAGE,
          283, ErrorDomain.NETWORK,
          284, ErrorDomain.INTERFACE,
          285, ErrorDomain.NODE_DEVICE,
          286, ErrorDomain.NWFILTER,
          287, ErrorDomain.SECRET,
          401, ErrorDomain.NWFILTER);

  private static final Map<Integer, String> LIST_FUNCTIONS =
      Map.of(
          281, "storageConnectListAllStoragePools",
          283, "networkConnectListAllNetworks",
          284, "udevConnectListAllInterfaces",
          285, "nodeConnectListAllNodeDevices",
          286, "nwfilterConnectListAllNWFilters",
          287, "secretConnectListAllSecrets",
          401, "nwfilterConnectListAllNWFilterBindings");

  private final Domains domains;
  private final HostInfo host;

  HostCalls(Domains domains, HostInfo host) {
    this.domains = domains;
    this.host = host;
  }

  void addTo(CallTable<Client> table) {
    addHostTo(table);
    addListsTo(table);
    addLookUpsTo(table);
  }

  private void addHostTo(CallTable<Client> table) {
    table
        .on(
            HostRemote.CONNECT_GET_MAX_VCPUS,
            (_, call) -> new Replies.Int(domains.maxVcpus(call.name())))
        .on(
            Remote.CONNECT_GET_DOMAIN_CAPABILITIES,
            (_, call) ->
                new Replies.Text(
                    domains.domainCapabilities(
                        call.emulator(),
                        call.arch(),
                        call.machine(),
                        call.virtType(),
                        call.flags())))
        .on(Remote.NODE_GET_SECURITY_MODEL, (_, _) -> new Replies.SecurityModel("none", "0"))
        .on(HostRemote.NODE_GET_FREE_MEMORY, (_, _) -> new Replies.Hyper(host.freeMemoryBytes()))
        .on(HostRemote.NODE_GET_CELLS_FREE_MEMORY, (_, call) -> cells(call))
        .on(
            HostRemote.NODE_GET_MEMORY_STATS,
            (_, call) -> {
              Flags.check(call.flags(), 0, ErrorDomain.NONE, "virHostMemGetStats");
              return stats(host.memoryStats(call.cell()), call.nparams());
            })
        .on(
            HostRemote.NODE_GET_CPU_STATS,
            (_, call) -> {
              Flags.check(call.flags(), 0, ErrorDomain.NONE, "virHostCPUGetStats");
              return stats(host.cpuStats(call.cpu()), call.nparams());
            })
        .on(
            HostRemote.NODE_GET_CPU_MAP,
            (_, call) -> {
              Flags.check(call.flags(), 0, ErrorDomain.NONE, "virHostCPUGetMap");
              return cpuMap(call.needMap() != 0);
            });
  }

  private Replies.CellsFreeMemory cells(Calls.Cells call) throws IOException, LibvirtException {
    int last = host.cells() - 1;
    if (call.start() < 0 || call.start() > last) {
      throw ErrorCode.INTERNAL_ERROR.in(
          ErrorDomain.NONE, "start cell %d out of range (0-%d)".formatted(call.start(), last));
    }
    int end = (int) Math.min(last + 1L, call.start() + (long) Math.max(0, call.most()));
    return new Replies.CellsFreeMemory(host.cellsFreeBytes(call.start(), end));
  }

  private static Replies.NodeStats stats(List<Replies.NodeStat> all, int wanted) {
    return wanted == 0
        ? new Replies.NodeStats(List.of(), all.size())
        : new Replies.NodeStats(all.subList(0, Math.clamp(wanted, 0, all.size())), 0);
  }

  private Replies.CpuMap cpuMap(boolean wanted) throws IOException {
    int cpus = host.node().cpus();
    byte[] map = new byte[wanted ? (cpus + 7) / 8 : 0];
    for (int cpu = 0; wanted && cpu < cpus; cpu++) {
      map[cpu / 8] |= (byte) (1 << cpu % 8);
    }
    return new Replies.CpuMap(ByteBuffer.wrap(map), cpus, cpus);
  }

  private static void checkList(Procedure<?, ?> procedure, int flags, int known)
      throws LibvirtException {
    int number = procedure.row().number();
    Flags.check(
        flags,
        known,
        LIST_DOMAINS.getOrDefault(number, ErrorDomain.NONE),
        LIST_FUNCTIONS.getOrDefault(number, ""));
  }

  private static void addListsTo(CallTable<Client> table) {
    HostRemote.COUNTS.forEach(count -> table.on(count, (_, _) -> new Replies.Int(0)));
    HostRemote.NAMES.forEach(names -> table.on(names, (_, _) -> new Replies.Names(List.of())));
    HostRemote.LISTS.forEach((list, known) ->
        table.on(
            list,
            (_, call) -> {
              checkList(list, call.flags(), known);
              return new Replies.NoneListed(0, 0);
            }));
    table
        .on(
            Remote.CONNECT_LIST_ALL_STORAGE_POOLS,
            (_, call) -> {
              checkList(Remote.CONNECT_LIST_ALL_STORAGE_POOLS, call.flags(), POOL_FLAGS);
              return new Replies.StoragePools(List.of(), 0);
            })
        .on(HostRemote.NODE_NUM_OF_DEVICES, (_, _) -> new Replies.Int(0))
        .on(HostRemote.NODE_LIST_DEVICES, (_, _) -> new Replies.Names(List.of()));
  }

  /// Says what was not found.
  private interface NotFound<A> {
    LibvirtException of(A call);
  }

  private static <A extends Record, R extends Record> void none(
      CallTable<Client> table, Procedure<A, R> lookUp, NotFound<A> error) {
    table.on(
        lookUp,
        (_, call) -> {
          throw error.of(call);
        });
  }

  private static <R extends Record> void noName(
      CallTable<Client> table,
      Procedure<Calls.Name, R> lookUp,
      ErrorCode code,
      ErrorDomain domain,
      String text) {
    none(table, lookUp, call -> code.in(domain, text.formatted(call.name())));
  }

  private static void noUuid(
      CallTable<Client> table,
      Procedure<Calls.Uuid, Nothing> lookUp,
      ErrorCode code,
      ErrorDomain domain,
      String what) {
    none(
        table,
        lookUp,
        call -> code.in(domain, "no %s with matching uuid '%s'".formatted(what, call.uuid())));
  }

  private static void addLookUpsTo(CallTable<Client> table) {
    ErrorDomain storage = ErrorDomain.STORAGE;
    noName(
        table,
        HostRemote.STORAGE_POOL_LOOKUP_BY_NAME,
        ErrorCode.NO_STORAGE_POOL,
        storage,
        "no storage pool with matching name '%s'");
    noUuid(
        table,
        HostRemote.STORAGE_POOL_LOOKUP_BY_UUID,
        ErrorCode.NO_STORAGE_POOL,
        storage,
        "storage pool");
    none(
        table,
        Remote.STORAGE_POOL_LOOKUP_BY_TARGET_PATH,
        call ->
            ErrorCode.NO_STORAGE_POOL.in(
                storage, "no storage pool with matching target path '%s'".formatted(call.path())));
    noName(
        table,
        HostRemote.STORAGE_VOL_LOOKUP_BY_KEY,
        ErrorCode.NO_STORAGE_VOL,
        storage,
        "no storage vol with matching key %s");
    noName(
        table,
        HostRemote.STORAGE_VOL_LOOKUP_BY_PATH,
        ErrorCode.NO_STORAGE_VOL,
        storage,
        "no storage vol with matching path '%s'");
    noName(
        table,
        HostRemote.NETWORK_LOOKUP_BY_NAME,
        ErrorCode.NO_NETWORK,
        ErrorDomain.NETWORK,
        "no network with matching name '%s'");
    noUuid(
        table,
        HostRemote.NETWORK_LOOKUP_BY_UUID,
        ErrorCode.NO_NETWORK,
        ErrorDomain.NETWORK,
        "network");
    noName(
        table,
        HostRemote.INTERFACE_LOOKUP_BY_NAME,
        ErrorCode.NO_INTERFACE,
        ErrorDomain.INTERFACE,
        "couldn't find interface named '%s'");
    noName(
        table,
        HostRemote.INTERFACE_LOOKUP_BY_MAC_STRING,
        ErrorCode.NO_INTERFACE,
        ErrorDomain.INTERFACE,
        "couldn't find interface with MAC address '%s'");
    noUuid(
        table, HostRemote.SECRET_LOOKUP_BY_UUID, ErrorCode.NO_SECRET, ErrorDomain.SECRET, "secret");
    none(
        table,
        HostRemote.SECRET_LOOKUP_BY_USAGE,
        call ->
            ErrorCode.NO_SECRET.in(
                ErrorDomain.SECRET, "no secret with matching usage '%s'".formatted(call.id())));
    noName(
        table,
        HostRemote.NODE_DEVICE_LOOKUP_BY_NAME,
        ErrorCode.NO_NODE_DEVICE,
        ErrorDomain.NODE_DEVICE,
        "no node device with matching name '%s'");
    noName(
        table,
        HostRemote.NWFILTER_LOOKUP_BY_NAME,
        ErrorCode.NO_NWFILTER,
        ErrorDomain.NWFILTER,
        "no nwfilter with matching name '%s'");
    noUuid(
        table,
        HostRemote.NWFILTER_LOOKUP_BY_UUID,
        ErrorCode.NO_NWFILTER,
        ErrorDomain.NWFILTER,
        "nwfilter");
    noName(
        table,
        HostRemote.NWFILTER_BINDING_LOOKUP_BY_PORT_DEV,
        ErrorCode.NO_NWFILTER_BINDING,
        ErrorDomain.NWFILTER,
        "no nwfilter binding for port dev '%s'");
  }
}
