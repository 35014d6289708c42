// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/// Counts the requests inside a node, and can hold new ones off until none is inside: what a node
/// needs to change something that requests use without a lock.
///
/// Entering and leaving cost two writes to a counter that few threads share. Any thread may enter;
/// one that is inside may not enter again, nor [#shut].
public final class Gate {
  private static final int STRIPES = 16; // power of two; threads spread over them
  private static final int PAD = 16; //     counters 64 bytes apart
  private static final long LOOK_NANOS = 50_000;

  private final AtomicInteger[] inside = new AtomicInteger[STRIPES * PAD];
  private volatile boolean shut;
  private final Object monitor = new Object();

  public Gate() {
    for (int i = 0; i < inside.length; i++) {
      inside[i] = new AtomicInteger(); // the unused ones keep the used ones apart
    }
  }

  /// Begins a request, when the gate is open; the result goes to [#leave].
  public int enter() {
    int index = ((int) Thread.currentThread().threadId() & (STRIPES - 1)) * PAD;
    while (true) {
      inside[index].incrementAndGet();
      if (!shut) {
        return index; // whoever shuts the gate after this sees the count
      }
      inside[index].decrementAndGet();
      Waiting.until(monitor, () -> !shut);
    }
  }

  /// As [#enter], but returns -1 when the gate is shut.
  public int tryEnter() {
    int index = ((int) Thread.currentThread().threadId() & (STRIPES - 1)) * PAD;
    inside[index].incrementAndGet();
    if (!shut) {
      return index;
    }
    inside[index].decrementAndGet();
    return -1;
  }

  public void leave(int ticket) {
    inside[ticket].decrementAndGet();
  }

  /// Holds new requests off and returns when none is inside. One thread at a time; it must [#open]
  /// again.
  public void shut() {
    synchronized (monitor) {
      if (shut) {
        throw new IllegalStateException("gate is shut already");
      }
      shut = true;
    }
    for (int i = 0; i < STRIPES; i++) {
      while (inside[i * PAD].get() != 0) {
        LockSupport.parkNanos(LOOK_NANOS);
      }
    }
  }

  /// Lets requests in; they see all that was written before.
  public void open() {
    synchronized (monitor) {
      shut = false;
      monitor.notifyAll();
    }
  }
}
