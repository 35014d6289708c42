// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;

/// The copy of one drive as it was at its group's instant. Made and started by a [BackupGroup].
///
/// It finishes by itself: `WAITING` until all jobs of the group are there, then `PENDING` and
/// `CONCLUDED` at once (QEMU: auto-finalize). `cancel` ends the whole group, and so does a failure;
/// the target then holds nothing of worth.
public final class BackupJob extends Job {
  private final BackupOptions options;

  BackupJob(BackupOptions options) {
    super(options.id(), options.bandwidthBytesPerSecond(), options.clock());
    this.options = options;
  }

  public BackupOptions options() {
    return options;
  }

  @Override
  public JobProgress progress() {
    throw new UnsupportedOperationException();
  }

  @Override
  void run() throws BlockException {
    throw new UnsupportedOperationException();
  }
}
