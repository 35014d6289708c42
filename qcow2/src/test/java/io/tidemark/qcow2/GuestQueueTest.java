// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.FileNode;
import io.tidemark.block.HostAccess;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.RequestQueue;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.Await;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Guest requests in the queue of the image's file. Skipped aloud where there is no io_uring, or no
/// O_DIRECT.
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SAME_THREAD)
class GuestQueueTest {
  private static final OpenOptions QUEUED = OpenOptions.readWrite().with(HostAccess.DIRECT_QUEUED);
  private static final int CLUSTER = 4096;
  private static final int SIZE = 8 << 20;
  private static final int DEPTH = 16;
  private static final int SLOT = SIZE / DEPTH; // where requests of a burst do not meet

  @TempDir Path dir;
  private RequestQueue queue;

  @BeforeEach
  void openQueue() throws IOException {
    try {
      queue = RequestQueue.open(DEPTH);
    } catch (IOException e) {
      abort("no io_uring here: " + e.getMessage());
    }
  }

  @AfterEach
  void closeQueue() throws IOException {
    if (queue != null) {
      queue.close();
    }
  }

  private Qcow2Image image(String name, Optional<BackingReference> backing, String... words)
      throws BlockException {
    Map<String, String> options =
        words.length == 0 ? Map.of("cluster_size", "" + CLUSTER) : Map.of(words[0], words[1]);
    Path path = dir.resolve(name);
    try (var file = FileNode.create(path)) {
      Qcow2Image.create(file, new CreateOptions(SIZE, backing, options));
    }
    return open(name, Optional.of(dir));
  }

  private Qcow2Image open(String name, Optional<Path> runDir) throws BlockException {
    OpenOptions options = runDir.isPresent() ? QUEUED.withRunDir(runDir.get()) : QUEUED;
    FileNode file = FileNode.open(dir.resolve(name), options);
    assumeTrue(file.queues(), "no O_DIRECT here");
    return Qcow2Image.open(file, options);
  }

  private static ByteBuffer filled(int length, int with) {
    ByteBuffer bytes = ByteBuffer.allocateDirect(length + 8192).alignedSlice(4096).slice(0, length);
    for (int i = 0; i < length; i++) {
      bytes.put(i, (byte) with);
    }
    return bytes;
  }

  private boolean begin(BlockNode node, boolean write, long offset, ByteBuffer bytes)
      throws BlockException {
    var request = new QueuedRequest(queue);
    request.set(write, offset, bytes);
    return node.begin(request);
  }

