// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;

/// virDomainRevertToSnapshot. Called with the domain's lock held.
///
/// Going back to a snapshot inside the images: the domain stops if it runs; the images go back, one
/// after the other; the definition of that time becomes the persistent one; the snapshot becomes
/// the current one; the domain starts if that is wanted. What fails stops there, and may be
/// repeated.
record SnapshotRevert(DomainLife domain, DomainContext context) {
  void run(SnapshotDocument snapshot, int flags) throws LibvirtException {
    boolean start = Flags.has(flags, Flags.SNAPSHOT_REVERT_RUNNING | Flags.SNAPSHOT_REVERT_PAUSED);
    if (domain.persistentDefinition().isEmpty()) {
      throw start
          ? ErrorCode.OPERATION_UNSUPPORTED.because("revert of a transient domain is not supported")
          : ErrorCode.OPERATION_INVALID.because(
              "transient domain needs to request run or pause to revert to inactive snapshot");
    }
    if (domain.runningSession().filter(running -> running.live().hasBlockJob()).isPresent()) {
      throw ErrorCode.OPERATION_INVALID.because("domain has active block job");
    }
    if (snapshot.isExternal()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because("revert to external snapshot not supported yet");
    }
    if (snapshot.memory().location() != SnapshotDocument.Location.NO
        || snapshot.domain().isEmpty()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "snapshot '%s' holds memory, which domains here do not have".formatted(snapshot.name()));
    }
    if (domain.runningSession().isPresent()) {
      domain.halt();
    }
    new InternalSnapshot(domain, context).apply(snapshot);
    Definition definition = Definition.ofStored(snapshot.domain().get().copy());
    try {
      domain.stored().redefine(definition);
      domain.snapshots().makeCurrent(java.util.Optional.of(snapshot));
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    }
    domain.shutOffFromSnapshot();
    if (start) {
      domain.startFromSnapshot(Flags.has(flags, Flags.SNAPSHOT_REVERT_PAUSED));
    }
    domain.event(new DomainEvent.LifecycleChanged(domain.ref(), Lifecycle.DEFINED_FROM_SNAPSHOT));
  }
}
