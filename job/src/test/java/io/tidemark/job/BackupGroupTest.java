// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static io.tidemark.job.MirrorJobTest.filled;
import static io.tidemark.job.MirrorJobTest.reaches;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.TransportException;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class BackupGroupTest {
  private static final int SIZE = (2 << 20) + 333;
  private static final Duration LONG = Duration.ofSeconds(60);

  private static BackupOptions backup(String id, Drive drive, BlockNode target) {
    return BackupOptions.of(
        id, drive, target, MemoryNode.empty("scratch-" + id, (int) drive.virtualSize()), 1 << 30);
  }

  @ParameterizedTest
  @Seeds(40)
  void fullAndTwoIncrementsUnderWritersHoldTheirInstants(long seed) throws Exception {
    var random = new Random(seed);
    MemoryNode source = filled("disk", SIZE, seed);
    var drive = new Drive("vda", source);
    int granularity = 512 << random.nextInt(13);
    if (random.nextBoolean()) {
      // Widens the time between finding that a granule is to be saved, and reading it.
      source.hook =
          (request, _, _) -> {
            if (request == MemoryNode.Request.READ) {
              LockSupport.parkNanos(100_000);
            }
          };
    }
    Optional<DirtyBitmap> since = Optional.empty();
    Optional<BlockNode> previous = Optional.empty();
    try (var writers = new GuestWriters(drive, 3, seed)) {
      for (int n = 0; n < 3; n++) {
        writers.awaitOperations(random.nextInt(60));
        var target = new MemoryNode("backup-" + n, SIZE, previous);
        if (random.nextBoolean()) {
          target.hook = (_, _, _) -> LockSupport.parkNanos(500_000);
        }
        BackupOptions options =
            backup("backup-" + n, drive, target).withBitmap(since).withTargetIsZero(n == 0);
        var checkpoint = new DirtyBitmap("checkpoint-" + n, SIZE, granularity);
        var instant = new AtomicReference<byte[]>(new byte[0]);
        var dirty = new AtomicReference<>(checkpoint);
        Optional<DirtyBitmap> old = since;
        var group = new BackupGroup(List.of(options));
        group.start(() -> {
          instant.set(source.content());
          drive.addBitmap(checkpoint);
          old.ifPresent(bitmap -> dirty.set(bitmap.copy("frozen")));
          old.ifPresent(bitmap -> drive.removeBitmap(bitmap.name()));
        });
        BackupJob job = group.jobs().getFirst();
        reaches(job, JobStatus.CONCLUDED);
        assertThat(job.error()).isEmpty();
        assertThat(job.cancelled()).isFalse();
        assertThat(job.progress().remaining()).isZero();
        assertThat(target.flushes).hasValue(1);
        target.hook = (_, _, _) -> {};
        assertThat(target.content()).isEqualTo(instant.get());
        if (old.isPresent()) {
          assertThat(job.progress().total()).isEqualTo(dirty.get().dirtyBytes());
          for (long unit = 0; unit < SIZE; unit += 4096) {
            long at = unit;
            long end = at + 4096;
            boolean marked = dirty.get().nextDirty(at, 1).filter(r -> r.offset() < end).isPresent();
            assertThat(target.state(at) != Extent.State.UNALLOCATED)
                .as("unit %d", at)
                .isEqualTo(marked);
          }
        }
        MemoryNode scratch = (MemoryNode) options.scratch();
        for (long at = 0; at + 4096 <= SIZE; at += 4096) {
          assertThat(scratch.state(at)).isNotEqualTo(Extent.State.DATA);
        }
        since = Optional.of(checkpoint);
        previous = Optional.of(target);
      }
      writers.stopAndCompare(drive);
    }
  }

  /// One guest writes n to the first disk, then n to the second, then goes on.
  @ParameterizedTest
  @Seeds(30)
  void allDisksOfAGroupShareOneInstant(long seed) throws Exception {
    var first = new Drive("vdb", filled("b", SIZE, seed));
    var second = new Drive("vda", filled("a", SIZE, seed + 1));
    int slot = 130_000;
    int slots = SIZE / slot;
    var acknowledged = new AtomicLong();
    var stop = new AtomicBoolean();
    for (Drive drive : List.of(first, second)) {
      for (int s = 0; s < slots; s++) {
        drive.write((long) s * slot, ByteBuffer.allocate(8));
      }
    }
    Thread guest =
        Thread.ofPlatform()
            .daemon()
            .start(() -> {
              var bytes = ByteBuffer.allocate(8);
              for (long n = 1; !stop.get(); n++) {
                try {
                  first.write(n % slots * slot, bytes.clear().putLong(n).flip());
                  second.write(n % slots * slot, bytes.clear().putLong(n).flip());
                } catch (IOException e) {
                  throw new AssertionError(e);
                }
                acknowledged.set(n);
              }
            });
    while (acknowledged.get() < seed) {
      Thread.onSpinWait();
    }
    var targets = List.of(MemoryNode.empty("target-b", SIZE), MemoryNode.empty("target-a", SIZE));
    targets.getFirst().hook = (_, _, _) -> LockSupport.parkNanos(1_000_000);
    var group =
        new BackupGroup(
            List.of(
                backup("b", first, targets.getFirst()), backup("a", second, targets.getLast())));
    long before = acknowledged.get();
    group.start(() -> {});
    for (BackupJob job : group.jobs()) {
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.error()).isEmpty();
    }
    stop.set(true);
    guest.join();
    targets.getFirst().hook = (_, _, _) -> {};
    long b = latest(targets.getFirst(), slot, slots);
    long a = latest(targets.getLast(), slot, slots);
    assertThat(a).isGreaterThanOrEqualTo(before);
    assertThat(b).isBetween(a, a + 1);
  }

  private static long latest(MemoryNode node, int slot, int slots) throws Exception {
    ByteBuffer bytes = ByteBuffer.wrap(node.content());
    long latest = 0;
    for (int s = 0; s < slots; s++) {
      latest = Math.max(latest, bytes.getLong(s * slot));
    }
    for (int s = 0; s < slots; s++) {
      long last = latest - Math.floorMod(latest - s, (long) slots);
      assertThat(bytes.getLong(s * slot)).isEqualTo(Math.max(0, last));
    }
    return latest;
  }

  @Test
  void fullScratchFailsTheBackupAndNotTheGuest() throws Exception {
    MemoryNode source = filled("disk", SIZE, 3);
    source.write(0, ByteBuffer.allocate(SIZE));
    var drive = new Drive("vda", source);
    var target = MemoryNode.empty("target", SIZE);
    var release = new CountDownLatch(1);
    target.hook = (_, _, _) -> awaitQuietly(release);
    BackupOptions options =
        BackupOptions.of("backup", drive, target, MemoryNode.empty("scratch", SIZE), 200_000);
    var group = new BackupGroup(List.of(options));
    BackupJob job = group.jobs().getFirst();
    // Keeps the workers away from what the guest will change.
    job.pause();
    group.start(() -> {});
    for (int at = 0; at < SIZE; at += 65536) {
      drive.write(at, ByteBuffer.wrap(new byte[] {1}));
    }
    release.countDown();
    reaches(job, JobStatus.CONCLUDED);
    assertThat(job.error()).containsInstanceOf(TransportException.class);
    assertThat(job.error().get()).hasMessageContaining("at its limit of 200000 bytes");
    assertThat(job.scratchBytes()).isZero();
    drive.write(0, ByteBuffer.wrap(new byte[] {2}));
  }

  private static void awaitQuietly(CountDownLatch latch) {
    try {
      latch.await();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void hangingTargetNeverHoldsTheGuest() throws Exception {
    var drive = new Drive("vda", filled("disk", SIZE, 4));
    var target = MemoryNode.empty("target", SIZE);
    var release = new CountDownLatch(1);
    target.hook = (_, _, _) -> awaitQuietly(release);
    var group = new BackupGroup(List.of(backup("backup", drive, target)));
    BackupJob job = group.jobs().getFirst();
    try (var writers = new GuestWriters(drive, 3, 4)) {
      group.start(() -> {});
      writers.awaitOperations(2000);
      assertThat(job.status()).isEqualTo(JobStatus.RUNNING);
      job.cancel();
      writers.awaitOperations(100);
      release.countDown();
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.cancelled()).isTrue();
      assertThat(job.error()).isEmpty();
      assertThat(job.scratchBytes()).isZero();
      writers.stopAndCompare(drive);
    }
  }

  @Test
  void oneThatFailsEndsAll() throws Exception {
    for (int k = 1; k < 30; k += 3) {
      var first = new Drive("vda", filled("a", SIZE, 5));
      var second = new Drive("vdb", filled("b", SIZE, 6));
      var bad = MemoryNode.empty("bad", SIZE);
      var left = new AtomicLong(k);
      bad.hook =
          (request, _, _) -> {
            if (left.decrementAndGet() <= 0 || request == MemoryNode.Request.FLUSH) {
              throw new TransportException("bad: went away");
            }
          };
      var good = MemoryNode.empty("good", SIZE);
      var group = new BackupGroup(List.of(backup("a", first, good), backup("b", second, bad)));
      try (var writers = new GuestWriters(first, 2, k)) {
        group.start(() -> {});
        BackupJob a = group.jobs().getFirst();
        BackupJob b = group.jobs().getLast();
        reaches(b, JobStatus.CONCLUDED);
        reaches(a, JobStatus.CONCLUDED);
        assertThat(b.error()).get().asString().contains("bad: went away");
        assertThat(a.error()).isEmpty();
        assertThat(a.cancelled()).isTrue();
        writers.stopAndCompare(first);
      }
    }
  }

  @Test
  void cancelOfOneEndsAllAndNeverHalfOfThem() throws Exception {
    for (int n = 0; n < 40; n++) {
      var first = new Drive("vda", filled("a", SIZE, n));
      var second = new Drive("vdb", filled("b", SIZE, n));
      var group =
          new BackupGroup(
              List.of(
                  backup("a", first, MemoryNode.empty("ta", SIZE)),
                  backup("b", second, MemoryNode.empty("tb", SIZE))));
      group.start(() -> {});
      BackupJob a = group.jobs().getFirst();
      BackupJob b = group.jobs().getLast();
      LockSupport.parkNanos(n * 100_000L);
      boolean asked = true;
      try {
        a.cancel();
      } catch (JobStateException _) {
        asked = false;
      }
      reaches(a, JobStatus.CONCLUDED);
      reaches(b, JobStatus.CONCLUDED);
      assertThat(a.cancelled()).isEqualTo(asked);
      assertThat(b.cancelled()).isEqualTo(asked);
    }
  }

  @Test
  void actionThatThrowsLeavesNothingBehind() throws Exception {
    MemoryNode source = filled("disk", SIZE, 7);
    var drive = new Drive("vda", source);
    var scratch = MemoryNode.empty("scratch", SIZE);
    var group =
        new BackupGroup(
            List.of(BackupOptions.of("a", drive, MemoryNode.empty("t", SIZE), scratch, 1 << 20)));
    assertThatThrownBy(() ->
            group.start(() -> {
              throw new IOException("no");
            }))
        .isInstanceOf(IOException.class);
    drive.write(0, ByteBuffer.allocate(SIZE));
    assertThat(scratch.writes).hasValue(0);
    assertThat(group.jobs().getFirst().status()).isEqualTo(JobStatus.CONCLUDED);
    assertThatThrownBy(() -> group.start(() -> {})).isInstanceOf(JobStateException.class);
  }

  @Test
  void targetIsWrittenOutWhileTheRestIsCopied() throws Exception {
    int size = 48 << 20;
    MemoryNode source = MemoryNode.empty("disk", size);
    byte[] data = new byte[size];
    Arrays.fill(data, (byte) 1);
    source.write(0, ByteBuffer.wrap(data));
    MemoryNode target = MemoryNode.empty("backup", size);
    var group = new BackupGroup(List.of(backup("b", new Drive("vda", source), target)));
    group.start(() -> {});
    reaches(group.jobs().getFirst(), JobStatus.CONCLUDED);
    assertThat(target.writeBacks).hasValue(3);
    assertThat(target.flushes).hasValue(1);
  }

  @Test
  void holesAreNeitherReadNorWritten() throws Exception {
    MemoryNode source = filled("disk", SIZE, 8);
    var target = MemoryNode.empty("target", SIZE);
    var drive = new Drive("vda", source);
    var group = new BackupGroup(List.of(backup("a", drive, target).withTargetIsZero(true)));
    group.start(() -> {});
    reaches(group.jobs().getFirst(), JobStatus.CONCLUDED);
    assertThat(target.zeroes).hasValue(0);
    assertThat(target.content()).isEqualTo(source.content());
    for (long at = 0; at + 65536 <= SIZE; at += 65536) {
      boolean hole = true;
      for (long unit = at; unit < at + 65536; unit += 4096) {
        hole &= source.state(unit) != Extent.State.DATA;
      }
      if (hole) {
        assertThat(target.state(at)).isEqualTo(Extent.State.UNALLOCATED);
      }
    }
  }

  @Test
  void throttledBackupCopiesNoFasterThanToldAndCancelsAtOnce() throws Exception {
    var clock = new FakeClock();
    int size = 16 << 20;
    MemoryNode source = MemoryNode.empty("disk", size);
    source.write(0, ByteBuffer.allocate(size));
    var drive = new Drive("vda", source);
    long speed = 2 << 20;
    var group =
        new BackupGroup(
            List.of(
                backup("a", drive, MemoryNode.empty("t", size))
                    .withBandwidth(speed)
                    .withClock(clock)));
    BackupJob job = group.jobs().getFirst();
    group.start(() -> {});
    long slack = speed / 10 + BackupJob.WORKERS * (speed / 10 + 65536);
    for (int tenths = 0; tenths < 20; tenths++) {
      long due = speed * tenths / 10;
      long deadline = System.nanoTime() + LONG.toNanos();
      while (job.progress().current() < due) {
        assertThat(System.nanoTime()).isLessThan(deadline);
        LockSupport.parkNanos(50_000);
      }
      assertThat(job.progress().current()).isLessThanOrEqualTo(due + slack);
      clock.advance(Duration.ofMillis(100));
    }
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
  }
}
