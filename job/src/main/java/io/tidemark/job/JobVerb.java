// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.Collections;
import java.util.EnumSet;
import java.util.Set;

/// What one asks of a job, and in which statuses it may be asked.
///
/// Spec: QEMU `qapi/job.json`, JobVerb; `START` is ours, QEMU starts a job in the command that
/// makes it.
public enum JobVerb {
  START,
  CANCEL,
  PAUSE,
  RESUME,
  SET_SPEED,
  /// libvirt's pivot.
  COMPLETE,
  FINALIZE,
  DISMISS;

  /// The statuses in which the verb is not refused.
  public Set<JobStatus> allowedIn() {
    return switch (this) {
      case START -> Collections.unmodifiableSet(EnumSet.of(JobStatus.CREATED));
      case CANCEL ->
          Collections.unmodifiableSet(EnumSet.range(JobStatus.CREATED, JobStatus.PENDING));
      case PAUSE, RESUME, SET_SPEED ->
          Collections.unmodifiableSet(EnumSet.range(JobStatus.CREATED, JobStatus.STANDBY));
      case COMPLETE -> Collections.unmodifiableSet(EnumSet.of(JobStatus.READY));
      case FINALIZE -> Collections.unmodifiableSet(EnumSet.of(JobStatus.PENDING));
      case DISMISS -> Collections.unmodifiableSet(EnumSet.of(JobStatus.CONCLUDED));
    };
  }

  public boolean allowedIn(JobStatus status) {
    return allowedIn().contains(status);
  }
}
