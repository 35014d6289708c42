// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.RunningDomain;
import java.lang.System.Logger.Level;
import java.util.Optional;

/// One domain at the daemon's start: what the state store holds of it is read in, then what ran is
/// taken up. Every method takes the domain's lock.
///
/// @param domain known by name and uuid only until now
record Restoration(DomainLife domain, DomainContext context) {
  private static final System.Logger LOG = System.getLogger(Restoration.class.getName());

  void definition(StoredDefinition definition) {
    domain.settle(() -> domain.stored().restore(definition));
  }

  void checkpoint(CheckpointDocument document) {
    domain.settle(() -> domain.checkpoints().tree().put(document));
  }

  void snapshot(SnapshotDocument.Stored snapshot) {
    domain.settle(() -> domain.snapshots().restore(snapshot));
  }

  /// After the last [#snapshot].
  void settleSnapshots() {
    domain.settle(() -> {
      domain.snapshots().settleCurrent();
      domain.snapshots().finishPending();
    });
  }

  /// Takes up what ran when the last daemon ended, finishing or undoing what it was in the middle
  /// of (see [BlockJobs], [Backups], [Checkpoints]).
  void running(Live live) {
    domain.settle(() -> {
      finishDefinition(live);
      ExternalSnapshot.recover(domain, live);
      if (live.autodestroy()) {
        endWithConnection(live);
      } else {
        reattach(live);
      }
    });
  }

  private void finishDefinition(Live live) {
    for (LiveDisk disk : live.disks()) {
      BlockJob job = disk.job();
      if (job != null && job.phase() == BlockJob.Phase.CHANGED) {
        domain.jobs().updateDefinition(disk, job);
      }
    }
  }

  private void endWithConnection(Live live) {
    LOG.log(
        Level.INFO, "{0}: its connection ended with the daemon, so it is stopped", domain.name());
    live.disks().stream().map(LiveDisk::job).forEach(domain.jobs()::dropped);
    domain.dropLeft(live, DomainState.SHUTOFF_DESTROYED);
  }

  private void reattach(Live live) {
    JobWatch watch = new JobWatch();
    RunningDomain driver;
    try {
      driver = context.driverOf(live.definition()).reattach(live.launchSpec(), watch);
    } catch (LibvirtException | DriverException e) {
      LOG.log(
          Level.ERROR,
          "%s: cannot be taken up again; its disks were %s"
              .formatted(domain.name(), live.disks().stream().map(LiveDisk::layers).toList()),
          e);
      domain.dropLeft(live, DomainState.SHUTOFF_FAILED);
      return;
    }
    domain.goOn(new Session(live, driver, watch, Optional.empty()));
  }
}
