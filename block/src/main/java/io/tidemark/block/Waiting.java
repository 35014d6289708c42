// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.function.BooleanSupplier;

/// Waits of threads that serve requests: a request is not given up in the middle, so an interrupt
/// ends none of them, and is there again afterwards.
public final class Waiting {
  private Waiting() {}

  /// Waits until `condition` holds, which is asked with `monitor` held, at once and after each
  /// notification. The caller may hold `monitor`.
  public static void until(Object monitor, BooleanSupplier condition) {
    boolean interrupted = false;
    synchronized (monitor) {
      while (!condition.getAsBoolean()) {
        try {
          monitor.wait();
        } catch (InterruptedException _) {
          interrupted = true;
        }
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
