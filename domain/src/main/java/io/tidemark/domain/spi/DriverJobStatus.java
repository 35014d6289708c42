// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// QEMU's job states. Spec: qapi/job.json, JobStatus.
public enum DriverJobStatus {
  UNDEFINED,
  CREATED,
  RUNNING,
  PAUSED,
  READY,
  STANDBY,
  WAITING,
  /// Work is done and the drive is drained; nothing has been switched. The domain room writes its
  /// live record, then finalizes: the commit point lies between.
  PENDING,
  ABORTING,
  /// Over; kept until dismissed so that its outcome can be read.
  CONCLUDED,
  NULL
}
