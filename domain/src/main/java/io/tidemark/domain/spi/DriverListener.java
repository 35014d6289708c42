// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// What a driver tells of a running domain, in order, from a thread of its own.
public interface DriverListener {
  /// A job moved (QEMU: JOB_STATUS_CHANGE, and BLOCK_JOB_READY for READY). Details are asked with
  /// [RunningDomain#jobs].
  void jobStatusChanged(String jobId, DriverJobStatus status);

  /// The domain ended without being asked to.
  void stopped(String reason);
}
