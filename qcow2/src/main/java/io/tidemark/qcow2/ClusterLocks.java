// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/// Ranges of guest clusters whose mapping is being changed. Whoever gives a guest cluster another
/// place holds its number here, from looking it up to entering it in the L2 table: two writers of
/// different parts of a new cluster come one after the other, and the second finds the first's
/// place.
///
/// A thread holds one range at a time, so there is no order to keep.
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
  private final List<Held> held = new ArrayList<>(); // at most one for each thread at work

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
