// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Await;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// Bad peers, many peers, and an end in the middle of work.
class ExportServerLoadTest {
  private static final int SIZE = 4 << 20;

  @TempDir Path folder;
  private Path socket;
  private final MemoryNode node = new MemoryNode(SIZE);
  private ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    start(ServerLimits.defaults());
  }

  private void start(ServerLimits limits) throws IOException {
    server.close();
    server = new ExportServer(limits);
    server.addExport(Export.of("vda", node));
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private RawPeer opened() throws IOException {
    return new RawPeer(socket).greeted().structured().contexts("vda", "base:allocation").go("vda");
  }

  /// A whole session: handshake and one of each request.
  private static byte[] session() {
    ByteBuffer all = ByteBuffer.allocate(1 << 16);
    byte[] info = RawPeer.infoData("vda", 0, 3);
    byte[] meta = RawPeer.metaData("vda", "base:allocation");
    all.putInt(3);
    all.putLong(Wire.Magic.OPTION).putInt(Wire.Option.STRUCTURED_REPLY).putInt(0);
    all.putLong(Wire.Magic.OPTION).putInt(Wire.Option.LIST).putInt(0);
    all.putLong(Wire.Magic.OPTION).putInt(Wire.Option.SET_META_CONTEXT).putInt(meta.length);
    all.put(meta).putLong(Wire.Magic.OPTION).putInt(Wire.Option.GO).putInt(info.length).put(info);
    for (int command : new int[] {0, 1, 3, 4, 5, 6, 7, 2}) {
      all.putInt(Wire.Magic.REQUEST).putShort((short) 0).putShort((short) command);
      all.putLong(command).putLong(0).putInt(512);
      if (command == Wire.Command.WRITE) {
        all.put(new byte[512]);
      }
    }
    byte[] bytes = new byte[all.position()];
    all.flip().get(bytes);
    return bytes;
  }

  @Test
  void aConnectionHoldsTwoTinyBuffersUntilARequestDoesNotFit() throws IOException {
    try (ServerSocketChannel listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listening.bind(UnixDomainSocketAddress.of(folder.resolve("p.sock")));
      try (RawPeer peer = new RawPeer(folder.resolve("p.sock"));
          SocketChannel accepted = listening.accept();
          var stream = new PeerStream(accepted, new BufferPool(1 << 20))) {
        peer.out.write(new byte[100]);
        assertThat(stream.fill(100)).isTrue();
        assertThat(stream.reserve(28)).isTrue();
        assertThat(stream.in().capacity() + stream.out().capacity()).isEqualTo(2 * BufferPool.TINY);
        assertThat(stream.reserve(5000)).isTrue();
        assertThat(stream.room(5000)).isTrue();
        assertThat(stream.in().capacity() + stream.out().capacity())
            .isEqualTo(2 * BufferPool.SMALL);
      }
    }
  }

  @Test
  void aConnectionGetsSmallBuffersWhereThePoolHasNoLargerOnes() throws IOException {
    try (ServerSocketChannel listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listening.bind(UnixDomainSocketAddress.of(folder.resolve("small.sock")));
      try (RawPeer peer = new RawPeer(folder.resolve("small.sock"));
          SocketChannel accepted = listening.accept();
          var stream = new PeerStream(accepted, new BufferPool(0))) {
        peer.out.write(new byte[100]);
        assertThat(stream.fill(100)).isTrue();
        assertThat(stream.reserve(BufferPool.MEDIUM)).isFalse();
        assertThat(stream.room(BufferPool.LARGE)).isFalse();
        assertThat(stream.in().remaining()).isEqualTo(100);
        assertThat(stream.in().capacity()).isEqualTo(BufferPool.SMALL);
        assertThat(stream.out().capacity()).isEqualTo(BufferPool.SMALL);
      }
    }
  }

  @Test
  void survivesAPeerThatLeavesAfterEveryByteOfASession() throws IOException {
    byte[] session = session();
    for (int length = 0; length <= session.length; length += length < 250 ? 1 : 7) {
      try (RawPeer peer = new RawPeer(socket)) {
        peer.out.write(session, 0, length);
      }
    }
    Await.until(() -> server.connections() == 0);
    assertServing();
  }

  @ParameterizedTest
  @Seeds(300)
  void survivesASessionWithWrongBytes(long seed) throws IOException {
    var random = new Random(seed);
    byte[] session = session();
    for (int i = random.nextInt(5); i >= 0; i--) {
      int at = random.nextInt(session.length);
      session[at] =
          switch (random.nextInt(3)) {
            case 0 -> (byte) 0xff;
            case 1 -> 0;
            default -> (byte) random.nextInt();
          };
    }
    try (RawPeer peer = new RawPeer(socket)) {
      try {
        peer.out.write(session);
        peer.channel.shutdownOutput();
        peer.closedByServer();
      } catch (IOException _) {
        // Dropped while we wrote: that is an outcome too.
      }
    }
    Await.until(() -> server.connections() == 0);
    assertServing();
  }

  @ParameterizedTest
  @Seeds(50)
  void survivesGarbageInsteadOfRequests(long seed) throws IOException {
    var random = new Random(seed);
    byte[] garbage = new byte[1 + random.nextInt(5000)];
    random.nextBytes(garbage);
    try (RawPeer peer = opened()) {
      peer.out.write(garbage);
      peer.channel.shutdownOutput();
      assertThat(peer.closedByServer()).isTrue();
    } catch (IOException _) {
      // Dropped while we wrote.
    }
    assertServing();
  }

  private void assertServing() throws IOException {
    try (RawPeer peer = opened()) {
      assertThat(peer.size).isEqualTo(SIZE);
      assertThat(peer.read(0, 512, 0)).hasSize(512);
    }
  }

  @Test
  void dropsAPeerWhoseWriteIsTooLargeWithoutApplyingIt() throws IOException {
    for (long length : new long[] {(32L << 20) + 1, 1L << 31, 0xffff_ffffL}) {
      try (RawPeer peer = opened()) {
        peer.request(Wire.Command.WRITE, 0, 1, 0, length, new byte[] {1, 1, 1, 1});
        assertThat(peer.closedByServer()).isTrue();
      }
    }
    assertThat(node.copy(0, 4)).containsOnly(0);
  }

  @Test
  void appliesNothingOfAWriteWhosePeerDiesInThePayload() throws IOException {
    byte[] half = new byte[64 << 10];
    java.util.Arrays.fill(half, (byte) 9);
    try (RawPeer peer = opened()) {
      peer.request(Wire.Command.WRITE, 0, 1, 0, ServerTransmission.AT_ONCE, half);
    }
    Await.until(() -> server.connections() == 0);

    assertThat(node.copy(0, half.length)).containsOnly(0);
  }

  @Test
  void appliesNothingOfAWriteThatTheNodeWantsWholeWhosePeerDiesInThePayload() throws IOException {
    node.writeUnit = 256 << 10;
    byte[] half = new byte[512 << 10];
    java.util.Arrays.fill(half, (byte) 9);
    try (RawPeer peer = opened()) {
      peer.request(Wire.Command.WRITE, 0, 1, 0, 1 << 20, half);
    }
    Await.until(() -> server.connections() == 0);

    assertThat(node.copy(0, half.length)).containsOnly(0);
  }

  @Test
  void appliesWholePartsOfALargeWriteWhosePeerDiesInThePayload() throws IOException {
    int start = 1000;
    byte[] half = new byte[300_000];
    java.util.Arrays.fill(half, (byte) 9);
    try (RawPeer peer = opened()) {
      peer.request(Wire.Command.WRITE, 0, 1, start, 1 << 20, half);
    }
    Await.until(() -> server.connections() == 0);

    int part = ServerTransmission.PIECE_ALIGNMENT;
    int written = (start + half.length) / part * part - start;
    assertThat(node.copy(start, written)).containsOnly(9);
    assertThat(node.copy(0, start)).containsOnly(0);
    assertThat(node.copy(start + written, 1 << 20)).containsOnly(0);
  }

  @Test
  void serves200ConnectionsAtOnce() throws Exception {
    var peers = new ArrayList<RawPeer>();
    try {
      for (int i = 0; i < 200; i++) {
        peers.add(opened());
      }
      for (int i = 0; i < 200; i++) {
        peers
            .get(i)
            .request(
                Wire.Command.WRITE, 0, i, i * 8L, 8, ByteBuffer.allocate(8).putLong(i).array());
      }
      for (int i = 0; i < 200; i++) {
        assertThat(peers.get(i).next(0).cookie()).isEqualTo(i);
        assertThat(ByteBuffer.wrap(node.copy(i * 8, 8)).getLong()).isEqualTo(i);
      }
      assertThat(server.connections()).isEqualTo(200);
    } finally {
      for (RawPeer peer : peers) {
        peer.close();
      }
    }
    Await.until(() -> server.connections() == 0);
  }

  @Test
  void letsClientsWaitPastTheLimitOfConnections() throws Exception {
    start(ServerLimits.defaults().withConnections(1));
    var second = new CountDownLatch(1);
    try (RawPeer first = opened()) {
      Thread.ofVirtual()
          .start(() -> {
            try (RawPeer peer = opened()) {
              peer.read(0, 16, 0);
              second.countDown();
            } catch (IOException e) {
              throw new java.io.UncheckedIOException(e);
            }
          });
      assertThat(first.read(0, 16, 0)).hasSize(16);
      assertThat(server.connections()).isEqualTo(1);
      assertThat(second.getCount()).isEqualTo(1);
    }
    second.await();
  }

  @Test
  void doesNotLetAPeerThatReadsNothingDisturbOthers() throws IOException {
    try (RawPeer deaf = opened()) {
      deaf.channel.configureBlocking(false);
      ByteBuffer request = ByteBuffer.allocate(Wire.Size.REQUEST);
      request.putInt(Wire.Magic.REQUEST).putInt(0).putLong(1).putLong(0).putInt(SIZE).flip();
      int sent;
      do {
        sent = deaf.channel.write(request.duplicate());
      } while (sent == Wire.Size.REQUEST);
      assertServing();
    }
    Await.until(() -> server.connections() == 0);
  }

  @Test
  void finishesRequestsThatRunWhenItIsClosed() throws Exception {
    var gate = new CountDownLatch(1);
    try (RawPeer peer = opened()) {
      node.gate = gate;
      peer.request(Wire.Command.WRITE, 0, 42, 0, 4, new byte[] {1, 2, 3, 4});
      Await.until(() -> node.waiting.get() == 1);
      Thread closing = Thread.ofVirtual().start(server::close);
      Await.until(() -> !socket.toFile().exists());
      assertThat(closing.isAlive()).isTrue();
      node.gate = null;
      gate.countDown();
      closing.join();

      assertThat(peer.next(0))
          .extracting(RawPeer.Reply::cookie, RawPeer.Reply::error)
          .containsExactly(42L, 0);
      assertThat(peer.closedByServer()).isTrue();
      assertThat(node.copy(0, 4)).containsExactly(1, 2, 3, 4);
    }
  }

  @Test
  void closesWithinItsBoundThoughARequestHangs() throws Exception {
    start(ServerLimits.defaults().withCloseTime(Duration.ofMillis(50)));
    var gate = new CountDownLatch(1);
    try (RawPeer peer = opened()) {
      node.gate = gate;
      peer.request(Wire.Command.READ, 0, 1, 0, 4);
      Await.until(() -> node.waiting.get() == 1);

      assertThat(server.removeExport("vda")).isFalse();
      server.close();
      assertThat(peer.closedByServer()).isTrue();
    } finally {
      node.gate = null;
      gate.countDown();
    }
    Await.until(() -> server.connections() == 0);
  }

  @Test
  void closesUnderLoadWithoutLosingAnAcknowledgedWrite() throws Exception {
    var acknowledged = new AtomicInteger();
    var threads = new ArrayList<Thread>();
    List<int[]> progress = new ArrayList<>();
    for (int t = 0; t < 8; t++) {
      int lane = t;
      int[] done = new int[1];
      progress.add(done);
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try (RawPeer peer = opened()) {
                  for (int i = 1; i < 1_000_000; i++) {
                    byte[] data = ByteBuffer.allocate(4).putInt(i).array();
                    if (peer.error(Wire.Command.WRITE, 0, lane * 4L, 4, data) != 0) {
                      return;
                    }
                    done[0] = i;
                    acknowledged.incrementAndGet();
                  }
                } catch (IOException _) {
                  // The server ended.
                }
              }));
    }
    Await.until(() -> acknowledged.get() > 2000);
    server.close();
    for (Thread thread : threads) {
      thread.join();
    }

    for (int lane = 0; lane < 8; lane++) {
      assertThat(ByteBuffer.wrap(node.copy(lane * 4, 4)).getInt())
          .isGreaterThanOrEqualTo(progress.get(lane)[0]);
    }
  }

  @Test
  void saysWhenTheLastClientHasLeft() throws Exception {
    var left = new CountDownLatch(1);
    Thread.ofVirtual()
        .start(() -> {
          try {
            server.awaitLastClient();
            left.countDown();
          } catch (InterruptedException e) {
            throw new AssertionError(e);
          }
        });
    try (RawPeer lister = new RawPeer(socket).greeted()) {
      lister.ask(Wire.Option.LIST, new byte[0]);
      lister.ask(Wire.Option.ABORT, new byte[0]);
      assertThat(lister.closedByServer()).isTrue();
    }
    Await.until(() -> server.connections() == 0);
    assertThat(left.getCount()).isEqualTo(1);
    try (RawPeer peer = opened()) {
      peer.request(Wire.Command.DISC, 0, 0, 0, 0);
      assertThat(peer.closedByServer()).isTrue();
    }
    left.await();
  }
}
