// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.concurrent.atomic.AtomicIntegerFieldUpdater;

/// The guest requests of one drive that are in flight, the drains that hold new ones, and the end
/// after which none gets in.
///
/// **Invariants.** While a [Drive.Drained] is open that [#drain] has returned, no request is in
/// flight. Drains nest, also those of several threads; requests get in again when the last is
/// closed. What was written before that, whoever gets in then sees; and whoever drained sees what
/// requests wrote before they left: all go through one counter.
///
/// **Threads.** Any thread may do anything here, but one that is in flight, or holds what a request
/// in flight may wait for, must not drain: it would wait for itself. The monitor within is taken to
/// wait and to wake, and nothing else is taken with it held.
///
/// A drain costs a request one atomic add when it enters and one when it leaves, and no object. New
/// requests see the drain's bit in the sum and step back. [Gate] is for nodes beneath, where many
/// enter and holding off is rare and never nests.
final class Flight {
  /// In `inside`: there is a drain.
  private static final int DRAINING = 1 << 30;

  private static final AtomicIntegerFieldUpdater<Flight> INSIDE =
      AtomicIntegerFieldUpdater.newUpdater(Flight.class, "inside");

  private final String name; // the drive's

  /// Requests in flight, plus [#DRAINING]. One that finds the bit takes its count back and waits,
  /// so the count may rise for moments while drained, and nothing runs by that. Changed by
  /// [#INSIDE] only: no object more on the way of a request.
  private volatile int inside;

  private final Object monitor = new Object();
  private int drains; // guarded by monitor
  private volatile boolean closed; // written under monitor

  Flight(String name) {
    this.name = name;
  }

  /// Counts a request in flight, once no drain holds it; it goes to [#leave].
  ///
  /// @return the time it began, waiting included
  /// @throws TransportException when there is an end; the request is not in flight
  long enter() throws BlockException {
    long start = System.nanoTime();
    while (INSIDE.getAndIncrement(this) >= DRAINING) {
      leave();
      awaitResume();
    }
    if (closed) {
      leave();
      throw ended();
    }
    return start;
  }

  /// As [#enter], but says no to a request that would have to wait, or has come too late.
  boolean tryEnter() {
    if (INSIDE.getAndIncrement(this) >= DRAINING || closed) {
      leave();
      return false;
    }
    return true;
  }

  void leave() {
    if (INSIDE.decrementAndGet(this) == DRAINING) { // the last that a drain waits for
      synchronized (monitor) {
        monitor.notifyAll();
      }
    }
  }

  private void awaitResume() throws BlockException {
    Waiting.until(monitor, () -> drains == 0 || closed);
    if (closed) {
      throw ended();
    }
  }

  private BlockException ended() {
    return new TransportException(name + ": drive is closed");
  }

  /// Holds new requests, and returns once none is in flight.
  Drive.Drained drain() {
    synchronized (monitor) {
      if (drains++ == 0) {
        INSIDE.getAndAdd(this, DRAINING);
      }
    }
    Waiting.until(monitor, () -> inside == DRAINING);
    return new Drain();
  }

  private final class Drain implements Drive.Drained {
    private boolean open = true; // guarded by monitor

    @Override
    public void close() {
      synchronized (monitor) {
        if (!open) {
          return;
        }
        open = false;
        if (--drains == 0) {
          INSIDE.getAndAdd(Flight.this, -DRAINING);
          monitor.notifyAll();
        }
      }
    }
  }

  /// That somebody has drained; whether it was the caller, nobody knows.
  ///
  /// @throws IllegalStateException when there is no drain
  void requireDrained(String what) {
    synchronized (monitor) {
      if (drains == 0) {
        throw new IllegalStateException(name + ": " + what + " while not drained");
      }
    }
  }

  /// Ends it: requests that come later fail, and so do those that a drain holds.
  ///
  /// @return whether it was this call that did
  boolean close() {
    synchronized (monitor) {
      boolean first = !closed;
      closed = true;
      monitor.notifyAll();
      return first;
    }
  }

  /// Whether requests fail from now on.
  boolean closed() {
    return closed;
  }
}
