// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.RangeLock;
import org.jspecify.annotations.Nullable;

/// A range of a mirror's target that someone is writing. Guarded by the job's lock.
final class Transfer {
  final long offset;
  final long length;

  /// A worker's copy, not a guest's write.
  final boolean background;

  /// Nobody waits for it any more. Until it returns, nothing else writes its range of the target.
  boolean abandoned;

  /// Its time runs, from [#since] on; before, it waits for locks on the drive.
  boolean counting;

  long since;

  // Null before a worker has the drive's range, and for a guest's write.
  private RangeLock.@Nullable Held held;

  Transfer(long offset, long length, boolean background) {
    this.offset = offset;
    this.length = length;
    this.background = background;
  }

  void count(long now) {
    counting = true;
    since = now;
  }

  void hold(RangeLock.Held range) {
    held = range;
  }

  /// Lets the drive's range go. Closing twice is harmless.
  void letGo() {
    RangeLock.Held range = held;
    if (range != null) {
      range.close();
    }
  }

  boolean overlaps(long otherOffset, long otherLength) {
    return offset < otherOffset + otherLength && otherOffset < offset + length;
  }
}
