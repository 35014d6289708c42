// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.JobState;
import java.util.Optional;

/// What clients ask of jobs that run: block jobs by disk, the backup as the domain's one job. Every
/// method is called with the domain's lock held; waiting gives it up.
final class JobVerbs {
  private static final long MIB = 1 << 20;

  private final DomainLife domain;
  private final DomainContext context;
  private final BlockJobs blockJobs;
  private final Backups backups;

  JobVerbs(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
    blockJobs = domain.jobs();
    backups = domain.backups();
  }

  void abort(String diskName, int flags) throws LibvirtException {
    Flags.check(flags, Flags.ABORT_ASYNC | Flags.ABORT_PIVOT, "qemuDomainBlockJobAbort");
    Session session = domain.requireActive();
    LiveDisk disk = session.live().disk(diskName);
    boolean pivot = Flags.has(flags, Flags.ABORT_PIVOT);
    boolean wait = !Flags.has(flags, Flags.ABORT_ASYNC);
    domain.observe(session); // so that a job that is ready is known to be
    BlockJob job = disk.job();
    BackupJob backup = session.live().backup();
    if (job != null) {
      blockJobs.abort(session, disk, job, pivot);
      if (wait) {
        awaitEnd(job, pivot);
      }
    } else if (backup != null && backup.runsOn(disk.target())) {
      abortBackup(session, disk, backup, pivot, wait);
    } else {
      throw noJob(disk);
    }
  }

  private static LibvirtException noJob(LiveDisk disk) {
    return ErrorCode.INVALID_ARG.because(
        "disk %s does not have an active block job".formatted(disk.target()));
  }

  private void awaitEnd(BlockJob job, boolean pivot) throws LibvirtException {
    while (!job.over()) {
      domain.changed().awaitUninterruptibly();
    }
    if (pivot && job.outcome() == BlockJobStatus.FAILED) {
      throw ErrorCode.OPERATION_FAILED.because(
          "block job '%s' failed while pivoting: %s".formatted(job.id(), job.failure()));
    }
  }

  private void abortBackup(
      Session session, LiveDisk disk, BackupJob backup, boolean pivot, boolean wait)
      throws LibvirtException {
    String jobId = backup.disk(disk.target()).map(BackupJob.Disk::jobId).orElse("");
    if (pivot) {
      throw BlockJobs.notReady(jobId);
    }
    backups.abort(session, backup);
    while (wait && session.live().backup() == backup && backup.runsOn(disk.target())) {
      domain.changed().awaitUninterruptibly();
    }
  }

  Optional<BlockJobInfo> info(String diskName, int flags) throws LibvirtException {
    Flags.check(flags, Flags.BANDWIDTH_BYTES, "qemuDomainGetBlockJobInfo");
    Session session = domain.requireActive();
    LiveDisk disk = session.live().disk(diskName);
    boolean inBytes = Flags.has(flags, Flags.BANDWIDTH_BYTES);
    BlockJob job = disk.job();
    BackupJob backup = session.live().backup();
    if (job != null) {
      boolean ready = job.ready();
      return state(session, job.id()).map(state -> shown(job.type(), state, ready, inBytes));
    }
    if (backup != null && backup.runsOn(disk.target())) {
      String id = backup.disk(disk.target()).orElseThrow().jobId();
      return state(session, id).map(state -> shown(BlockJobType.BACKUP, state, false, inBytes));
    }
    return Optional.empty();
  }

  private static Optional<JobState> state(Session session, String id) {
    return session.driver().jobs().stream().filter(job -> job.id().equals(id)).findFirst();
  }

  /// Clients take current = end for "ready", so it must not be seen before.
  private static BlockJobInfo shown(
      BlockJobType type, JobState state, boolean ready, boolean inBytes) {
    long current = state.current();
    long end = state.total();
    boolean pivots = type == BlockJobType.COPY || type == BlockJobType.ACTIVE_COMMIT;
    if (end == 0) {
      end = 1;
      current = ready ? 1 : 0;
    } else if (pivots && !ready && current >= end) {
      current = end - 1;
    }
    long bandwidth = state.bandwidthBytesPerSecond();
    if (!inBytes) {
      bandwidth = bandwidth / MIB + (bandwidth % MIB == 0 ? 0 : 1);
    }
    return new BlockJobInfo(type, bandwidth, Math.min(current, end), end);
  }

  void setSpeed(String diskName, long bandwidth, int flags) throws LibvirtException {
    Flags.check(flags, Flags.BANDWIDTH_BYTES, "qemuDomainBlockJobSetSpeed");
    boolean inBytes = Flags.has(flags, Flags.BANDWIDTH_BYTES);
    long speed = inBytes ? bandwidth : BlockCopyRequest.bytesPerSecond(bandwidth, false);
    Session session = domain.requireActive();
    LiveDisk disk = session.live().disk(diskName);
    BlockJob job = disk.job();
    BackupJob backup = session.live().backup();
    String id;
    if (job != null) {
      id = job.id();
    } else if (backup != null && backup.runsOn(disk.target())) {
      id = backup.disk(disk.target()).orElseThrow().jobId();
    } else {
      throw noJob(disk);
    }
    BlockCopyRequest.bytesPerSecond(speed, true);
    try {
      session.driver().setJobSpeed(id, speed);
    } catch (DriverException e) {
      throw DriverErrors.toClient("set the speed of job '%s'".formatted(id), e);
    }
  }

  /// Waits while another backup holds the domain's job, as long as the environment's patience.
  void awaitNoBackup() throws LibvirtException {
    long left = context.environment().jobPatience().toNanos();
    while (domain.runningSession().filter(session -> session.live().backup() != null).isPresent()) {
      if (left <= 0) {
        throw ErrorCode.OPERATION_TIMEOUT.in(
            ErrorDomain.NONE,
            "cannot acquire state change lock (held by monitor=remoteDispatchDomainBackupBegin)");
      }
      try {
        left = domain.changed().awaitNanos(left);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw ErrorCode.OPERATION_ABORTED.because("interrupted while waiting for a job");
      }
    }
  }

  private Optional<BackupJob> runningBackup() {
    return domain.runningSession().flatMap(session -> Optional.ofNullable(session.live().backup()));
  }

  String backupXmlDesc() throws LibvirtException {
    return runningBackup()
        .map(BackupJob::xmlDesc)
        .orElseThrow(() -> ErrorCode.NO_DOMAIN_BACKUP.because("no domain backup job present"));
  }

  JobInfo jobInfo() throws LibvirtException {
    Session session = domain.requireActive();
    refresh(session);
    return runningBackup().map(backups::info).orElse(JobInfo.NONE);
  }

  JobStats jobStats() throws LibvirtException {
    Session session = domain.requireActive();
    refresh(session);
    return runningBackup().map(backups::stats).orElse(JobStats.NONE);
  }

  private static void refresh(Session session) {
    BackupJob backup = session.live().backup();
    if (backup != null) {
      for (JobState state : session.driver().jobs()) {
        backup.disks().stream()
            .filter(disk -> disk.jobId().equals(state.id()))
            .forEach(disk -> disk.progress(state.current(), state.total()));
      }
    }
  }

  void abortJob() throws LibvirtException {
    Session session = domain.requireActive();
    BackupJob backup = session.live().backup();
    if (backup == null) {
      throw ErrorCode.OPERATION_INVALID.because("no job is active on the domain");
    }
    backups.abort(session, backup);
  }
}
