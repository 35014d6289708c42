// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.time.Duration;
import java.util.Arrays;

/// How long the operations of a guest took.
final class Latencies {
  private final long[] sortedNanos;

  private Latencies(long[] sortedNanos) {
    this.sortedNanos = sortedNanos;
  }

  /// Counts while the guest runs; one thread at a time.
  static final class Counter {
    private long[] nanos = new long[1024];
    private int count;

    void add(long taken) {
      if (count == nanos.length) {
        nanos = Arrays.copyOf(nanos, 2 * count);
      }
      nanos[count++] = taken;
    }

    /// What was counted; starts anew.
    Latencies take() {
      long[] taken = Arrays.copyOf(nanos, count);
      Arrays.sort(taken);
      count = 0;
      return new Latencies(taken);
    }
  }

  int operations() {
    return sortedNanos.length;
  }

  /// What so many of a hundred did not pass.
  Duration percentile(double percent) {
    if (sortedNanos.length == 0) {
      return Duration.ZERO;
    }
    int index = (int) Math.ceil(sortedNanos.length * percent / 100) - 1;
    return Duration.ofNanos(sortedNanos[Math.max(0, index)]);
  }

  Duration longest() {
    return percentile(100);
  }

  @Override
  public String toString() {
    return "%d operations, p50 %.3f ms, p99 %.3f ms, max %.1f ms"
        .formatted(operations(), millis(percentile(50)), millis(percentile(99)), millis(longest()));
  }

  private static double millis(Duration duration) {
    return duration.toNanos() / 1e6;
  }
}
