// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.concurrent.atomic.AtomicLong;

/// For whoever fills a node and flushes it once, at the end: has the host write while the rest is
/// still being copied, so that the disk does not wait for the copy, and then the copy for the disk.
///
/// Any number of threads may say what they wrote. The one that completes a step of [#STEP_BYTES]
/// starts the write-back of all that there is.
public final class WriteBehind {
  /// Large enough that file systems lay extents out in one piece, small enough that little is left
  /// at the end.
  static final long STEP_BYTES = 16L << 20;

  private final BlockNode node;
  private final AtomicLong written = new AtomicLong();

  public WriteBehind(BlockNode node) {
    this.node = node;
  }

  /// Takes note of bytes that were written to the node.
  ///
  /// @throws BlockException when the host could not begin to write them
  public void wrote(long bytes) throws BlockException {
    long before = written.getAndAdd(bytes);
    if (before / STEP_BYTES != (before + bytes) / STEP_BYTES) {
      node.startWriteBack();
    }
  }
}
