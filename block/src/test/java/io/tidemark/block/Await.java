// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/// Waiting for what other threads do.
final class Await {
  private static final long LIMIT_NANOS = 60_000_000_000L;

  private Await() {}

  static void until(BooleanSupplier condition) {
    long start = System.nanoTime();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() - start > LIMIT_NANOS) {
        throw new AssertionError("waited " + LIMIT_NANOS + " ns in vain");
      }
      LockSupport.parkNanos(100_000);
    }
  }

  /// Returns when the thread waits for a monitor, a condition or a permit.
  static void untilWaiting(Thread thread) {
    until(() ->
        switch (thread.getState()) {
          case WAITING, TIMED_WAITING, BLOCKED -> true;
          case NEW, RUNNABLE, TERMINATED -> false;
        });
  }
}
