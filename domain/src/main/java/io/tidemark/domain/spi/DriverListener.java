// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// What a driver tells of a running domain, in order, from a thread of its own.
public interface DriverListener {
  /// A job moved (QEMU: JOB_STATUS_CHANGE, and BLOCK_JOB_READY for READY). Details are asked with
  /// [RunningDomain#jobs].
  void jobStatusChanged(String jobId, DriverJobStatus status);

  /// A guest write reached beyond the offset that was set with [RunningDomain#setWriteThreshold]
  /// (QEMU: BLOCK_WRITE_THRESHOLD).
  ///
  /// @param excess bytes beyond it
  void writeThresholdPassed(String target, long threshold, long excess);

  /// A guest's request failed (QEMU: BLOCK_IO_ERROR). Told of requests that are held once until
  /// they are made again, of others once a second at most.
  void requestFailed(RequestFailure failure);

  /// The domain ended without being asked to.
  void stopped(String reason);
}
