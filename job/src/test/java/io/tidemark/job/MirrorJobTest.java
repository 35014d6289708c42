// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.FileNode;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class MirrorJobTest {
  private static final Duration LONG = Duration.ofSeconds(60);
  private static final int SIZE = (3 << 20) + 777; // no multiple of anything

  static MemoryNode filled(String name, int size, long seed) throws Exception {
    return fill(MemoryNode.empty(name, size), seed);
  }

  /// Data, written zeroes and holes in turn.
  static MemoryNode fill(MemoryNode node, long seed) throws Exception {
    var random = new Random(seed);
    int size = (int) node.virtualSize();
    for (int at = 0; at < size; ) {
      int length = Math.min(size - at, 1 + random.nextInt(200_000));
      switch (random.nextInt(3)) {
        case 0 -> {
          byte[] bytes = new byte[length];
          random.nextBytes(bytes);
          node.write(at, ByteBuffer.wrap(bytes));
        }
        case 1 -> node.writeZeroes(at, length, ZeroMode.MAY_UNMAP);
        default -> {}
      }
      at += length;
    }
    return node;
  }

  static void reaches(Job job, JobStatus wanted) {
    assertThat(job.await(s -> s == wanted || s.over(), LONG))
        .as("stuck in " + job.status())
        .isTrue();
    if (job.error().isPresent() && wanted != JobStatus.CONCLUDED) {
      throw new AssertionError("job failed", job.error().get());
    }
    assertThat(job.status()).isEqualTo(wanted);
  }

  private static MirrorLimits limits(long answerMillis, long stallMillis) {
    return new MirrorLimits(
        Duration.ofMillis(answerMillis), Duration.ofMillis(stallMillis), LONG, LONG);
  }

  @ParameterizedTest
  @Seeds(60)
  void pivotUnderWritersThatNeverPauseLosesNothing(long seed) throws Exception {
    var random = new Random(seed);
    BlockNode base = filled("base", SIZE - random.nextInt(500_000), seed);
    boolean shallow = random.nextBoolean();
    MemoryNode old =
        fill(new MemoryNode("old", SIZE, Optional.of(base).filter(_ -> shallow)), seed + 1);
    boolean zero = random.nextBoolean();
    var target = new MemoryNode("new", SIZE, Optional.of(base).filter(_ -> shallow));
    if (!zero && !shallow) {
      fill(target, seed + 2);
    }
    var drive = new Drive("vda", old);
    MirrorOptions options =
        MirrorOptions.of("copy-vda", drive, target)
            .withBase(Optional.of(base).filter(_ -> shallow))
            .withTargetIsZero(zero)
            .withGranularity(512 << random.nextInt(10))
            .withBuffer(random.nextInt(3) == 0 ? 1 : 0)
            .withBandwidth(random.nextInt(4) == 0 ? 20 << 20 : 0)
            .withSynchronousWrites(random.nextInt(3) == 0);
    var job = new MirrorJob(options);
    try (var writers = new GuestWriters(drive, 3, seed)) {
      writers.awaitOperations(20);
      job.start();
      reaches(job, JobStatus.READY);
      writers.awaitOperations(random.nextInt(200));
      job.complete();
      reaches(job, JobStatus.PENDING);
      assertThat(target.content()).isEqualTo(old.content());
      assertThat(job.progress().remaining()).isZero();
      long flushed = target.flushes.get();
      assertThat(flushed).isPositive();
      job.finalizeJob();
      assertThat(job.status()).isEqualTo(JobStatus.CONCLUDED);
      assertThat(drive.root()).isSameAs(target);
      byte[] left = old.content();
      writers.awaitOperations(100);
      assertThat(old.content()).isEqualTo(left);
      writers.stopAndCompare(drive);
      assertThat(job.error()).isEmpty();
      assertThat(job.cancelled()).isFalse();
    }
  }

  /// Each guest writes number n to slot n of its own region, modulo slots, and waits for each.
  @ParameterizedTest
  @Seeds(30)
  void cancelWhenReadyLeavesOneInstant(long seed) throws Exception {
    int slots = 64;
    int guests = 3;
    int slotBytes = 5000;
    int size = guests * slots * slotBytes;
    var drive = new Drive("vda", filled("old", size, seed));
    for (int i = 0; i < guests * slots; i++) {
      drive.writeZeroes((long) i * slotBytes, Long.BYTES, ZeroMode.NO_UNMAP);
    }
    var target = MemoryNode.empty("new", size);
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target).withTargetIsZero(true).withGranularity(16384));
    var acknowledged = new AtomicLong[guests];
    var stop = new CountDownLatch(1);
    var threads = new Thread[guests];
    for (int g = 0; g < guests; g++) {
      var mine = new AtomicLong();
      acknowledged[g] = mine;
      int region = g * slots;
      threads[g] =
          Thread.ofPlatform()
              .daemon()
              .start(() -> {
                var bytes = ByteBuffer.allocate(Long.BYTES);
                for (long n = 1; stop.getCount() > 0; n++) {
                  bytes.clear().putLong(n).flip();
                  try {
                    drive.write((region + n % slots) * slotBytes, bytes);
                  } catch (Exception e) {
                    throw new AssertionError(e);
                  }
                  mine.set(n);
                }
              });
    }
    job.start();
    reaches(job, JobStatus.READY);
    long[] before = new long[guests];
    for (int g = 0; g < guests; g++) {
      before[g] = acknowledged[g].get();
    }
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
    stop.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(job.error()).isEmpty();
    assertThat(job.cancelled()).isTrue();
    assertThat(target.flushes.get()).isPositive();
    ByteBuffer copy = ByteBuffer.wrap(target.content());
    for (int g = 0; g < guests; g++) {
      long instant = 0;
      for (int s = 0; s < slots; s++) {
        instant = Math.max(instant, copy.getLong((g * slots + s) * slotBytes));
      }
      assertThat(instant).isGreaterThanOrEqualTo(before[g]);
      for (int s = 0; s < slots; s++) {
        long last = instant - Math.floorMod(instant - s, (long) slots);
        assertThat(copy.getLong((g * slots + s) * slotBytes))
            .as("guest %d slot %d at instant %d", g, s, instant)
            .isEqualTo(Math.max(0, last));
      }
    }
  }

  @Test
  void holesAndZeroesOfANewTargetAreNeitherReadNorWritten() throws Exception {
    MemoryNode old = filled("old", SIZE, 5);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target).withTargetIsZero(true).withGranularity(4096));
    var readHoles = new AtomicLong();
    old.hook =
        (request, offset, length) -> {
          for (long at = offset; at < offset + length; at += 4096) {
            if (old.state(at) != Extent.State.DATA) {
              readHoles.incrementAndGet();
            }
          }
        };
    job.start();
    reaches(job, JobStatus.READY);
    assertThat(readHoles).hasValue(0);
    assertThat(target.zeroes).hasValue(0);
    for (long at = 0; at < SIZE; at += 4096) {
      assertThat(target.state(at))
          .isEqualTo(
              old.state(at) == Extent.State.DATA ? Extent.State.DATA : Extent.State.UNALLOCATED);
    }
    old.hook = (_, _, _) -> {};
    assertThat(target.content()).isEqualTo(old.content());
    assertThat(job.progress()).isEqualTo(new JobProgress(SIZE, SIZE));
    // What was data and becomes zero must reach the target.
    drive.writeZeroes(0, SIZE, ZeroMode.MAY_UNMAP);
    assertThat(target.content()).isEqualTo(new byte[SIZE]);
    // One that needs no copy needs no write either.
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
  }

  @Test
  void zeroesOverwriteATargetThatHeldSomething() throws Exception {
    var drive = new Drive("vda", MemoryNode.empty("old", SIZE));
    MemoryNode target = filled("new", SIZE, 9);
    var job = new MirrorJob(MirrorOptions.of("copy", drive, target));
    job.start();
    reaches(job, JobStatus.READY);
    assertThat(target.content()).isEqualTo(new byte[SIZE]);
    assertThat(target.writes.get()).isEqualTo(filled("x", SIZE, 9).writes.get());
    job.cancel();
  }

  @Test
  void shallowCopyTakesOnlyWhatLiesAboveTheBase() throws Exception {
    MemoryNode base = filled("base", SIZE, 1);
    var top = new MemoryNode("top", SIZE, Optional.of(base));
    top.write(8192, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    top.writeZeroes(1 << 20, 65536, ZeroMode.MAY_UNMAP);
    var drive = new Drive("vda", top);
    var target = new MemoryNode("new", SIZE, Optional.of(base));
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withBase(Optional.of(base))
                .withTargetIsZero(true)
                .withGranularity(4096));
    job.start();
    reaches(job, JobStatus.READY);
    for (long at = 0; at < SIZE; at += 4096) {
      assertThat(target.state(at)).isEqualTo(top.state(at));
    }
    assertThat(target.content()).isEqualTo(top.content());
    job.cancel();
  }

  /// Dirties the disk many times faster than the target can take it, all over.
  @Test
  void convergesThoughTheTargetIsSlowerThanTheWriters() throws Exception {
    int size = 16 << 20;
    int block = 4096;
    MemoryNode old = filled("old", size, 2);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", size);
    target.hook = (_, _, length) -> LockSupport.parkNanos(length / block * 50_000);
    // Small extents: the ranges that are held must not be what slows the writers down.
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withTargetIsZero(true)
                .withGranularity(block)
                .withBuffer(1));
    var stop = new AtomicBoolean();
    var written = new AtomicLong();
    var threads = new Thread[4];
    for (int n = 0; n < threads.length; n++) {
      var random = new Random(n);
      threads[n] =
          Thread.ofPlatform()
              .daemon()
              .start(() -> {
                byte[] bytes = new byte[block];
                while (!stop.get()) {
                  random.nextBytes(bytes);
                  try {
                    drive.write(
                        (long) random.nextInt(size / block) * block, ByteBuffer.wrap(bytes));
                  } catch (BlockException e) {
                    throw new AssertionError(e);
                  }
                  written.incrementAndGet();
                }
              });
    }
    try {
      until(() -> written.get() > 1000);
      job.start();
      reaches(job, JobStatus.READY);
      long ready = written.get();
      until(() -> written.get() > ready + 100);
      job.complete();
      reaches(job, JobStatus.PENDING);
      assertThat(target.content()).isEqualTo(old.content());
      job.finalizeJob();
    } finally {
      stop.set(true);
    }
    for (Thread thread : threads) {
      assertThat(thread.join(LONG)).isTrue();
    }
  }

  @Test
  void failingTargetFailsTheJobAtEveryRequestAndNeverTheGuest() throws Exception {
    boolean failedOnce = false;
    boolean passedOnce = false;
    for (int k = 1; k <= 120 && !passedOnce; k += 1 + k / 10) {
      MemoryNode old = filled("old", 600_000, k);
      var drive = new Drive("vda", old);
      var target = MemoryNode.empty("new", 600_000);
      var left = new AtomicLong(k);
      target.hook =
          (request, _, _) -> {
            if (request != MemoryNode.Request.READ && left.decrementAndGet() <= 0) {
              throw new OutOfSpaceException("new: no space left");
            }
          };
      var job =
          new MirrorJob(
              MirrorOptions.of("copy", drive, target)
                  .withTargetIsZero(true)
                  .withBuffer(262144)
                  .withSynchronousWrites(k % 2 == 0));
      try (var writers = new GuestWriters(drive, 2, k)) {
        job.start();
        job.await(s -> s == JobStatus.READY || s.over(), LONG);
        try {
          job.complete();
        } catch (JobStateException e) {
          assertThat(e.status()).isIn(JobStatus.ABORTING, JobStatus.CONCLUDED);
        }
        job.await(s -> s == JobStatus.PENDING || s.over(), LONG);
        if (job.status() == JobStatus.PENDING) {
          passedOnce = true;
          target.hook = (_, _, _) -> {};
          job.finalizeJob();
        } else {
          failedOnce = true;
          assertThat(job.error()).containsInstanceOf(OutOfSpaceException.class);
          assertThat(job.cancelled()).isFalse();
          assertThat(drive.root()).isSameAs(old);
        }
        target.hook = (_, _, _) -> {};
        writers.awaitOperations(20);
        writers.stopAndCompare(drive);
      }
    }
    assertThat(failedOnce).isTrue();
  }

  @Test
  void hangingTargetHoldsTheGuestNoLongerThanItsLimitAndThenFailsTheJob() throws Exception {
    for (boolean synchronous : new boolean[] {false, true}) {
      MemoryNode old = filled("old", SIZE, 4);
      var drive = new Drive("vda", old);
      var target = MemoryNode.empty("new", SIZE);
      var release = new CountDownLatch(1);
      var hang = new CountDownLatch(1);
      target.hook =
          (_, _, _) -> awaitQuietly(hang.getCount() == 0 ? release : new CountDownLatch(0));
      var job =
          new MirrorJob(
              MirrorOptions.of("copy", drive, target)
                  .withTargetIsZero(true)
                  .withSynchronousWrites(synchronous)
                  .withLimits(limits(100, 3000), JobClock.SYSTEM));
      try (var writers = new GuestWriters(drive, 3, 4)) {
        job.start();
        if (synchronous) {
          reaches(job, JobStatus.READY);
        }
        hang.countDown();
        assertThat(job.await(s -> s == JobStatus.ABORTING || s.over(), LONG)).isTrue();
        writers.awaitOperations(1000);
        assertThat(Duration.ofNanos(writers.longestNanos.get()))
            .isLessThan(Duration.ofMillis(2500));
        release.countDown();
        reaches(job, JobStatus.CONCLUDED);
        assertThat(job.error()).containsInstanceOf(TransportException.class);
        assertThat(drive.root()).isSameAs(old);
        writers.stopAndCompare(drive);
      }
    }
  }

  private static void awaitQuietly(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @ParameterizedTest
  @Seeds(8)
  void targetThatHangsForAWhileIsForgivenAndLosesNothing(long seed) throws Exception {
    MemoryNode old = filled("old", SIZE, seed);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withTargetIsZero(true)
                .withGranularity(4096)
                .withSynchronousWrites(seed % 2 == 0)
                .withLimits(limits(30, 60_000), JobClock.SYSTEM));
    var hung = new CountDownLatch(2);
    var release = new CountDownLatch(1);
    try (var writers = new GuestWriters(drive, 3, seed)) {
      job.start();
      if (seed % 3 != 0) {
        reaches(job, JobStatus.READY);
      }
      target.hook =
          (_, _, _) -> {
            hung.countDown();
            awaitQuietly(release);
          };
      awaitQuietly(hung);
      writers.awaitOperations(300);
      target.hook = (_, _, _) -> {};
      release.countDown();
      reaches(job, JobStatus.READY);
      job.complete();
      reaches(job, JobStatus.PENDING);
      assertThat(target.content()).isEqualTo(old.content());
      job.finalizeJob();
      writers.stopAndCompare(target);
    }
  }

  @Test
  void cancelWhilePendingUndoesAndLeavesACopyOfThatInstant() throws Exception {
    MemoryNode old = filled("old", SIZE, 6);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var job = new MirrorJob(MirrorOptions.of("copy", drive, target).withTargetIsZero(true));
    try (var writers = new GuestWriters(drive, 2, 6)) {
      job.start();
      reaches(job, JobStatus.READY);
      job.complete();
      reaches(job, JobStatus.PENDING);
      byte[] held = old.content();
      job.cancel();
      reaches(job, JobStatus.CONCLUDED);
      assertThat(drive.root()).isSameAs(old);
      assertThat(job.cancelled()).isTrue();
      writers.awaitOperations(100);
      assertThat(target.content()).isEqualTo(held);
      writers.stopAndCompare(old);
      assertThatThrownBy(job::finalizeJob).isInstanceOf(JobStateException.class);
    }
  }

  @Test
  void pendingJobThatNobodyFinalizesIsUndoneAndFails() throws Exception {
    MemoryNode old = filled("old", SIZE, 7);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withLimits(
                    new MirrorLimits(LONG, LONG, LONG, Duration.ofMillis(50)), JobClock.SYSTEM));
    try (var writers = new GuestWriters(drive, 2, 7)) {
      job.start();
      reaches(job, JobStatus.READY);
      job.complete();
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.error()).get().asString().contains("was not finalized within");
      assertThat(drive.root()).isSameAs(old);
      writers.awaitOperations(50);
      writers.stopAndCompare(old);
    }
  }

  @Test
  void throttledJobCopiesNoFasterThanToldAndCancelsAtOnce() throws Exception {
    var clock = new FakeClock();
    int size = 32 << 20;
    MemoryNode old = MemoryNode.empty("old", size);
    old.write(0, ByteBuffer.allocate(size));
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", size);
    long speed = 4 << 20;
    long slack = speed / 10 + MirrorWorkers.MAX_WORKERS * 458_752L;
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withBandwidth(speed)
                .withLimits(MirrorLimits.DEFAULT, clock));
    job.start();
    for (int tenths = 0; tenths < 30; tenths++) {
      long due = speed * tenths / 10;
      until(() -> job.progress().current() >= due);
      assertThat(job.progress().current()).isLessThanOrEqualTo(due + slack);
      clock.advance(Duration.ofMillis(100));
    }
    assertThat(job.status()).isEqualTo(JobStatus.RUNNING);
    job.setSpeed(1);
    assertThat(job.bandwidthBytesPerSecond()).isEqualTo(1);
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
  }

  private static void until(java.util.function.BooleanSupplier condition) {
    long deadline = System.nanoTime() + LONG.toNanos();
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).isLessThan(deadline);
      LockSupport.parkNanos(50_000);
    }
  }

  @Test
  void progressNeverGoesBackAndIsWholeOnlyWhenReady() throws Exception {
    var drive = new Drive("vda", filled("old", SIZE, 8));
    var target = MemoryNode.empty("new", SIZE);
    target.hook = (_, _, _) -> LockSupport.parkNanos(200_000);
    var job = new MirrorJob(MirrorOptions.of("copy", drive, target).withGranularity(4096));
    try (var writers = new GuestWriters(drive, 2, 8)) {
      job.start();
      long last = 0;
      long lastTotal = 0;
      while (job.status() != JobStatus.READY) {
        JobProgress progress = job.progress();
        assertThat(progress.current()).isGreaterThanOrEqualTo(last);
        assertThat(progress.total()).isGreaterThanOrEqualTo(lastTotal);
        if (progress.remaining() == 0) {
          assertThat(job.status()).isEqualTo(JobStatus.READY);
        }
        last = progress.current();
        lastTotal = progress.total();
      }
      writers.awaitOperations(20);
      assertThat(job.progress().total()).isGreaterThan(SIZE);
      job.cancel();
      reaches(job, JobStatus.CONCLUDED);
    }
  }

  @Test
  void pausedJobCopiesNothingAndGoesOnWhenResumed() throws Exception {
    var drive = new Drive("vda", filled("old", SIZE, 8));
    var target = MemoryNode.empty("new", SIZE);
    var job = new MirrorJob(MirrorOptions.of("copy", drive, target));
    job.pause();
    job.start();
    assertThat(job.status()).isEqualTo(JobStatus.PAUSED);
    assertThat(job.await(s -> s != JobStatus.PAUSED, Duration.ofMillis(50))).isFalse();
    assertThat(target.writes).hasValue(0);
    job.resume();
    reaches(job, JobStatus.READY);
    job.pause();
    assertThat(job.status()).isEqualTo(JobStatus.STANDBY);
    drive.write(5, ByteBuffer.wrap(new byte[] {9}));
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
    assertThat(job.error()).isEmpty();
    assertThat(target.content()).isEqualTo(((MemoryNode) drive.root()).content());
  }

  @Test
  void targetOfAnotherSizeIsRefused() {
    var drive = new Drive("vda", MemoryNode.empty("old", 100));
    assertThatThrownBy(() -> MirrorOptions.of("copy", drive, MemoryNode.empty("new", 99)))
        .isInstanceOf(IllegalArgumentException.class)
        .hasMessage("job copy: target new has 99 bytes, the drive 100");
  }

  @Test
  void emptyDiskIsReadyAtOnce() throws Exception {
    var drive = new Drive("vda", MemoryNode.empty("old", 0));
    var job = new MirrorJob(MirrorOptions.of("copy", drive, MemoryNode.empty("new", 0)));
    job.start();
    reaches(job, JobStatus.READY);
    job.complete();
    reaches(job, JobStatus.PENDING);
    job.finalizeJob();
  }

  @Test
  void cancelConcludesThoughTheTargetNeverAnswers() throws Exception {
    MemoryNode old = filled("old", SIZE, 4);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var hung = new CountDownLatch(1);
    var never = new CountDownLatch(1);
    target.hook =
        (_, _, _) -> {
          hung.countDown();
          awaitQuietly(never);
        };
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withLimits(
                    new MirrorLimits(LONG, LONG, Duration.ofMillis(200), LONG), JobClock.SYSTEM));
    try (var writers = new GuestWriters(drive, 2, 4)) {
      job.start();
      awaitQuietly(hung);
      job.cancel();
      writers.awaitOperations(300);
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.cancelled()).isTrue();
      assertThat(job.error()).isEmpty();
      writers.stopAndCompare(old);
    } finally {
      never.countDown();
    }
  }

  @Test
  void flushThatHangsWhileTheGuestIsHeldUndoesThePivot() throws Exception {
    MemoryNode old = filled("old", SIZE, 4);
    var drive = new Drive("vda", old);
    var target = MemoryNode.empty("new", SIZE);
    var release = new CountDownLatch(1);
    target.hook =
        (request, _, _) -> {
          if (request == MemoryNode.Request.FLUSH && target.flushes.get() == 2) {
            awaitQuietly(release);
          }
        };
    var job =
        new MirrorJob(
            MirrorOptions.of("copy", drive, target)
                .withLimits(
                    new MirrorLimits(LONG, LONG, Duration.ofMillis(200), LONG), JobClock.SYSTEM));
    try (var writers = new GuestWriters(drive, 2, 4)) {
      job.start();
      reaches(job, JobStatus.READY);
      job.complete();
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.error()).get().asString().contains("was not flushed within");
      assertThat(drive.root()).isSameAs(old);
      writers.awaitOperations(100);
      writers.stopAndCompare(old);
    } finally {
      release.countDown();
    }
  }

  @Test
  void aPivotIsToldAsQemuTellsIt() throws Exception {
    var drive = new Drive("vda", filled("old", SIZE, 4));
    var job = new MirrorJob(MirrorOptions.of("copy", drive, MemoryNode.empty("new", SIZE)));
    var heard = new java.util.concurrent.LinkedBlockingQueue<JobStatus>();
    job.addListener((_, status) -> heard.add(status));
    job.start();
    reaches(job, JobStatus.READY);
    assertThat(job.activelySynced()).isTrue();
    job.complete();
    reaches(job, JobStatus.PENDING);
    job.finalizeJob();
    job.dismiss();
    for (JobStatus status :
        new JobStatus[] {
          JobStatus.RUNNING,
          JobStatus.READY,
          JobStatus.WAITING,
          JobStatus.PENDING,
          JobStatus.CONCLUDED,
          JobStatus.NULL
        }) {
      assertThat(heard.poll(10, java.util.concurrent.TimeUnit.SECONDS)).isEqualTo(status);
    }
  }

  @Test
  void pivotsBetweenFilesOfTheHost() throws Exception {
    int size = 8 << 20;
    try (var folder = new ScratchFolder();
        FileNode old = FileNode.create(folder.resolve("old"));
        FileNode copy = FileNode.create(folder.resolve("new"))) {
      old.resize(size);
      copy.resize(size);
      byte[] bytes = new byte[100_000];
      new Random(1).nextBytes(bytes);
      old.write(5 << 20, ByteBuffer.wrap(bytes));
      var drive = new Drive("vda", old);
      var job = new MirrorJob(MirrorOptions.of("copy", drive, copy).withTargetIsZero(true));
      try (var writers = new GuestWriters(drive, 1, 1)) {
        writers.awaitOperations(10);
        job.start();
        reaches(job, JobStatus.READY);
        writers.awaitOperations(10);
        job.complete();
        reaches(job, JobStatus.PENDING);
        job.finalizeJob();
        writers.stopAndCompare(copy);
      }
    }
  }
}
