// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Set;

/// Where a job stands: QEMU's eleven statuses and the moves between them.
///
/// Spec: QEMU `qapi/job.json`, JobStatus.
public enum JobStatus {
  /// Before there is a job.
  UNDEFINED,
  /// Made, not started.
  CREATED,
  RUNNING,
  /// Paused while running.
  PAUSED,
  /// A mirror that holds everything and follows the guest.
  READY,
  /// Paused while ready.
  STANDBY,
  /// Finishing: the last bytes of a mirror, or the other jobs of a group.
  WAITING,
  /// Work is done; nothing took effect yet. A mirror's drive is drained.
  PENDING,
  /// Ending without effect.
  ABORTING,
  /// Over; kept until dismissed so that its outcome can be read.
  CONCLUDED,
  /// Dismissed.
  NULL;

  /// The statuses that may follow this one.
  public Set<JobStatus> next() {
    return switch (this) {
      case UNDEFINED -> only(CREATED);
      case CREATED -> only(RUNNING, ABORTING, NULL);
      case RUNNING -> only(PAUSED, READY, WAITING, ABORTING);
      case PAUSED -> only(RUNNING);
      case READY -> only(STANDBY, WAITING, ABORTING);
      case STANDBY -> only(READY);
      case WAITING -> only(PENDING, ABORTING);
      case PENDING -> only(ABORTING, CONCLUDED);
      case ABORTING -> only(ABORTING, CONCLUDED);
      case CONCLUDED -> only(NULL);
      case NULL -> only();
    };
  }

  /// Whether the job's work is over, dismissed or not.
  public boolean over() {
    return this == CONCLUDED || this == NULL;
  }

  private static Set<JobStatus> only(JobStatus... statuses) {
    Set<JobStatus> set = EnumSet.noneOf(JobStatus.class);
    Collections.addAll(set, statuses);
    return Collections.unmodifiableSet(set);
  }
}
