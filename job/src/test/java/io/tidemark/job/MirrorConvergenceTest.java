// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.Drive;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;

/// The bound that docs/jobs.md names: a mirror is ready after at most eighteen times the time that
/// the target takes for the disk once, whatever the guest does.
class MirrorConvergenceTest {
  private static final int SIZE = 8 << 20;
  private static final int BLOCK = 4096;
  private static final long TARGET_BYTES_PER_SECOND = 16 << 20;
  private static final int WRITERS = 4;

  /// Takes no more than so many bytes in a second, in whatever pieces.
  private static final class Throttled implements MemoryNode.Hook {
    private long freeAt = System.nanoTime();

    @Override
    public void before(MemoryNode.Request request, long offset, long length) {
      long until;
      synchronized (this) {
        freeAt =
            Math.max(freeAt, System.nanoTime()) + length * 1_000_000_000L / TARGET_BYTES_PER_SECOND;
        until = freeAt;
      }
      for (long left = until - System.nanoTime(); left > 0; left = until - System.nanoTime()) {
        LockSupport.parkNanos(left);
      }
    }
  }

  /// Writes one block after the other anywhere, as fast as the target is and WRITERS of them four
  /// times as fast; one that is held up does not pause until it has caught up.
  private static final class Writer {
    private final Drive drive;
    private final Random random;
    private final AtomicBoolean stop;
    private final AtomicBoolean ready;
    private final ConcurrentLinkedQueue<Throwable> failures;
    final List<Long> beforeReady = new ArrayList<>();

    Writer(
        Drive drive,
        int number,
        AtomicBoolean stop,
        AtomicBoolean ready,
        ConcurrentLinkedQueue<Throwable> failures) {
      this.drive = drive;
      this.random = new Random(number);
      this.stop = stop;
      this.ready = ready;
      this.failures = failures;
    }

    void run() {
      try {
        long next = System.nanoTime();
        byte[] content = new byte[BLOCK];
        while (!stop.get()) {
          random.nextBytes(content);
          long start = System.nanoTime();
          drive.write((long) random.nextInt(SIZE / BLOCK) * BLOCK, ByteBuffer.wrap(content));
          if (!ready.get()) {
            beforeReady.add(System.nanoTime() - start);
          }
          next += BLOCK * 1_000_000_000L / TARGET_BYTES_PER_SECOND;
          LockSupport.parkNanos(next - System.nanoTime());
        }
      } catch (BlockException | RuntimeException | Error e) {
        failures.add(e);
      }
    }
  }

  @Test
  void isReadyWithinItsBoundUnderAGuestFourTimesAsFastAsTheTarget() throws Exception {
    MemoryNode old = MirrorJobTest.filled("old", SIZE, 3);
    var drive = new Drive("vda", old);
    MemoryNode target = MemoryNode.empty("new", SIZE);
    target.hook = new Throttled();
    var job = new MirrorJob(MirrorOptions.of("copy", drive, target));
    var stop = new AtomicBoolean();
    var ready = new AtomicBoolean();
    var failures = new ConcurrentLinkedQueue<Throwable>();
    List<Writer> writers = new ArrayList<>();
    List<Thread> threads = new ArrayList<>();
    for (int n = 0; n < WRITERS; n++) {
      var writer = new Writer(drive, n, stop, ready, failures);
      writers.add(writer);
      threads.add(Thread.ofPlatform().daemon().start(writer::run));
    }
    Duration once = Duration.ofNanos(SIZE * 1_000_000_000L / TARGET_BYTES_PER_SECOND);
    long start = System.nanoTime();
    try {
      job.start();
      assertThat(job.await(s -> s == JobStatus.READY || s.over(), once.multipliedBy(18))).isTrue();
      assertThat(job.status()).isEqualTo(JobStatus.READY);
    } finally {
      ready.set(true);
      stop.set(true);
    }
    long taken = System.nanoTime() - start;
    for (Thread thread : threads) {
      assertThat(thread.join(Duration.ofSeconds(20))).isTrue();
    }
    assertThat(failures).isEmpty();
    long[] waits =
        writers.stream().flatMap(w -> w.beforeReady.stream()).mapToLong(n -> n).sorted().toArray();
    System.out.printf(
        "ready after %.1f times the disk's time; %d guest writes meanwhile took %d us at the middle,"
            + " %d us at 99 of 100, %d us at most%n",
        taken / (double) once.toNanos(),
        waits.length,
        waits[waits.length / 2] / 1000,
        waits[waits.length * 99 / 100] / 1000,
        Arrays.stream(waits).max().orElse(0) / 1000);
    job.complete();
    MirrorJobTest.reaches(job, JobStatus.PENDING);
    assertThat(target.content()).isEqualTo(old.content());
    job.finalizeJob();
  }
}
