// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.Random;
import org.junit.jupiter.api.Test;

class RateLimitTest {
  private final FakeClock clock = new FakeClock();

  @Test
  void theFirstSliceMayGoAtOnceAndTheNextWaits() {
    var rate = new RateLimit(10 << 20, clock);
    assertThat(rate.delayNanos()).isZero();
    rate.take(1 << 20);
    assertThat(rate.delayNanos()).isBetween(1L, 1_000_000L);
    rate.take(1 << 20);
    assertThat(rate.delayNanos()).isBetween(99_000_000L, 101_000_000L);
    clock.advance(Duration.ofMillis(101));
    assertThat(rate.delayNanos()).isZero();
  }

  @Test
  void neverLetsMoreThroughThanSpeedTimesTimeAndASlice() {
    var random = new Random(3);
    long speed = 1_000_003;
    var rate = new RateLimit(speed, clock);
    long taken = 0;
    long start = clock.nanoTime();
    int most = 65536;
    for (int i = 0; i < 20_000; i++) {
      if (rate.delayNanos() == 0) {
        int bytes = 1 + random.nextInt(most);
        rate.take(bytes);
        taken += bytes;
      } else {
        clock.advance(Duration.ofNanos(random.nextInt(20_000_000)));
      }
      double seconds = (clock.nanoTime() - start) / 1e9;
      assertThat((double) taken).isLessThanOrEqualTo(speed * (seconds + 0.1) + most + 1);
    }
    assertThat((double) taken).isGreaterThan(speed * (clock.nanoTime() - start) / 1e9 * 0.8);
  }

  @Test
  void aNewSpeedHoldsAtOnceAndZeroIsNoLimit() {
    var rate = new RateLimit(1, clock);
    rate.take(1 << 20);
    assertThat(rate.delayNanos()).isGreaterThan(Duration.ofDays(12).toNanos());
    rate.set(1 << 30);
    assertThat(rate.delayNanos()).isLessThan(2_000_000);
    rate.set(0);
    assertThat(rate.delayNanos()).isZero();
    rate.take(Long.MAX_VALUE);
    assertThat(rate.delayNanos()).isZero();
    rate.set(1 << 20);
    rate.take(1);
    assertThat(rate.delayNanos()).isLessThan(Duration.ofSeconds(1).toNanos());
  }
}
