// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(value = 30, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RangeLockTest {
  private static final RangeLock.Held NOBODY = () -> {};

  private final RangeLock lock = new RangeLock();
  private final List<String> order = Collections.synchronizedList(new ArrayList<>());

  /// Starts a thread that takes the range, and returns when it stands in the lock's list.
  private Thread comer(String name, long offset, long length, CountDownLatch leave) {
    int before = lock.entries();
    Thread thread =
        Thread.ofPlatform()
            .start(() -> {
              try (var _ = lock.lock(offset, length)) {
                order.add(name);
                leave.await();
              } catch (InterruptedException e) {
                throw new AssertionError(e);
              }
            });
    Await.until(() -> lock.entries() > before);
    return thread;
  }

  @Test
  void overlappingComersGoInOrderOfArrivalAndOthersPass() throws InterruptedException {
    var free = new CountDownLatch(0);
    var hold = new CountDownLatch(1);
    Thread first = comer("first", 0, 100, hold);
    Await.until(() -> order.size() == 1);
    Thread wide = comer("wide", 50, 200, free);
    Thread narrow = comer("narrow", 200, 10, free);
    Thread last = comer("last", 205, 10, free);
    try (var _ = lock.lock(1000, 10)) {
      order.add("apart");
    }
    assertThat(order).containsExactly("first", "apart");
    hold.countDown();
    for (Thread thread : List.of(first, wide, narrow, last)) {
      thread.join();
    }
    assertThat(order).containsExactly("first", "apart", "wide", "narrow", "last");
    assertThat(lock.entries()).isZero();
  }

  @Test
  void neighboursAndEmptyRangesDoNotOverlap() {
    try (var _ = lock.lock(0, 10);
        var _ = lock.lock(10, 10);
        var _ = lock.lock(5, 0)) {
      assertThat(lock.entries()).isEqualTo(2);
    }
    assertThat(lock.entries()).isZero();
  }

  @Test
  void whatIsLetGoIsUsedAgain() {
    RangeLock.Entry first = lock.take(0, 10);
    RangeLock.Entry second = lock.take(10, 10);
    assertThat(lock.tryLock(5, 1)).isEmpty();
    lock.letGo(first);
    lock.letGo(second);
    assertThat(lock.take(0, 0)).isNull();
    assertThat(List.of(lock.take(0, 5), lock.take(5, 5))).containsExactlyInAnyOrder(first, second);
    assertThat(lock.take(100, 5)).isNotIn(first, second);
    assertThat(lock.entries()).isEqualTo(3);
  }

  @Test
  void anInterruptedComerStillWaitsAndStaysInterrupted() throws Exception {
    RangeLock.Held held = lock.lock(0, 10);
    try (ExecutorService pool = Executors.newSingleThreadExecutor()) {
      Future<Boolean> interrupted =
          pool.submit(() -> {
            Thread.currentThread().interrupt();
            try (var _ = lock.lock(0, 10)) {
              return Thread.interrupted();
            }
          });
      Await.until(() -> lock.entries() == 2);
      held.close();
      held.close();
      assertThat(interrupted.get(10, SECONDS)).isTrue();
    }
  }

  @Test
  void refusesARangeThatIsNone() {
    assertThatThrownBy(() -> lock.lock(Long.MAX_VALUE, 1))
        .isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> lock.lock(-1, 1)).isInstanceOf(IllegalArgumentException.class);
    assertThat(lock.entries()).isZero();
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5})
  void noTwoHoldersEverOverlap(long seed) throws Exception {
    var holders = new AtomicIntegerArray(64);
    try (ExecutorService pool = Executors.newFixedThreadPool(8)) {
      var runs = new ArrayList<Future<?>>();
      for (int t = 0; t < 8; t++) {
        var random = new Random(seed * 100 + t);
        runs.add(
            pool.submit(() -> {
              for (int i = 0; i < 2000; i++) {
                int from = random.nextInt(64);
                int length = 1 + random.nextInt(Math.min(8, 64 - from));
                // Guests' requests and jobs, side by side.
                RangeLock.Entry taken = i % 3 == 0 ? null : lock.take(from, length);
                try (var _ = taken == null ? lock.lock(from, length) : NOBODY) {
                  for (int at = from; at < from + length; at++) {
                    assertThat(holders.incrementAndGet(at)).as("seed " + seed).isEqualTo(1);
                  }
                  if ((i & 15) == 0) {
                    Thread.onSpinWait();
                  }
                  for (int at = from; at < from + length; at++) {
                    holders.decrementAndGet(at);
                  }
                } finally {
                  lock.letGo(taken);
                }
              }
            }));
      }
      for (Future<?> run : runs) {
        run.get(20, SECONDS);
      }
    }
    assertThat(lock.entries()).isZero();
  }
}
