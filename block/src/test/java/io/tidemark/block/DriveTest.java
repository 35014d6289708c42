// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class DriveTest {
  private static final int SIZE = 1 << 20;

  private final MemoryNode node = new MemoryNode("node", SIZE);
  private final Drive drive = new Drive("vda", node);
  private final ExecutorService pool = Executors.newCachedThreadPool();

  @AfterEach
  void endThreads() {
    pool.close();
  }

  /// A node whose writes wait until they are let go.
  private static final class SlowNode extends MemoryNode {
    final CountDownLatch entered = new CountDownLatch(1);
    final CountDownLatch go = new CountDownLatch(1);

    SlowNode() {
      super("slow", SIZE);
    }

    @Override
    public void write(long offset, ByteBuffer from) throws BlockException {
      entered.countDown();
      try {
        go.await();
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
      super.write(offset, from);
    }
  }

  private static final class FailingNode extends MemoryNode {
    FailingNode() {
      super("failing", SIZE);
    }

    @Override
    public void write(long offset, ByteBuffer from) throws BlockException {
      throw new OutOfSpaceException("failing: write at " + offset + ": no space");
    }
  }

  private Thread start(Action action) {
    return Thread.ofPlatform()
        .start(() -> {
          try {
            action.run();
          } catch (Exception e) {
            throw new AssertionError(e);
          }
        });
  }

  private interface Action {
    void run() throws Exception;
  }

  @Test
  void drainWaitsForRequestsInFlight() throws Exception {
    var slow = new SlowNode();
    var guest = new Drive("vda", slow);
    Thread writer = start(() -> guest.write(0, ByteBuffer.allocate(512)));
    slow.entered.await();
    var drained = new AtomicBoolean();
    Thread drainer =
        start(() -> {
          try (var _ = guest.drain()) {
            drained.set(true);
          }
        });
    Await.untilWaiting(drainer);
    assertThat(drained).isFalse();
    slow.go.countDown();
    writer.join();
    drainer.join();
    assertThat(drained).isTrue();
  }

  @Test
  void requestsOfEveryKindWaitWhileDrainedAndThenSucceed() throws Exception {
    var requests =
        List.<Action>of(
            () -> drive.read(0, ByteBuffer.allocate(16)),
            () -> drive.write(0, ByteBuffer.allocate(16)),
            () -> drive.writeZeroes(0, 16, ZeroMode.MAY_UNMAP),
            () -> drive.discard(0, 16),
            drive::flush,
            () -> drive.extents(0, SIZE, _ -> true));
    var done = new AtomicInteger();
    var threads = new ArrayList<Thread>();
    try (var _ = drive.drain()) {
      for (Action request : requests) {
        threads.add(
            start(() -> {
              request.run();
              done.incrementAndGet();
            }));
      }
      threads.forEach(Await::untilWaiting);
      assertThat(done).hasValue(0);
      assertThat(node.flushes).hasValue(0);
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(done).hasValue(requests.size());
  }

  @Test
  void drainsNestAndClosingOneTwiceEndsOnlyThatOne() throws Exception {
    Drive.Drained outer = drive.drain();
    Drive.Drained inner = drive.drain();
    inner.close();
    inner.close();
    var done = new AtomicBoolean();
    Thread reader =
        start(() -> {
          drive.read(0, ByteBuffer.allocate(1));
          done.set(true);
        });
    Await.untilWaiting(reader);
    assertThat(done).isFalse();
    outer.close();
    reader.join();
    assertThat(done).isTrue();
  }

  @Test
  void aJobThatHoldsARangeEndsWhileADrainWaitsForAWriteBehindIt() throws Exception {
    RangeLock.Held job = drive.lockRange(0, 65536);
    Thread writer = start(() -> drive.write(0, ByteBuffer.wrap(new byte[] {9})));
    Await.untilWaiting(writer);
    Thread drainer = start(() -> drive.drain().close());
    Await.untilWaiting(drainer);
    drive.root().write(0, ByteBuffer.wrap(new byte[] {1}));
    job.close();
    writer.join();
    drainer.join();
    assertThat(node.bytes[0]).isEqualTo((byte) 9);
  }

  @Test
  void whatChangesBeneathIsRefusedUnlessDrained() {
    var filter = new WriteFilter() {};
    var bitmap = new DirtyBitmap("b", SIZE, 65536);
    assertThatThrownBy(() -> drive.repoint(new MemoryNode("n", SIZE)))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> drive.addFilter(filter)).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> drive.addBitmap(bitmap)).isInstanceOf(IllegalStateException.class);
    try (var _ = drive.drain()) {
      assertThatThrownBy(() -> drive.repoint(new MemoryNode("n", SIZE / 2)))
          .isInstanceOf(IllegalArgumentException.class);
      drive.addBitmap(bitmap);
      assertThatThrownBy(() -> drive.addBitmap(new DirtyBitmap("b", SIZE, 512)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> drive.addBitmap(new DirtyBitmap("c", SIZE / 2, 512)))
          .isInstanceOf(IllegalArgumentException.class);
    }
    assertThat(drive.removeBitmap("b")).containsSame(bitmap);
    assertThat(drive.removeBitmap("b")).isEmpty();
  }

  @Test
  void bitmapsAreMarkedBeforeTheWriteStartsAndAlsoWhenItFails() throws Exception {
    var slow = new SlowNode();
    var guest = new Drive("vda", slow);
    var enabled = new DirtyBitmap("on", SIZE, 65536);
    var disabled = new DirtyBitmap("off", SIZE, 65536);
    disabled.setEnabled(false);
    try (var _ = guest.drain()) {
      guest.addBitmap(enabled);
      guest.addBitmap(disabled);
    }
    Thread writer = start(() -> guest.write(65536, ByteBuffer.allocate(1)));
    slow.entered.await();
    assertThat(enabled.isDirty(65536)).isTrue();
    slow.go.countDown();
    writer.join();
    assertThat(enabled.dirtyBits()).isEqualTo(1);
    assertThat(disabled.dirtyBits()).isZero();
    try (var _ = guest.drain()) {
      guest.repoint(new FailingNode());
    }
    assertThatThrownBy(() -> guest.write(0, ByteBuffer.allocate(1)))
        .isInstanceOf(OutOfSpaceException.class);
    assertThat(enabled.isDirty(0)).isTrue();
    try (var _ = guest.drain()) {
      guest.repoint(node);
    }
    guest.writeZeroes(131072, 65536, ZeroMode.NO_UNMAP);
    guest.discard(SIZE - 1, 1);
    assertThat(enabled.dirtyBits()).isEqualTo(4);
  }

  private static final class Recorder implements WriteFilter {
    private final String name;
    private final List<String> calls;

    Recorder(String name, List<String> calls) {
      this.name = name;
      this.calls = calls;
    }

    @Override
    public void before(GuestWrite write) {
      calls.add(name + " before " + write.getClass().getSimpleName() + " " + write.length());
    }

    @Override
    public void after(GuestWrite write) {
      calls.add(name + " after " + write.getClass().getSimpleName() + " " + write.length());
    }

    @Override
    public void failed(GuestWrite write) {
      calls.add(name + " failed");
    }
  }

  @Test
  void filtersRunBeforeInOrderAndAfterInReverseForEveryKindOfChange() throws Exception {
    List<String> calls = Collections.synchronizedList(new ArrayList<>());
    var first = new Recorder("1", calls);
    try (var _ = drive.drain()) {
      drive.addFilter(first);
      drive.addFilter(new Recorder("2", calls));
    }
    ByteBuffer from = ByteBuffer.wrap(new byte[] {1, 2, 3});
    drive.write(10, from);
    assertThat(from.hasRemaining()).isFalse();
    assertThat(calls)
        .containsExactly("1 before Data 3", "2 before Data 3", "2 after Data 3", "1 after Data 3");
    assertThat(node.bytes).startsWith(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0);
    calls.clear();
    try (var _ = drive.drain()) {
      drive.removeFilter(first);
    }
    drive.writeZeroes(10, 2, ZeroMode.MAY_UNMAP);
    drive.discard(12, 1);
    assertThat(calls)
        .containsExactly(
            "2 before Zeroes 2", "2 after Zeroes 2", "2 before Discard 1", "2 after Discard 1");
    assertThat(node.bytes).containsOnly(0);
  }

  @Test
  void filtersHearOfAWriteThatFails() {
    List<String> calls = new ArrayList<>();
    var guest = new Drive("vda", new FailingNode());
    try (var _ = guest.drain()) {
      guest.addFilter(new Recorder("1", calls));
      guest.addFilter(new Recorder("2", calls));
    }
    assertThatThrownBy(() -> guest.write(0, ByteBuffer.allocate(1)))
        .isInstanceOf(OutOfSpaceException.class);
    assertThat(calls).containsExactly("1 before Data 1", "2 before Data 1", "2 failed", "1 failed");
    assertThat(guest.statistics().errors()).isEqualTo(1);
    assertThat(guest.statistics().writeOperations()).isZero();
  }

  @Test
  void aFilterThatThrowsLeavesNothingLockedOrInFlight() {
    List<String> calls = new ArrayList<>();
    try (var _ = drive.drain()) {
      drive.addFilter(new Recorder("1", calls));
      drive.addFilter(
          new WriteFilter() {
            @Override
            public void before(GuestWrite write) {
              throw new IllegalStateException("bug");
            }
          });
    }
    assertThatThrownBy(() -> drive.write(0, ByteBuffer.allocate(1)))
        .isInstanceOf(IllegalStateException.class);
    assertThat(calls).containsExactly("1 before Data 1", "1 failed");
    drive.drain().close();
    drive.lockRange(0, SIZE).close();
  }

  @Test
  void countsWhatTheGuestDid() throws Exception {
    drive.read(0, ByteBuffer.allocate(100));
    drive.write(0, ByteBuffer.allocate(50));
    drive.discard(0, 25);
    drive.flush();
    IoStatistics counts = drive.statistics();
    assertThat(counts.readOperations()).isEqualTo(1);
    assertThat(counts.readBytes()).isEqualTo(100);
    assertThat(counts.writeOperations()).isEqualTo(2);
    assertThat(counts.writeBytes()).isEqualTo(75);
    assertThat(counts.flushOperations()).isEqualTo(1);
    assertThat(counts.writeNanos()).isPositive();
    assertThat(counts.errors()).isZero();
  }

  @Test
  void aClosedDriveFailsRequestsAlsoThoseThatWaited() throws Exception {
    var failure = new AtomicBoolean();
    Drive.Drained drained = drive.drain();
    Thread reader =
        start(() -> {
          try {
            drive.read(0, ByteBuffer.allocate(1));
          } catch (TransportException e) {
            failure.set(true);
          }
        });
    Await.untilWaiting(reader);
    drive.close();
    reader.join();
    drained.close();
    assertThat(failure).isTrue();
    assertThat(node.closed).isTrue();
    assertThatThrownBy(drive::flush).isInstanceOf(TransportException.class);
    drive.close();
  }

  @Test
  void aReadOnlyRootRefusesChangesAndMarksNothing() throws Exception {
    var readOnly =
        new MemoryNode("ro", SIZE) {
          @Override
          public boolean readOnly() {
            return true;
          }
        };
    var guest = new Drive("vda", readOnly);
    var bitmap = new DirtyBitmap("b", SIZE, 65536);
    try (var _ = guest.drain()) {
      guest.addBitmap(bitmap);
    }
    assertThatThrownBy(() -> guest.write(0, ByteBuffer.allocate(1)))
        .isInstanceOf(ReadOnlyNodeException.class);
    assertThat(bitmap.dirtyBits()).isZero();
  }

  /// Writers never pause while the drive is drained and pointed at the other node again and again;
  /// at every switch the old content is copied. In the end the last node holds each writer's last
  /// acknowledged value, and no bitmap missed a write.
  @Test
  void repointingUnderConcurrentWritersLosesNothing() throws Exception {
    int writers = 4;
    int slots = 64;
    var nodes = new MemoryNode[] {node, new MemoryNode("other", SIZE)};
    var acknowledged = new AtomicLong[writers * slots];
    Arrays.setAll(acknowledged, _ -> new AtomicLong());
    var stop = new AtomicBoolean();
    var bitmap = new DirtyBitmap("round", SIZE, 512);
    try (var _ = drive.drain()) {
      drive.addBitmap(bitmap);
    }
    var runs = new ArrayList<Future<?>>();
    for (int w = 0; w < writers; w++) {
      int id = w;
      runs.add(
          pool.submit(() -> {
            var random = new Random(id);
            ByteBuffer value = ByteBuffer.allocate(Long.BYTES);
            for (long n = 1; !stop.get(); n++) {
              int slot = id * slots + random.nextInt(slots);
              drive.write(slot * 512L, value.clear().putLong(n).flip());
              acknowledged[slot].set(n);
              if (n % 16 == 0) {
                drive.read(slot * 512L, value.clear());
                assertThat(value.flip().getLong()).isEqualTo(n);
              }
            }
            return null;
          }));
    }
    try {
      for (int round = 0; round < 300; round++) {
        try (var _ = drive.drain()) {
          MemoryNode from = nodes[round % 2];
          MemoryNode to = nodes[(round + 1) % 2];
          for (int slot = 0; slot < acknowledged.length; slot++) {
            long held = ByteBuffer.wrap(from.bytes).getLong(slot * 512);
            assertThat(held).isGreaterThanOrEqualTo(acknowledged[slot].get());
            if (!bitmap.isDirty(slot * 512L) && round > 0) {
              assertThat(ByteBuffer.wrap(to.bytes).getLong(slot * 512)).isEqualTo(held);
            }
          }
          System.arraycopy(from.bytes, 0, to.bytes, 0, SIZE);
          bitmap.clear(0, SIZE);
          drive.repoint(to);
        }
      }
    } finally {
      stop.set(true);
    }
    for (Future<?> run : runs) {
      run.get(10, SECONDS);
    }
    for (int slot = 0; slot < acknowledged.length; slot++) {
      assertThat(ByteBuffer.wrap(nodes[0].bytes).getLong(slot * 512))
          .isEqualTo(acknowledged[slot].get());
    }
  }
}
