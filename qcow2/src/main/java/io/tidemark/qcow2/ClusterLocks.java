// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// Ranges of guest clusters whose mapping is being changed. Whoever gives a guest cluster another
/// place holds its number here, from looking it up to entering it in the L2 table: two writers of
/// different parts of a new cluster come one after the other, and the second finds the first's
/// place.
///
/// A thread that waits for a range holds none, so there is no order to keep: it holds one at a
/// time, or those of its queued requests ([QueuedPlaces]), which it takes without waiting.
final class ClusterLocks {
  /// A held range `[first, end)`.
  static final class Held {
    private final long first;
    private final long end;

    private Held(long first, long end) {
      this.first = first;
      this.end = end;
    }
  }

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition released = lock.newCondition();
  // At most one for each thread at work, and one for each queued request:
  private final List<Held> held = new ArrayList<>();

  /// Waits until no part of the range is held, then holds it. The result goes to [#unlock].
  Held lock(long first, long count) {
    var mine = new Held(first, first + count);
    lock.lock();
    try {
      while (overlapsHeld(mine)) {
        released.awaitUninterruptibly();
      }
      held.add(mine);
      return mine;
    } finally {
      lock.unlock();
    }
  }

  /// Holds the range if no part of it is held, else null.
  @Nullable Held tryLock(long first, long count) {
    var mine = new Held(first, first + count);
    lock.lock();
    try {
      if (overlapsHeld(mine)) {
        return null;
      }
      held.add(mine);
      return mine;
    } finally {
      lock.unlock();
    }
  }

  void unlock(Held mine) {
    lock.lock();
    try {
      held.remove(mine);
      released.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private boolean overlapsHeld(Held mine) {
    for (Held h : held) {
      if (mine.first < h.end && h.first < mine.end) {
        return true;
      }
    }
    return false;
  }
}
