// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.abort;

import io.tidemark.linux.LinuxException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Host files past the page cache, one request after the other and queued.
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class DirectFileTest {
  private static final int SIZE = 1 << 20;
  private static final OpenOptions DIRECT = OpenOptions.readWrite().with(HostAccess.DIRECT_QUEUED);

  @TempDir Path dir;

  private Path file(int bytes) throws IOException {
    return Files.write(dir.resolve("disk"), new byte[bytes]);
  }

  private static byte[] random(Random random, int length) {
    byte[] bytes = new byte[length];
    random.nextBytes(bytes);
    return bytes;
  }

  private static ByteBuffer page(int bytes, int fill) {
    ByteBuffer page = ByteBuffer.allocateDirect((bytes | 4095) + 1 + 4096).alignedSlice(4096);
    page = page.slice(0, bytes);
    for (int i = 0; i < bytes; i++) {
      page.put(i, (byte) fill);
    }
    return page;
  }

  static LongStream seeds() {
    return LongStream.rangeClosed(1, 20);
  }

  @ParameterizedTest(name = "seed {0}")
  @MethodSource("seeds")
  void holdsWhatWasWrittenAtEveryAlignment(long seed) throws IOException {
    var random = new Random(seed);
    byte[] model = new byte[SIZE];
    Path path = file(SIZE);
    try (FileNode node = FileNode.open(path, DIRECT)) {
      for (int i = 0; i < 60; i++) {
        int unit = random.nextBoolean() ? 1 : 4096;
        int length = Math.max(unit, random.nextInt(random.nextInt(10) == 0 ? 600_000 : 20_000));
        length = length / unit * unit;
        int offset = random.nextInt((SIZE - length) / unit + 1) * unit;
        switch (random.nextInt(5)) {
          case 0 -> {
            node.writeZeroes(
                offset, length, random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP);
            java.util.Arrays.fill(model, offset, offset + length, (byte) 0);
          }
          case 1 -> {
            node.discard(offset, length);
            java.util.Arrays.fill(model, offset, offset + length, (byte) 0);
          }
          case 2 -> {
            ByteBuffer got = ByteBuffer.allocate(length);
            node.read(offset, got);
            assertThat(got.flip()).isEqualTo(ByteBuffer.wrap(model, offset, length).slice());
          }
          default -> {
            byte[] fresh = random(random, length);
            System.arraycopy(fresh, 0, model, offset, length);
            ByteBuffer bytes = ByteBuffer.wrap(fresh);
            node.write(offset, bytes);
            assertThat(bytes.hasRemaining()).isFalse();
          }
        }
      }
      node.flush();
    }
    assertThat(Files.readAllBytes(path)).isEqualTo(model);
  }

  @Test
  void writersOfDifferentPartsOfOneBlockLoseNothing() throws Exception {
    Path path = file(8192);
    try (FileNode node = FileNode.open(path, DIRECT)) {
      var threads = new ArrayList<Thread>();
      for (int part = 0; part < 8; part++) {
        int mine = part;
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  for (int round = 1; round <= 50; round++) {
                    byte[] bytes = new byte[100];
                    java.util.Arrays.fill(bytes, (byte) round);
                    try {
                      node.write(mine * 100L, ByteBuffer.wrap(bytes));
                    } catch (BlockException e) {
                      throw new AssertionError(e);
                    }
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
    }
    byte[] all = Files.readAllBytes(path);
    for (int i = 0; i < 800; i++) {
      assertThat(all[i]).as("byte %s", i).isEqualTo((byte) 50);
    }
  }

  /// What another descriptor wrote by the page cache, and reads by it.
  @Test
  void agreesWithThePageCacheOfOthers() throws IOException {
    Path path = file(SIZE);
    try (FileNode direct = FileNode.open(path, DIRECT);
        FileNode cached = FileNode.open(path, OpenOptions.forceShare())) {
      for (int round = 1; round <= 20; round++) {
        ByteBuffer before = ByteBuffer.allocate(SIZE);
        cached.read(0, before); // all of it is in the page cache
        direct.write(round * 4096L, page(4096, round));
        direct.write(round * 4096L + 100_000 + round, page(77, round));
        ByteBuffer got = ByteBuffer.allocate(4096);
        cached.read(round * 4096L, got);
        assertThat(got.get(4095)).isEqualTo((byte) round);
        cached.read(round * 4096L + 100_000 + round, got.clear().limit(77));
        assertThat(got.get(76)).isEqualTo((byte) round);
      }
      Files.write(path, new byte[] {42}, java.nio.file.StandardOpenOption.WRITE);
      ByteBuffer got = page(4096, 0);
      direct.read(0, got);
      assertThat(got.get(0)).isEqualTo((byte) 42);
    }
  }

  @Test
  void aFileThatIsNotWholeBlocksKeepsItsSize() throws IOException {
    Path path = file(4096 + 100);
    try (FileNode node = FileNode.open(path, DIRECT)) {
      node.write(4096 + 90, ByteBuffer.wrap(new byte[] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
      assertThat(Files.size(path)).isEqualTo(4096 + 100);
      node.writeZeroes(4096, 92, ZeroMode.MAY_UNMAP);
      assertThat(Files.size(path)).isEqualTo(4096 + 100);
      ByteBuffer got = ByteBuffer.allocate(10);
      node.read(4096 + 90, got);
      assertThat(got.array()).containsExactly(0, 0, 3, 4, 5, 6, 7, 8, 9, 10);
      node.resize(8192 + 8);
      node.write(8192 + 7, ByteBuffer.wrap(new byte[] {1}));
      assertThat(Files.size(path)).isEqualTo(8192 + 8);
    }
  }

  @Test
  void becomesWritableAndStaysDirect() throws IOException {
    Path path = file(SIZE);
    OpenOptions reading = OpenOptions.reading().with(HostAccess.DIRECT_QUEUED);
    try (FileNode node = FileNode.open(path, reading)) {
      node.reopen(false);
      node.write(5, ByteBuffer.wrap(new byte[] {1, 2, 3}));
      ByteBuffer got = ByteBuffer.allocate(3);
      node.read(5, got);
      assertThat(got.array()).containsExactly(1, 2, 3);
    }
  }

  // ---- queued

  private static RequestQueue queue(int depth) throws IOException {
    try {
      return RequestQueue.open(depth);
    } catch (LinuxException e) {
      return abort("no io_uring here: " + e.getMessage());
    }
  }

  private static QueuedRequest request(
      RequestQueue queue, boolean write, long offset, ByteBuffer bytes) {
    var request = new QueuedRequest(queue);
    request.set(write, offset, bytes);
    return request;
  }

  @Test
  void queuedRequestsEndOnceEachAndDoWhatTheyWereAskedFor() throws IOException {
    Path path = file(SIZE);
    try (FileNode file = FileNode.open(path, DIRECT);
        RequestQueue queue = queue(16)) {
      var drive = new Drive("vda", new RawNode(file, false));
      var bitmap = new DirtyBitmap("b", SIZE, 4096);
      bitmap.setEnabled(true);
      try (var _ = drive.drain()) {
        drive.addBitmap(bitmap);
      }
      for (int i = 0; i < 16; i++) {
        assertThat(drive.begin(request(queue, true, i * 8192L, page(4096, i + 1)))).isTrue();
      }
      assertThat(queue.inFlight()).isEqualTo(16);
      assertThat(drive.begin(request(queue, true, 15 * 8192L, page(4096, 1)))).isFalse();
      assertThat(awaitAll(queue)).hasSize(16).allMatch(r -> r.failure().isEmpty());
      assertThat(bitmap.dirtyBytes()).isEqualTo(16 * 4096);
      ByteBuffer into = page(4096, 0);
      assertThat(drive.begin(request(queue, false, 15 * 8192L, into))).isTrue();
      awaitAll(queue);
      assertThat(into.get(4095)).isEqualTo((byte) 16);
      assertThat(drive.statistics().writeOperations()).isEqualTo(16);
      assertThat(drive.statistics().readBytes()).isEqualTo(4096);
      try (var _ = drive.drain()) { // nothing is left in flight, no range held
        assertThat(drive.lockRange(0, SIZE)).isNotNull();
      }
    }
  }

  private static List<QueuedRequest> awaitAll(RequestQueue queue) throws IOException {
    while (queue.inFlight() > 0) {
      queue.await();
    }
    var all = new ArrayList<QueuedRequest>();
    for (var next = queue.ended(); next.isPresent(); next = queue.ended()) {
      all.add(next.get());
    }
    return all;
  }

  @Test
  void isNotBegunWhereItWouldHaveToWait() throws IOException {
    Path path = file(SIZE);
    try (FileNode file = FileNode.open(path, DIRECT);
        RequestQueue queue = queue(4)) {
      var drive = new Drive("vda", new RawNode(file, false));
      try (var _ = drive.drain()) {
        assertThat(drive.begin(request(queue, false, 0, page(4096, 0)))).isFalse();
      }
      try (var _ = drive.lockRange(0, 4096)) {
        assertThat(drive.begin(request(queue, true, 0, page(4096, 0)))).isFalse();
        assertThat(drive.begin(request(queue, true, 4096, page(4096, 0)))).isTrue();
      }
      awaitAll(queue);
      assertThat(drive.begin(request(queue, false, 100, page(4096, 0)))).isFalse();
      assertThat(drive.begin(request(queue, false, 0, ByteBuffer.allocate(4096)))).isFalse();
      WriteFilter filter = new WriteFilter() {};
      try (var _ = drive.drain()) {
        drive.addFilter(filter);
      }
      assertThat(drive.begin(request(queue, true, 0, page(4096, 0)))).isFalse();
      assertThat(drive.begin(request(queue, false, 0, page(4096, 0)))).isTrue();
      awaitAll(queue);
      try (var drained = drive.drain()) { // all counts were taken back
        assertThat(drained).isNotNull();
      }
    }
  }

  @Test
  void aDrainWaitsForARequestUntilItsEndIsNoticed() throws Exception {
    Path path = file(SIZE);
    try (FileNode file = FileNode.open(path, DIRECT);
        RequestQueue queue = queue(4)) {
      var drive = new Drive("vda", new RawNode(file, false));
      assertThat(drive.begin(request(queue, true, 0, page(4096, 7)))).isTrue();
      var drained = new CountDownLatch(1);
      Thread thread =
          Thread.ofPlatform()
              .start(() -> {
                try (var _ = drive.drain()) {
                  drained.countDown();
                }
              });
      Await.until(() -> thread.getState() == Thread.State.WAITING);
      assertThat(drained.getCount()).isEqualTo(1);
      awaitAll(queue);
      drained.await();
      thread.join();
    }
  }

  @Test
  void aRequestThatFailsSaysWhyAndLetsGoOfEverything() throws IOException {
    Path path = file(SIZE);
    try (FileNode file = FileNode.open(path, OpenOptions.reading().with(HostAccess.DIRECT_QUEUED));
        RequestQueue queue = queue(4)) {
      var drive = new Drive("vda", file);
      assertThatThrownBy(() -> drive.begin(request(queue, true, 0, page(4096, 0))))
          .isInstanceOf(ReadOnlyNodeException.class);
      try (var channel =
          java.nio.channels.FileChannel.open(path, java.nio.file.StandardOpenOption.WRITE)) {
        channel.truncate(4096); // under the node
      }
      assertThat(drive.begin(request(queue, false, 8192, page(4096, 0)))).isTrue();
      Optional<BlockException> failure = awaitAll(queue).getFirst().failure();
      assertThat(failure).isPresent();
      assertThat(failure.get()).hasMessageContaining("read at 0x2000");
      assertThat(drive.statistics().errors()).as("counted when it is made again").isZero();
      try (var drained = drive.drain()) {
        assertThat(drained).isNotNull();
      }
    }
  }
}
