// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/// Knows when no request can still use a host cluster that was taken out of the mapping.
///
/// A request looks up host clusters and then reads or writes them without any lock. So a cluster
/// that lost its last reference may be used for something else only after every request that began
/// before the loss has ended. Requests count themselves in one of two counters, chosen by the
/// parity of an epoch; what is retired in epoch E may go once the epoch has moved on and E's
/// counter has run empty. Nobody ever waits: [#collect] asks whether it is so now.
final class InFlight<T> {
  private static final int STRIPES = 16; // power of two; threads spread over them
  private static final int PAD = 16; //     counters 64 bytes apart

  private record Retired<T>(int epoch, T what) {}

  private final AtomicInteger[] counters = new AtomicInteger[2 * STRIPES * PAD];
  private volatile int epoch;
  private final ArrayDeque<Retired<T>> retired = new ArrayDeque<>(); // guarded by this

  InFlight() {
    for (int i = 0; i < counters.length; i++) {
      counters[i] = new AtomicInteger(); // the unused ones keep the used ones apart
    }
  }

  /// Begins a request; the result goes to [#exit].
  int enter() {
    int stripe = (int) Thread.currentThread().threadId() & (STRIPES - 1);
    while (true) {
      int now = epoch;
      int index = ((now & 1) * STRIPES + stripe) * PAD;
      counters[index].incrementAndGet();
      if (now == epoch) {
        return index; // whoever moves the epoch on after this sees the count
      }
      counters[index].decrementAndGet();
    }
  }

  void exit(int ticket) {
    counters[ticket].decrementAndGet();
  }

  /// Takes what requests begun until now may still use.
  synchronized void retire(T what) {
    retired.add(new Retired<>(epoch, what));
  }

  /// Whether something retired was not handed out yet.
  synchronized boolean waiting() {
    return !retired.isEmpty();
  }

  /// Hands out what no request uses any more.
  @SuppressWarnings("NonAtomicVolatileUpdate") // only here, under this monitor
  synchronized List<T> collect() {
    var free = new ArrayList<T>();
    while (!retired.isEmpty()) {
      int since = retired.element().epoch();
      if (epoch == since) {
        if (!empty(since + 1)) {
          break; // stragglers of the epoch before
        }
        epoch++;
      }
      if (epoch == since + 1 && !empty(since)) {
        break;
      }
      free.add(retired.remove().what());
    }
    return free;
  }

  private boolean empty(int ofEpoch) {
    for (int stripe = 0; stripe < STRIPES; stripe++) {
      if (counters[((ofEpoch & 1) * STRIPES + stripe) * PAD].get() != 0) {
        return false;
      }
    }
    return true;
  }
}
