// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/// What virDomainGetJobInfo, virDomainGetJobStats and the event of its end say of a backup.
///
/// Spec: libvirt `libvirt-domain.h`, VIR_DOMAIN_JOB_*; which fields come is measured.
final class BackupStats {
  /// VIR_DOMAIN_JOB_OPERATION_BACKUP.
  private static final int OPERATION = 9;

  /// virDomainJobType.
  private static final int UNBOUNDED = 2;

  private static final int COMPLETED = 3;
  private static final int FAILED = 4;
  private static final int CANCELLED = 5;

  private static final String CANCELED_TEXT = "Operation canceled";

  private BackupStats() {}

  /// Fields of a running backup's statistics.
  static List<TypedParam> progress(BackupJob job, Instant now) {
    List<TypedParam> params = header(job, now);
    long total = total(job);
    long done = Math.min(done(job), total);
    if (total == 0) {
      return params;
    }
    if (job.pull()) {
      params.add(new TypedParam.ULLong("disk_temp_used", done));
      params.add(new TypedParam.ULLong("disk_temp_total", total));
    } else {
      params.add(new TypedParam.ULLong("disk_total", total));
      params.add(new TypedParam.ULLong("disk_processed", done));
      params.add(new TypedParam.ULLong("disk_remaining", total - done));
    }
    return params;
  }

  private static List<TypedParam> header(BackupJob job, Instant now) {
    List<TypedParam> params = new ArrayList<>();
    params.add(new TypedParam.Int("operation", OPERATION));
    params.add(new TypedParam.ULLong("time_elapsed", elapsed(job, now).toMillis()));
    return params;
  }

  static JobStats running(BackupJob job, Instant now) {
    return new JobStats(UNBOUNDED, progress(job, now));
  }

  static JobInfo info(BackupJob job, Instant now) {
    long total = job.pull() ? 0 : total(job);
    long done = Math.min(done(job), total);
    return new JobInfo(
        UNBOUNDED,
        elapsed(job, now).toMillis(),
        total,
        done,
        total - done,
        total,
        done,
        total - done);
  }

  /// Of a backup that is over.
  static JobStats completed(BackupJob job, Instant now) {
    boolean success = job.succeeded();
    boolean cancelled = !success && job.failure() == null;
    List<TypedParam> params = progress(job, now);
    params.add(new TypedParam.Bool("success", success));
    String failure = job.failure();
    if (failure != null) {
      params.add(new TypedParam.Str("errmsg", failure));
    } else if (job.disks().stream().anyMatch(disk -> disk.outcome() == BlockJobStatus.CANCELED)) {
      params.add(new TypedParam.Str("errmsg", CANCELED_TEXT));
    }
    return new JobStats(success ? COMPLETED : cancelled ? CANCELLED : FAILED, params);
  }

  /// Of a backup whose domain ended; nobody tells of its disks.
  static JobStats domainEnded(BackupJob job, Instant now) {
    List<TypedParam> params = job.pull() ? header(job, now) : progress(job, now);
    params.add(new TypedParam.Bool("success", false));
    String failure = job.failure();
    if (failure != null) {
      params.add(new TypedParam.Str("errmsg", failure));
    }
    return new JobStats(failure == null ? CANCELLED : FAILED, params);
  }

  private static Duration elapsed(BackupJob job, Instant now) {
    Duration elapsed = Duration.between(job.start(), now);
    return elapsed.isNegative() ? Duration.ZERO : elapsed;
  }

  private static long total(BackupJob job) {
    return job.disks().stream().mapToLong(BackupJob.Disk::total).sum();
  }

  private static long done(BackupJob job) {
    return job.disks().stream().mapToLong(BackupJob.Disk::current).sum();
  }
}
