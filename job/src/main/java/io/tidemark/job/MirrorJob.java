// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;

/// A live copy of a drive that follows the guest's writes, and can take the drive's place.
///
/// `cancel` while running leaves a target of undefined content; once ready, a copy of one instant
/// of the guest, flushed. `complete` leads to `PENDING` with the drive drained and both sides
/// flushed; [#finalizeJob] then puts the target beneath the drive.
public final class MirrorJob extends Job {
  private final MirrorOptions options;

  public MirrorJob(MirrorOptions options) {
    super(options.id(), options.bandwidthBytesPerSecond(), options.clock());
    this.options = options;
  }

  public MirrorOptions options() {
    return options;
  }

  /// Begins to follow the drive (which is drained for a moment) and to copy.
  public void start() throws JobStateException {
    throw new UnsupportedOperationException();
  }

  /// Whether every acknowledged guest write is in the target, and the next ones will be: QEMU's
  /// `actively-synced`. A ready job loses it while its target does not answer.
  public boolean activelySynced() {
    throw new UnsupportedOperationException();
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
