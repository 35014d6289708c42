// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.Condition;

/// The time that limits and throttles go by; tests bring their own.
public interface JobClock {
  /// The machine's clock.
  JobClock SYSTEM =
      new JobClock() {
        @Override
        public long nanoTime() {
          return System.nanoTime();
        }

        @Override
        @SuppressWarnings("WaitNotInLoop") // the callers loop
        public void await(Condition condition, long nanos) throws InterruptedException {
          condition.await(nanos, TimeUnit.NANOSECONDS);
        }
      };

  /// As `System.nanoTime`: only differences mean something.
  long nanoTime();

  /// Waits for a signal, at most `nanos` of this clock; may return early. The caller holds the
  /// condition's lock.
  void await(Condition condition, long nanos) throws InterruptedException;
}
