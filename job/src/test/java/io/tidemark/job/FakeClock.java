// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;

/// A clock that stands still until it is moved. Who waits looks again every millisecond.
final class FakeClock implements JobClock {
  private final AtomicLong now = new AtomicLong(1_000_000_007L);

  @Override
  public long nanoTime() {
    return now.get();
  }

  @Override
  @SuppressWarnings("WaitNotInLoop") // the callers loop
  public void await(Condition condition, long nanos) throws InterruptedException {
    condition.await(1, TimeUnit.MILLISECONDS);
  }

  void advance(Duration time) {
    now.addAndGet(time.toNanos());
  }
}
