// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.concurrent.locks.LockSupport;

/// Keeps work of several threads within a speed (`-r`).
final class Pace {
  /// As fast as it goes.
  static final Pace UNBOUND = new Pace(0);

  private static final double NANOS_PER_SECOND = 1e9;

  private final long bytesPerSecond;
  private final long start = System.nanoTime();
  private double owedNanos; // guarded by this; time that the bytes so far take

  /// @param bytesPerSecond 0: no bound
  Pace(long bytesPerSecond) {
    this.bytesPerSecond = bytesPerSecond;
  }

  /// Returns when `bytes` more may be copied.
  void take(long bytes) {
    if (bytesPerSecond == 0) {
      return;
    }
    long due;
    synchronized (this) {
      due = (long) owedNanos;
      owedNanos += bytes * NANOS_PER_SECOND / bytesPerSecond;
    }
    for (long left = due - (System.nanoTime() - start);
        left > 0;
        left = due - (System.nanoTime() - start)) {
      LockSupport.parkNanos(left);
    }
  }
}
