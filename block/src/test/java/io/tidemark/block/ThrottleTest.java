// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.Throttle.Kind;
import io.tidemark.block.Throttle.Limit;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class ThrottleTest {
  private static final long SECOND = 1_000_000_000L;

  private final AtomicLong clock = new AtomicLong();
  private final Throttle throttle = new Throttle(clock::get);

  /// Admits as much as goes until `seconds` have passed, jumping over every wait.
  private long operationsWithin(long seconds, boolean write, long bytes) {
    long end = clock.get() + seconds * SECOND;
    long count = 0;
    while (true) {
      long wait = throttle.waitNanos(write);
      if (wait == 0) {
        throttle.admit(write, bytes, () -> false);
        count++;
        continue;
      }
      if (clock.get() + wait >= end) {
        clock.set(end);
        return count;
      }
      clock.addAndGet(wait);
    }
  }

  @Test
  void keepsToTheAverageOfBytes() {
    throttle.set(Map.of(Kind.TOTAL_BYTES, new Limit(1 << 20, 0, 1)), 0);
    assertThat(operationsWithin(10, true, 65536)).isBetween(160L, 164L);
    assertThat(operationsWithin(10, false, 65536)).isBetween(159L, 164L);
  }

  @Test
  void keepsToTheAverageOfOperationsWhichLargeRequestsCountSeveralTimes() {
    throttle.set(Map.of(Kind.WRITE_OPERATIONS, new Limit(100, 0, 1)), 4096);
    assertThat(operationsWithin(10, true, 4096)).isBetween(1000L, 1012L);
    assertThat(operationsWithin(10, true, 8192)).isBetween(495L, 506L);
  }

  @Test
  void letsABurstPassAndThenKeepsToTheAverage() {
    throttle.set(Map.of(Kind.TOTAL_BYTES, new Limit(1000, 5000, 2)), 0);
    assertThat(operationsWithin(2, true, 100)).isBetween(100L, 110L);
    assertThat(operationsWithin(10, true, 100)).isBetween(99L, 130L);
  }

  @Test
  void limitsReadsApartFromWrites() {
    throttle.set(Map.of(Kind.READ_BYTES, new Limit(1000, 0, 1)), 0);
    throttle.admit(false, 1 << 20, () -> false);
    assertThat(throttle.waitNanos(false)).isGreaterThan(1000 * SECOND);
    assertThat(throttle.waitNanos(true)).isZero();
  }

  @Test
  void letsGoWhoWaitsWhenTheLimitIsLifted() throws InterruptedException {
    var real = new Throttle();
    real.set(Map.of(Kind.TOTAL_BYTES, new Limit(1, 0, 1)), 0);
    real.admit(true, 1 << 20, () -> false);
    Thread waiting = Thread.ofPlatform().start(() -> real.admit(true, 1, () -> false));
    while (waiting.getState() != Thread.State.TIMED_WAITING) {
      Thread.onSpinWait();
    }
    real.set(Map.of(), 0);
    waiting.join(10_000);
    assertThat(waiting.isAlive()).isFalse();
  }
}