  private List<QueuedRequest> awaitAll() throws IOException {
    return awaitAll(queue);
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

  private static byte[] bytes(ByteBuffer from) {
    byte[] bytes = new byte[from.capacity()];
    from.get(0, bytes);
    return bytes;
  }

  private byte[] queuedRead(BlockNode node, long offset, int length) throws IOException {
    ByteBuffer into = filled(length, 77);
    assertThat(begin(node, false, offset, into)).isTrue();
    assertThat(awaitAll()).hasSize(1).allMatch(ended -> ended.failure().isEmpty());
    return bytes(into);
  }

  @Test
  void beginsWhatIsInOnePlace() throws IOException {
    try (Qcow2Image image = image("a", Optional.empty())) {
      assertThat(begin(image, true, 0, filled(CLUSTER, 1))).as("no place yet").isFalse();
      for (int cluster : new int[] {0, 1, 3, 2}) { // places in the file out of order
        image.write((long) cluster * CLUSTER, filled(CLUSTER, cluster + 1));
      }
      assertThat(queuedRead(image, 0, 2 * CLUSTER)).contains(1).contains(2).doesNotContain(3);
      assertThat(begin(image, false, CLUSTER, filled(2 * CLUSTER, 0))).as("two runs").isFalse();
      assertThat(begin(image, true, CLUSTER, filled(CLUSTER, 9))).isTrue();
      assertThat(awaitAll()).hasSize(1);
      assertThat(queuedRead(image, CLUSTER, CLUSTER)).containsOnly(9);
      image.writeCompressed(CLUSTER, filled(CLUSTER, 5));
      assertThat(begin(image, false, CLUSTER, filled(CLUSTER, 0))).as("compressed").isFalse();
      assertThat(begin(image, false, SIZE - CLUSTER + 512, filled(CLUSTER, 0))).isFalse();
    }
  }

  @Test
  void whatIsZeroEndsAtOnce() throws IOException {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(CLUSTER, 1));
      image.writeZeroes(0, CLUSTER, ZeroMode.NO_UNMAP);
      assertThat(begin(image, false, 0, filled(CLUSTER, 7))).isTrue();
      assertThat(begin(image, false, 4 * CLUSTER, filled(CLUSTER, 7))).isTrue();
      assertThat(queue.inFlight()).isZero();
      assertThat(awaitAll()).hasSize(2);
      assertThat(queuedRead(image, 0, CLUSTER)).containsOnly(0);
      assertThat(queuedRead(image, 4 * CLUSTER, CLUSTER)).containsOnly(0);
      assertThat(begin(image, true, 0, filled(CLUSTER, 7))).as("kept place").isFalse();
    }
  }

  @Test
  void aTableThatIsNotInMemoryIsNotWaitedFor() throws IOException {
    image("a", Optional.empty()).close();
    try (Qcow2Image image = open("a", Optional.of(dir))) {
      image.write(0, filled(CLUSTER, 1));
    }
    try (Qcow2Image image = open("a", Optional.of(dir))) {
      assertThat(begin(image, false, 0, filled(CLUSTER, 7))).isFalse();
      image.read(0, filled(CLUSTER, 7));
      assertThat(queuedRead(image, 0, CLUSTER)).containsOnly(1);
      assertThat(begin(image, true, 0, filled(CLUSTER, 7))).as("not prepared").isFalse();
    }
  }

  /// A change of the mapping that another thread has just made may wait for a sync then.
  @Test
  void withoutALogWritesAreNotBegun() throws IOException {
    image("a", Optional.empty()).close();
    try (Qcow2Image image = open("a", Optional.empty())) {
      image.write(0, filled(CLUSTER, 1));
      assertThat(begin(image, true, 0, filled(CLUSTER, 7))).isFalse();
      assertThat(queuedRead(image, 0, CLUSTER)).containsOnly(1);
    }
  }

  @Test
  void readsThroughAChainOfAnyLength() throws IOException {
    int length = 20;
    Qcow2Image top = image("0", Optional.empty());
    top.write(0, filled(CLUSTER, 1));
    for (int i = 1; i < length; i++) {
      var reference = new BackingReference("" + (i - 1), Optional.of("qcow2"));
      Qcow2Image next = image("" + i, Optional.of(reference));
      next.attachBacking(top);
      next.write((long) i * CLUSTER, filled(CLUSTER, i + 1));
      top = next;
    }
    try (Qcow2Image image = top) {
      int begun = 0;
      for (int i = 0; i < length; i++) {
        if (begin(image, false, (long) i * CLUSTER, filled(CLUSTER, 0))) {
          begun++;
          awaitAll();
          assertThat(queuedRead(image, (long) i * CLUSTER, CLUSTER)).containsOnly(i + 1);
        }
      }
      assertThat(begun).isBetween(10, length - 1);
    }
  }

  @Test
  void givesPlacesAndEntersThemWhenTheBytesAreThere() throws IOException {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(CLUSTER, 1)); // its tables are made
      assertThat(begin(image, true, 5 * CLUSTER, filled(CLUSTER, 2))).isTrue();
      assertThat(begin(image, true, 5 * CLUSTER, filled(512, 3))).as("locked").isFalse();
      assertThat(begin(image, true, 8 * CLUSTER + 512, filled(2 * CLUSTER, 4))).isTrue();
      byte[] before = new byte[CLUSTER];
      image.read(5 * CLUSTER, ByteBuffer.wrap(before));
      assertThat(before).containsOnly(0);
      assertThat(awaitAll()).hasSize(2).allMatch(ended -> ended.failure().isEmpty());
      assertThat(begin(image, true, 5 * CLUSTER, filled(512, 3))).as("in its place").isTrue();
      assertThat(awaitAll()).hasSize(1);
      byte[] all = new byte[16 * CLUSTER];
      image.read(0, ByteBuffer.wrap(all));
      byte[] wanted = new byte[16 * CLUSTER];
      Arrays.fill(wanted, 0, CLUSTER, (byte) 1);
      Arrays.fill(wanted, 5 * CLUSTER, 6 * CLUSTER, (byte) 2);
      Arrays.fill(wanted, 5 * CLUSTER, 5 * CLUSTER + 512, (byte) 3);
      Arrays.fill(wanted, 8 * CLUSTER + 512, 10 * CLUSTER + 512, (byte) 4);
      assertThat(Arrays.mismatch(all, wanted)).isEqualTo(-1);
      image.flush();
      assertThat(image.check().sound()).isTrue();
    }
  }

  @Test
  void whatHasToBeCopiedIsNotBegun() throws IOException {
    try (Qcow2Image base = image("base", Optional.empty())) {
      base.write(0, filled(8 * CLUSTER, 1));
    }
    var reference = new BackingReference("base", Optional.of("qcow2"));
    try (Qcow2Image image = image("top", Optional.of(reference))) {
      image.attachBacking(open("base", Optional.empty()));
      image.write(7 * CLUSTER, filled(CLUSTER, 2));
      image.writeZeroes(8 * CLUSTER, CLUSTER, ZeroMode.MAY_UNMAP);
      assertThat(begin(image, true, 512, filled(512, 3))).isFalse();
      assertThat(begin(image, true, 512, filled(2 * CLUSTER, 3))).isFalse();
      assertThat(begin(image, true, CLUSTER, filled(2 * CLUSTER, 3))).as("whole").isTrue();
      assertThat(begin(image, true, 8 * CLUSTER + 512, filled(512, 4))).as("zero").isTrue();
      assertThat(awaitAll()).hasSize(2).allMatch(ended -> ended.failure().isEmpty());
      byte[] all = new byte[9 * CLUSTER];
      image.read(0, ByteBuffer.wrap(all));
      byte[] wanted = new byte[9 * CLUSTER];
      Arrays.fill(wanted, 0, 8 * CLUSTER, (byte) 1);
      Arrays.fill(wanted, CLUSTER, 3 * CLUSTER, (byte) 3);
      Arrays.fill(wanted, 7 * CLUSTER, 8 * CLUSTER, (byte) 2);
      Arrays.fill(wanted, 8 * CLUSTER + 512, 8 * CLUSTER + 1024, (byte) 4);
      assertThat(Arrays.mismatch(all, wanted)).isEqualTo(-1);
    }
  }

  /// The write reaches the disk and is said to have failed: its place goes to the next who needs
  /// one, who must not take it for empty.
  @Test
  void thePlaceOfAWriteThatFailedIsNotTakenForEmpty() throws IOException {
    image("a", Optional.empty()).close();
    OpenOptions options = QUEUED.with(Durability.FLUSHED);
    FileNode file = FileNode.open(dir.resolve("a"), options);
    assumeTrue(file.queues(), "no O_DIRECT here");
    var fails = new AtomicBoolean();
    try (Qcow2Image image = Qcow2Image.open(failing(file, fails), options)) {
      image.write(0, filled(CLUSTER, 1));
      fails.set(true);
      assertThat(begin(image, true, 4 * CLUSTER, filled(CLUSTER, 2))).isTrue();
      assertThat(awaitAll()).hasSize(1).allMatch(ended -> ended.failure().isPresent());
      fails.set(false);
      assertThat(queuedRead(image, 4 * CLUSTER, CLUSTER)).containsOnly(0);
      assertThat(begin(image, true, 6 * CLUSTER + 512, filled(512, 3))).as("not fresh").isFalse();
      image.write(6 * CLUSTER + 512, filled(512, 3));
      assertThat(queuedRead(image, 6 * CLUSTER, 512)).containsOnly(0);
      assertThat(queuedRead(image, 6 * CLUSTER + 512, 512)).containsOnly(3);
      assertThat(queuedRead(image, 6 * CLUSTER + 1024, CLUSTER - 1024)).containsOnly(0);
      assertThat(begin(image, true, 4 * CLUSTER, filled(CLUSTER, 4))).as("made again").isTrue();
      assertThat(awaitAll()).hasSize(1).allMatch(ended -> ended.failure().isEmpty());
      image.flush();
      assertThat(image.check().sound()).isTrue();
    }
  }

  /// A file whose queued requests are done, and fail all the same.
  private static BlockNode failing(FileNode file, AtomicBoolean fails) {
    return (BlockNode)
        Proxy.newProxyInstance(
            BlockNode.class.getClassLoader(),
            new Class<?>[] {BlockNode.class},
            (_, method, arguments) -> {
              if (fails.get() && method.getName().equals("begin")) {
                var failure = new TransportException("on purpose");
                ((QueuedRequest) arguments[0])
                    .atEnd((ended, _, _, _) -> ended.fail(failure), 0, null);
              }
              try {
                return method.invoke(file, arguments);
              } catch (InvocationTargetException e) {
                throw e.getCause();
              }
            });
  }

  /// Two connections write to the same new clusters, each its own sectors, while clusters elsewhere
  /// are given up and all is flushed.
  @ParameterizedTest
  @Seeds(5)
  void twoQueuesShareNewClusters(long seed) throws IOException {
    byte[][] models = {new byte[SIZE / 2], new byte[SIZE / 2]};
    try (Qcow2Image image = image("a", Optional.empty())) {
      var writers = new ArrayList<Elsewhere>();
      for (int side = 0; side < 2; side++) {
        int mine = side;
        writers.add(
            Elsewhere.start(
                () -> writeSectors(image, new Random(seed + mine), mine, models[mine])));
      }
      var random = new Random(seed + 2);
      while (writers.stream().anyMatch(writer -> writer.state() != Thread.State.TERMINATED)) {
        int offset = SIZE / 2 + CLUSTER * random.nextInt(SIZE / 2 / CLUSTER);
        image.write(offset, filled(CLUSTER, 9));
        image.discard(SIZE / 2, SIZE / 2);
        image.flush();
      }
      writers.forEach(Elsewhere::join);
      byte[] all = new byte[SIZE / 2];
      image.read(0, ByteBuffer.wrap(all));
      for (int sector = 0; sector < all.length / 512; sector++) {
        int at = 512 * sector;
        byte[] model = models[sector % 2];
        assertThat(Arrays.mismatch(all, at, at + 512, model, at, at + 512))
            .as("sector %d", sector)
            .isEqualTo(-1);
      }
      assertThat(image.check().sound()).isTrue();
    }
  }

  private static void writeSectors(Qcow2Image image, Random random, int side, byte[] model)
      throws IOException {
    int begun = 0;
    try (var mine = RequestQueue.open(DEPTH)) {
      for (int i = 0; i < 1000; i++) {
        int offset = 1024 * random.nextInt(SIZE / 2 / 1024) + 512 * side;
        ByteBuffer bytes = filled(512, 1 + random.nextInt(255));
        var request = new QueuedRequest(mine);
        request.set(true, offset, bytes);
        if (image.begin(request)) {
          begun++;
        } else {
          assertThat(awaitAll(mine)).allMatch(ended -> ended.failure().isEmpty());
          image.write(offset, bytes.duplicate());
        }
        bytes.get(0, model, offset, 512);
        if (mine.inFlight() == DEPTH) {
          assertThat(awaitAll(mine)).allMatch(ended -> ended.failure().isEmpty());
        }
      }
      assertThat(awaitAll(mine)).allMatch(ended -> ended.failure().isEmpty());
    }
    assertThat(begun).isPositive();
  }

  /// While a read is in flight its cluster is discarded, and as many written elsewhere: the place
  /// goes to nobody. Without one it does.
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void aPlaceInFlightGoesToNobody(boolean inFlight) throws IOException {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(8 * CLUSTER, 1));
      long place = Elsewhere.firstPlace(image);
      ByteBuffer into = filled(CLUSTER, 7);
      if (inFlight) {
        assertThat(begin(image, false, 0, into)).isTrue();
      }
      Elsewhere.run(() -> Elsewhere.takeEveryPlace(image));
      if (inFlight) {
        assertThat(awaitAll()).hasSize(1);
        assertThat(bytes(into)).containsAnyOf(1, 0).doesNotContain(2);
      }
      assertThat(Elsewhere.tookPlace(image, place)).isEqualTo(!inFlight);
    }
  }

  @Test
  void aReorganisationWaitsForWhatIsInFlight() throws Exception {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(CLUSTER, 1));
      assertThat(begin(image, true, 0, filled(CLUSTER, 2))).isTrue();
      var snapshot =
          Elsewhere.start(() -> image.snapshots().orElseThrow().create("s", Instant.EPOCH));
      Await.until(() -> snapshot.state() == Thread.State.TIMED_WAITING);
      assertThat(begin(image, false, 0, filled(CLUSTER, 7))).as("the gate is shut").isFalse();
      assertThat(image.snapshots().orElseThrow().list()).isEmpty();
      assertThat(awaitAll()).hasSize(1);
      snapshot.join();
      assertThat(begin(image, true, 0, filled(CLUSTER, 3))).as("shared now").isFalse();
      image.write(0, filled(CLUSTER, 3));
      byte[] frozen = new byte[CLUSTER];
      try (BlockNode view = image.snapshots().orElseThrow().view("s")) {
        view.read(0, ByteBuffer.wrap(frozen));
      }
      assertThat(frozen).containsOnly(2);
    }
  }

  /// Bursts of queued requests between requests of every kind, over a chain, against a model.
  @ParameterizedTest
  @Seeds(40)
  void burstsDoWhatTheyWereAskedFor(long seed) throws IOException {
    var random = new Random(seed);
    byte[] model = new byte[SIZE];
    boolean subclusters = seed % 3 == 0;
    Qcow2Image base = image("base", Optional.empty());
    for (int i = 0; i < 20; i++) {
      change(base, random, model);
    }
    base.close();
    var reference = new BackingReference("base", Optional.of("qcow2"));
    Qcow2Image top =
        subclusters
            ? image("top", Optional.of(reference), "extended_l2", "on")
            : image("top", Optional.of(reference));
    top.attachBacking(open("base", Optional.empty()));
    int begun = 0;
    try (Qcow2Image image = top) {
      for (int round = 0; round < 30; round++) {
        for (int i = random.nextInt(4); i > 0; i--) {
          change(image, random, model);
        }
        begun += burst(image, random, model);
      }
      byte[] all = new byte[SIZE];
      image.read(0, ByteBuffer.wrap(all));
      assertThat(Arrays.mismatch(all, model)).isEqualTo(-1);
      assertThat(image.check().sound()).isTrue();
    }
    assertThat(begun).isGreaterThan(100);
    try (Qcow2Image image = open("top", Optional.of(dir))) {
      image.attachBacking(open("base", Optional.empty()));
      byte[] all = new byte[SIZE];
      image.read(0, ByteBuffer.wrap(all));
      assertThat(Arrays.mismatch(all, model)).isEqualTo(-1);
    }
  }

  private static void change(Qcow2Image image, Random random, byte[] model) throws BlockException {
    int length = 512 * (1 + random.nextInt(256));
    int offset = 512 * random.nextInt((SIZE - length) / 512);
    switch (random.nextInt(6)) {
      case 0 -> {
        image.writeZeroes(
            offset, length, random.nextBoolean() ? ZeroMode.NO_UNMAP : ZeroMode.MAY_UNMAP);
        Arrays.fill(model, offset, offset + length, (byte) 0);
      }
      case 1 -> {
        image.discard(offset, length);
        Arrays.fill(model, offset, offset + length, (byte) 0);
      }
      case 2 -> image.flush();
      case 3 -> {
        int cluster = (int) image.clusterSize();
        int at = offset / cluster * cluster;
        image.writeCompressed(at, filled(cluster, 3));
        Arrays.fill(model, at, at + cluster, (byte) 3);
      }
      default -> {
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        image.write(offset, ByteBuffer.wrap(bytes));
        System.arraycopy(bytes, 0, model, offset, length);
      }
    }
  }

  private record Reading(ByteBuffer into, ByteBuffer wanted) {}

  /// As a connection does it: what is not begun runs when the queue is empty. Returns how many were
  /// begun.
  private int burst(Qcow2Image image, Random random, byte[] model) throws IOException {
    int begun = 0;
    var reads = new ArrayList<Reading>();
    for (int slot = 0; slot < DEPTH; slot++) {
      int length = 512 << random.nextInt(8);
      int offset = slot * SLOT + 512 * random.nextInt((SLOT - length) / 512 + 1);
      boolean write = random.nextInt(3) == 0;
      ByteBuffer bytes = filled(length, random.nextInt());
      boolean queued = begin(image, write, offset, bytes);
      if (queued) {
        begun++;
      } else {
        assertThat(awaitAll()).allMatch(ended -> ended.failure().isEmpty());
        if (write) {
          image.write(offset, bytes.duplicate());
        } else {
          image.read(offset, bytes.duplicate());
        }
      }
      if (write) {
        bytes.get(0, model, offset, length);
      } else {
        reads.add(
            new Reading(
                bytes, ByteBuffer.wrap(Arrays.copyOfRange(model, offset, offset + length))));
      }
    }
    assertThat(awaitAll()).allMatch(ended -> ended.failure().isEmpty());
    for (Reading read : reads) {
      assertThat(read.into().mismatch(read.wanted())).isEqualTo(-1);
    }
    return begun;
  }
}
