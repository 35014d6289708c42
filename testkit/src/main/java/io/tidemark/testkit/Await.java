// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/// Waiting for what other threads do, for a minute at most.
public final class Await {
  private static final long LIMIT_NANOS = 60_000_000_000L;

  private Await() {}

  /// Looks again and again.
  ///
  /// @throws AssertionError when it does not come true
  public static void until(BooleanSupplier condition) {
    long start = System.nanoTime();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() - start > LIMIT_NANOS) {
        throw new AssertionError("did not come true within " + LIMIT_NANOS + " ns");
      }
      LockSupport.parkNanos(100_000);
    }
  }

  /// Returns when the thread waits for a monitor, a condition or a permit.
  public static void untilWaiting(Thread thread) {
    until(() ->
        switch (thread.getState()) {
          case WAITING, TIMED_WAITING, BLOCKED -> true;
          case NEW, RUNNABLE, TERMINATED -> false;
        });
  }
}
