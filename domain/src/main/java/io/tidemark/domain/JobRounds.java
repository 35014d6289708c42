// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.JobState;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Goes through all jobs of a running domain: after news from the driver, and once after a restart
/// of the daemon. Every method is called with the domain's lock held.
final class JobRounds {
  private static final System.Logger LOG = System.getLogger(JobRounds.class.getName());

  private final DomainLife domain;
  private final BlockJobs jobs;
  private final Backups backups;

  JobRounds(DomainLife domain, BlockJobs jobs, Backups backups) {
    this.domain = domain;
    this.jobs = jobs;
    this.backups = backups;
  }

  /// Brings all jobs to where the driver says they are.
  void observe(Session running) {
    List<JobState> states = running.driver().jobs();
    List<String> known = new ArrayList<>();
    for (LiveDisk disk : running.live().disks()) {
      BlockJob job = disk.job();
      if (job != null && domain.isCurrent(running)) {
        known.add(job.id());
        jobs.observe(running, disk, job, find(states, job.id()));
      }
    }
    BackupJob backup = running.live().backup();
    if (backup != null && domain.isCurrent(running)) {
      backup.disks().forEach(disk -> known.add(disk.jobId()));
      backups.observe(running, backup, states);
    }
    for (JobState state : states) {
      if (domain.isCurrent(running)
          && state.status() == DriverJobStatus.CONCLUDED
          && !known.contains(state.id())) {
        dismissUnknown(running, state.id());
      }
    }
  }

  private static Optional<JobState> find(List<JobState> states, String id) {
    return states.stream().filter(state -> state.id().equals(id)).findFirst();
  }

  private void dismissUnknown(Session running, String id) {
    try {
      running.driver().dismissJob(id);
    } catch (DriverException e) {
      LOG.log(Level.DEBUG, domain.name() + ": dismiss " + id, e);
    }
  }

  /// Ends what the last daemon was in the middle of: before its commit point it failed, behind it
  /// is finished.
  void recover(Session taken) {
    Live live = taken.live();
    domain.checkpoints().recover(taken);
    for (LiveDisk disk : live.disks()) {
      BlockJob job = disk.job();
      if (job != null) {
        jobs.recover(taken, disk, job);
      }
    }
    BackupJob backup = live.backup();
    if (backup != null) {
      backups.recover(backup);
      if (!backup.succeeded()) {
        live.remember("backup failed: " + backup.failure());
      }
      live.backup(null);
    }
    domain.stored().putLiveOrLog(taken.live());
  }
}
