// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Domain;
import io.tidemark.domain.Domains;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.Wire;
import java.util.List;

/// Calls about a running domain's devices, their limits, and what it would have if it had a
/// processor.
final class DeviceCalls {
  private static final int AFFECT_LIVE = 1;
  private static final int MEMORY_MAXIMUM = 4; // VIR_DOMAIN_MEM_MAXIMUM

  private final Domains domains;

  DeviceCalls(Domains domains) {
    this.domains = domains;
  }

  void addTo(CallTable<Client> table) {
    addPluggingTo(table);
    addTuningTo(table);
    addMachineTo(table);
    addSizesTo(table);
  }

  private void addSizesTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_SET_VCPUS,
            (_, call) ->
                done(() -> domain(call.dom()).sizes().setVcpus(call.number(), AFFECT_LIVE)))
        .on(
            Remote.DOMAIN_SET_VCPUS_FLAGS,
            (_, call) ->
                done(() -> domain(call.dom()).sizes().setVcpus(call.number(), call.flags())))
        .on(
            Remote.DOMAIN_SET_MEMORY,
            (_, call) ->
                done(() -> domain(call.dom()).sizes().setMemory(call.number(), AFFECT_LIVE)))
        .on(
            Remote.DOMAIN_SET_MAX_MEMORY,
            (_, call) ->
                done(() -> domain(call.dom()).sizes().setMemory(call.number(), MEMORY_MAXIMUM)))
        .on(
            Remote.DOMAIN_SET_MEMORY_FLAGS,
            (_, call) ->
                done(() -> domain(call.dom()).sizes().setMemory(call.number(), call.flags())));
  }

  private Domain domain(Wire.Domain dom) throws LibvirtException {
    return domains.resolve(Convert.ref(dom));
  }

  private static Nothing done(DomainCalls.Act act) throws LibvirtException {
    return DomainCalls.done(act);
  }

  private void addPluggingTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_ATTACH_DEVICE,
            (_, call) -> done(() -> domain(call.dom()).devices().attach(call.text(), AFFECT_LIVE)))
        .on(
            Remote.DOMAIN_ATTACH_DEVICE_FLAGS,
            (_, call) -> done(() -> domain(call.dom()).devices().attach(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_DETACH_DEVICE,
            (_, call) -> done(() -> domain(call.dom()).devices().detach(call.text(), AFFECT_LIVE)))
        .on(
            Remote.DOMAIN_DETACH_DEVICE_FLAGS,
            (_, call) -> done(() -> domain(call.dom()).devices().detach(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_DETACH_DEVICE_ALIAS,
            (_, call) ->
                done(() -> domain(call.dom()).devices().detachAlias(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_UPDATE_DEVICE_FLAGS,
            (_, call) ->
                done(() -> domain(call.dom()).devices().update(call.text(), call.flags())));
  }

  private void addTuningTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_SET_BLOCK_IO_TUNE,
            (_, call) ->
                done(() ->
                    domain(call.dom())
                        .tuning()
                        .setIoTune(call.disk(), Convert.params(call.params()), call.flags())))
        .on(
            Remote.DOMAIN_GET_BLOCK_IO_TUNE,
            (_, call) -> {
              List<Wire.TypedParameter> all =
                  Convert.wire(domain(call.dom()).tuning().ioTune(call.disk(), call.flags()));
              return call.nparams() == 0
                  ? new Replies.BlockIoTune(List.of(), all.size())
                  : new Replies.BlockIoTune(
                      all.subList(0, Math.clamp(call.nparams(), 0, all.size())), 0);
            })
        .on(
            Remote.DOMAIN_SET_BLOCK_THRESHOLD,
            (_, call) ->
                done(() ->
                    domain(call.dom())
                        .tuning()
                        .setThreshold(call.device(), call.threshold(), call.flags())));
  }

  private void addMachineTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_RESET,
            (_, call) -> done(() -> domain(call.dom()).machine().reset(call.flags())))
        .on(
            Remote.DOMAIN_REBOOT,
            (_, call) -> done(() -> domain(call.dom()).machine().reboot(call.flags())))
        .on(Remote.DOMAIN_SAVE, (_, call) -> done(() -> domain(call.dom()).machine().save(0)))
        .on(
            Remote.DOMAIN_SAVE_FLAGS,
            (_, call) -> done(() -> domain(call.dom()).machine().save(call.flags())))
        .on(
            Remote.DOMAIN_MANAGED_SAVE,
            (_, call) -> done(() -> domain(call.dom()).machine().managedSave(call.flags())))
        .on(
            Remote.DOMAIN_MANAGED_SAVE_REMOVE,
            (_, call) -> done(() -> domain(call.dom()).machine().managedSaveRemove(call.flags())))
        .on(
            Remote.DOMAIN_CORE_DUMP,
            (_, call) -> done(() -> domain(call.dom()).machine().coreDump(0, call.flags())))
        .on(
            Remote.DOMAIN_CORE_DUMP_WITH_FORMAT,
            (_, call) ->
                done(() -> domain(call.dom()).machine().coreDump(call.format(), call.flags())))
        .on(
            Remote.DOMAIN_MIGRATE_PERFORM3_PARAMS,
            (_, call) -> done(() -> domain(call.dom()).machine().migrate(call.flags())));
  }
}
