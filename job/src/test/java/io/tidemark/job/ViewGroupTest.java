// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static io.tidemark.job.MirrorJobTest.filled;
import static io.tidemark.job.MirrorJobTest.reaches;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class ViewGroupTest {
  private static final int SIZE = (2 << 20) + 333;

  private static ViewOptions view(String id, Drive drive, Optional<DirtyBitmap> bitmap) {
    return new ViewOptions(
        id,
        drive,
        bitmap,
        MemoryNode.empty("scratch-" + id, (int) drive.virtualSize()),
        Long.MAX_VALUE,
        JobClock.SYSTEM);
  }

  private static byte[] read(BlockNode node, long offset, int length) throws BlockException {
    var bytes = ByteBuffer.allocate(length);
    node.read(offset, bytes);
    assertThat(bytes.hasRemaining()).isFalse();
    return bytes.array();
  }

  /// Readers that begin while, before and after the guest overwrites: all of them see the instant.
  @ParameterizedTest
  @Seeds(30)
  void readersSeeTheInstantWhateverTheGuestWrites(long seed) throws Exception {
    var random = new Random(seed);
    MemoryNode source = filled("disk", SIZE, seed);
    var drive = new Drive("vda", source);
    if (random.nextBoolean()) {
      // Widens the time between a read of the root and the look at what was saved meanwhile.
      source.hook =
          (request, _, _) -> {
            if (request == MemoryNode.Request.READ) {
              LockSupport.parkNanos(50_000);
            }
          };
    }
    var since = new DirtyBitmap("c1", SIZE, 4096);
    try (var held = drive.drain()) {
      assertThat(held).isNotNull();
      drive.addBitmap(since);
    }
    try (var writers = new GuestWriters(drive, 3, seed)) {
      writers.awaitOperations(random.nextInt(60));
      var instant = new AtomicReference<byte[]>(new byte[0]);
      var dirty = new AtomicReference<>(since);
      var group = new ViewGroup(List.of(view("pull", drive, Optional.of(since))));
      group.start(() -> {
        instant.set(source.content());
        dirty.set(since.copy("frozen"));
      });
      ViewJob job = group.jobs().getFirst();
      BlockNode node = job.node();
      List<CompletableFuture<Void>> readers = new ArrayList<>();
      for (int r = 0; r < 3; r++) {
        readers.add(reader(node, instant.get(), seed + r));
      }
      for (CompletableFuture<Void> reader : readers) {
        reader.get(60, TimeUnit.SECONDS);
      }
      assertThat(read(node, 0, SIZE)).isEqualTo(instant.get());
      requireZeroWhereToldSo(node, instant.get());
      DirtyBitmap changes = job.changes("backup-vda").orElseThrow();
      assertThat(changes.name()).isEqualTo("backup-vda");
      for (int word = 0; word < changes.wordCount(); word++) {
        assertThat(changes.word(word)).isEqualTo(dirty.get().word(word));
      }
      assertThat(job.progress().current()).isBetween(1L, (long) SIZE);
      job.cancel();
      reaches(job, JobStatus.CONCLUDED);
      assertThat(job.error()).isEmpty();
      assertThat(job.cancelled()).isTrue();
      assertThatThrownBy(() -> read(node, 0, 512)).isInstanceOf(TransportException.class);
      source.hook = (_, _, _) -> {};
      writers.stopAndCompare(drive);
    }
  }

  private static CompletableFuture<Void> reader(BlockNode node, byte[] instant, long seed) {
    return CompletableFuture.runAsync(
        () -> {
          var random = new Random(seed);
          for (int n = 0; n < 60; n++) {
            int offset = random.nextInt(SIZE);
            int length = 1 + random.nextInt(Math.min(SIZE - offset, 400_000));
            try {
              assertThat(read(node, offset, length))
                  .as("%d bytes at %d", length, offset)
                  .isEqualTo(Arrays.copyOfRange(instant, offset, offset + length));
            } catch (BlockException e) {
              throw new AssertionError(e);
            }
          }
        },
        task -> Thread.ofPlatform().daemon().start(task));
  }

  private static void requireZeroWhereToldSo(BlockNode node, byte[] instant) throws BlockException {
    long[] end = new long[1];
    node.extents(
        0,
        SIZE,
        extent -> {
          assertThat(extent.offset()).isEqualTo(end[0]);
          end[0] = extent.end();
          for (long at = extent.offset();
              extent.state() != Extent.State.DATA && at < end[0];
              at++) {
            assertThat(instant[(int) at]).as("byte %d", at).isZero();
          }
          return true;
        });
    assertThat(end[0]).isEqualTo(SIZE);
  }

  @Test
  void holesThatTheGuestFillsStayHolesInTheViewAndTakeNoScratch() throws Exception {
    MemoryNode source = MemoryNode.empty("disk", 1 << 20);
    var drive = new Drive("vda", source);
    ViewOptions options = view("pull", drive, Optional.empty());
    var group = new ViewGroup(List.of(options));
    group.start(() -> {});
    ViewJob job = group.jobs().getFirst();
    drive.write(100_000, ByteBuffer.allocate(1000).put(0, (byte) 1));
    assertThat(read(job.node(), 100_000, 1000)).containsOnly(0);
    List<Extent> extents = new ArrayList<>();
    job.node().extents(0, 1 << 20, extents::add);
    assertThat(extents).containsExactly(new Extent(0, 1 << 20, Extent.State.ZERO, -1, false));
    assertThat(job.scratchBytes()).isZero();
    assertThat(job.progress().current()).isEqualTo(65536);
    job.cancel();
    reaches(job, JobStatus.CONCLUDED);
  }

  @Test
  void viewRefusesChanges() throws Exception {
    var drive = new Drive("vda", filled("disk", SIZE, 1));
    var group = new ViewGroup(List.of(view("pull", drive, Optional.empty())));
    group.start(() -> {});
    BlockNode node = group.jobs().getFirst().node();
    assertThat(node.readOnly()).isTrue();
    assertThatThrownBy(() -> node.write(0, ByteBuffer.allocate(1)))
        .isInstanceOf(ReadOnlyNodeException.class);
    assertThatThrownBy(() -> node.writeZeroes(0, 1, ZeroMode.MAY_UNMAP))
        .isInstanceOf(ReadOnlyNodeException.class);
    assertThatThrownBy(() -> node.discard(0, 1)).isInstanceOf(ReadOnlyNodeException.class);
    group.jobs().getFirst().cancel();
  }

  @Test
  void fullScratchFailsTheGroupAndNeverTheGuest() throws Exception {
    var first = new Drive("vda", filled("a", SIZE, 1));
    var second = new Drive("vdb", filled("b", SIZE, 2));
    var small =
        new ViewOptions(
            "a",
            first,
            Optional.empty(),
            MemoryNode.empty("scratch", SIZE),
            100_000,
            JobClock.SYSTEM);
    var group = new ViewGroup(List.of(small, view("b", second, Optional.empty())));
    group.start(() -> {});
    ViewJob a = group.jobs().getFirst();
    ViewJob b = group.jobs().getLast();
    BlockNode node = a.node();
    first.write(0, ByteBuffer.allocate(SIZE)); // its second granule of data does not fit
    assertThat(read(first, 0, SIZE)).containsOnly(0);
    reaches(a, JobStatus.CONCLUDED);
    reaches(b, JobStatus.CONCLUDED);
    assertThat(a.error().orElseThrow())
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("scratch"); // not to be taken for a full target
    assertThat(b.cancelled()).isTrue();
    assertThatThrownBy(() -> read(node, 0, 512)).isInstanceOf(TransportException.class);
  }

  /// A reader stands in the middle of a read of the source: the guest's write goes on.
  @Test
  void guestDoesNotWaitForAReader() throws Exception {
    MemoryNode source = filled("disk", SIZE, 5);
    byte[] before = source.content();
    var drive = new Drive("vda", source);
    var group = new ViewGroup(List.of(view("pull", drive, Optional.empty())));
    group.start(() -> {});
    var reading = new CountDownLatch(1);
    var goOn = new CountDownLatch(1);
    var readerThread = new AtomicReference<Thread>(Thread.currentThread());
    BlockNode node = group.jobs().getFirst().node();
    var result = new CompletableFuture<byte[]>();
    Thread thread =
        Thread.ofPlatform()
            .daemon()
            .unstarted(() -> {
              try {
                result.complete(read(node, 0, 65536));
              } catch (BlockException | RuntimeException | Error e) {
                result.completeExceptionally(e);
              }
            });
    readerThread.set(thread);
    source.hook =
        (request, _, _) -> {
          if (request == MemoryNode.Request.READ
              && Thread.currentThread().equals(readerThread.get())) {
            reading.countDown();
            awaitQuietly(goOn);
          }
        };
    thread.start();
    assertThat(reading.await(30, TimeUnit.SECONDS)).isTrue();
    drive.write(0, ByteBuffer.allocate(65536)); // returns though the reader stands still
    goOn.countDown();
    assertThat(get(result)).isEqualTo(Arrays.copyOf(before, 65536));
    group.jobs().getFirst().cancel();
    reaches(group.jobs().getFirst(), JobStatus.CONCLUDED);
  }

  private static void awaitQuietly(CountDownLatch latch) {
    try {
      assertThat(latch.await(30, TimeUnit.SECONDS)).isTrue();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private static byte[] get(CompletableFuture<byte[]> result) throws Exception {
    try {
      return result.get(30, TimeUnit.SECONDS);
    } catch (ExecutionException e) {
      throw new AssertionError(e);
    }
  }
}
