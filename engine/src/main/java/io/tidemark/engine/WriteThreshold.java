// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.GuestWrite;
import io.tidemark.block.WriteFilter;
import java.util.concurrent.atomic.AtomicBoolean;

/// Tells once when a guest write reached beyond an offset of the image's file (QEMU:
/// `block-set-write-threshold`): of a raw image the write's own end, of any other the bytes that
/// its file takes on the host, since clusters are given out from its start and its length is
/// rounded up.
final class WriteThreshold implements WriteFilter {
  /// Who hears of it; called on the guest's thread, returns at once.
  interface Listener {
    void passed(long threshold, long excess);
  }

  private final FormatNode image;
  private final long threshold;
  private final Listener listener;
  private final AtomicBoolean armed = new AtomicBoolean(true);

  WriteThreshold(FormatNode image, long threshold, Listener listener) {
    this.image = image;
    this.threshold = threshold;
    this.listener = listener;
  }

  @Override
  public void after(GuestWrite write) {
    if (!armed.get() || write instanceof GuestWrite.Discard) {
      return;
    }
    long end = end(write);
    if (Long.compareUnsigned(end, threshold) > 0 && armed.compareAndSet(true, false)) {
      listener.passed(threshold, end - threshold);
    }
  }

  private long end(GuestWrite write) {
    if (image.format().equals("raw")) {
      return write.offset() + write.length();
    }
    try {
      long taken = image.file().allocatedBytes();
      return taken < 0 ? image.file().virtualSize() : taken;
    } catch (BlockException e) {
      // Safe because the next write asks again.
      return 0;
    }
  }
}
