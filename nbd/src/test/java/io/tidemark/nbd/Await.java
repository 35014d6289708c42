// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.util.function.BooleanSupplier;

/// Waiting for what other threads do.
final class Await {
  private static final long LIMIT_NANOS = 30_000_000_000L;

  private Await() {}

  static void until(BooleanSupplier condition) {
    long start = System.nanoTime();
    while (!condition.getAsBoolean()) {
      if (System.nanoTime() - start > LIMIT_NANOS) {
        throw new AssertionError("did not come true within " + LIMIT_NANOS + " ns");
      }
      Thread.onSpinWait();
    }
  }
}
