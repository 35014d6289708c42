// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Await;
import io.tidemark.testkit.Footprint;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Clients that say nothing have no thread, and lose nothing by it.
class SilentClientsTest {
  private static final int SIZE = 1 << 20;
  private static final int BLOCK = 512;

  @TempDir Path folder;
  private Path socket;
  private final MemoryNode node = new MemoryNode(SIZE);
  private final ExportServer server = new ExportServer(ServerLimits.defaults().withThreadsKept(0));
  private final List<RawPeer> peers = new ArrayList<>();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.addExport(Export.of("vda", node));
    server.listen(socket);
    for (int at = 0; at < SIZE; at += BLOCK) {
      node.write(at, ByteBuffer.wrap(block(at)));
    }
  }

  @AfterEach
  void close() throws IOException {
    for (RawPeer peer : peers) {
      peer.close();
    }
    server.close();
    Await.until(() -> Footprint.threads("nbd-spare") == 0);
    Await.until(() -> threads() == 0 && Footprint.threads("nbd-resting") == 0);
  }

  private static byte[] block(int at) {
    byte[] bytes = new byte[BLOCK];
    Arrays.fill(bytes, (byte) (at / BLOCK * 31));
    return bytes;
  }

  private RawPeer opened() throws IOException {
    RawPeer peer = new RawPeer(socket).greeted().structured().go("vda");
    peers.add(peer);
    return peer;
  }

  private static long threads() {
    return Footprint.threads("nbd-client");
  }

  private static void awaitRest() {
    Await.until(() -> threads() == 0);
  }

  private void assertServed(RawPeer peer, int at) throws IOException {
    assertThat(peer.read(at, BLOCK, 0)).isEqualTo(block(at));
  }

  @Test
  void haveNoThreadAndAreAnswered() throws IOException {
    for (int i = 0; i < 200; i++) {
      opened();
    }
    for (int round = 0; round < 3; round++) {
      awaitRest();
      assertThat(Footprint.threads("nbd-resting")).isEqualTo(1);
      assertThat(server.connections()).isEqualTo(200);
      for (int i = 0; i < 200; i++) {
        assertServed(peers.get(i), (i + round) * BLOCK);
      }
    }
  }

  @Test
  void keepTheirThreadsWhereTheyAreFew() throws IOException {
    Path path = folder.resolve("few.sock");
    try (var few = new ExportServer(ServerLimits.defaults().withThreadsKept(4))) {
      few.addExport(Export.of("vda", node));
      few.listen(path);
      for (int i = 0; i < 4; i++) {
        peers.add(new RawPeer(path).greeted().structured().go("vda"));
      }
      for (int i = 0; i < 2 * PollingSocket.SHORT_RESTS; i++) {
        Await.until(() -> sleeping() == 4);
        assertServed(peers.get(i % 4), i * BLOCK);
      }
      peers.add(new RawPeer(path).greeted().structured().go("vda"));
      Await.until(() -> threads() == 4); // those that sleep sleep on
      for (int i = 0; i < 5; i++) {
        assertServed(peers.get(i), i * BLOCK);
      }
      awaitRest();
    }
  }

  @Test
  void mayAllSpeakAtOnce() throws IOException {
    for (int i = 0; i < 1000; i++) {
      opened();
    }
    awaitRest();
    for (int i = 0; i < 1000; i++) {
      peers.get(i).request(Wire.Command.READ, 0, i, (long) i * BLOCK, BLOCK);
    }
    for (int i = 0; i < 1000; i++) {
      RawPeer.Reply reply = peers.get(i).next(BLOCK);
      assertThat(reply.cookie()).isEqualTo(i);
      assertThat(reply.data().position(Long.BYTES)).isEqualTo(ByteBuffer.wrap(block(i * BLOCK)));
    }
    awaitRest();
    for (RawPeer peer : peers) {
      peer.close();
    }
    Await.until(() -> server.connections() == 0);
  }

  @Test
  void keepTheirThreadWhenTheyGoOn() throws IOException {
    RawPeer peer = opened();
    for (int i = 0; i < PollingSocket.SHORT_RESTS; i++) {
      awaitRest();
      assertServed(peer, i * BLOCK);
    }
    for (int i = 0; i < 3; i++) {
      Await.until(SilentClientsTest::oneSleeps);
      assertServed(peer, i * BLOCK);
    }
  }

  private static boolean oneSleeps() {
    return sleeping() > 0;
  }

  private static long sleeping() {
    return Thread.getAllStackTraces().entrySet().stream()
        .filter(entry -> entry.getKey().getName().startsWith("nbd-client"))
        .filter(entry ->
            Arrays.stream(entry.getValue())
                .anyMatch(frame -> frame.getMethodName().equals("asleep")))
        .count();
  }

  @Test
  void giveLargeBuffersBack() throws IOException {
    RawPeer peer = opened();
    assertThat(peer.read(0, SIZE, 0)).isEqualTo(node.copy(0, SIZE));
    awaitRest();
    long before = Footprint.directBytes();
    assertThat(opened().read(0, SIZE, 0)).isEqualTo(node.copy(0, SIZE));
    // It had the first one's buffer.
    assertThat(Footprint.directBytes() - before).isLessThan(BufferPool.SMALL);
    assertThat(peer.read(0, SIZE, 0)).isEqualTo(node.copy(0, SIZE));
  }

  @Test
  void areServedOnTheirThreadInTheMiddleOfARequest() throws IOException {
    RawPeer peer = opened();
    awaitRest();
    byte[] request = peer.bytesOf(Wire.Command.READ, 0, 5, 3 * BLOCK, BLOCK);
    for (int i = 0; i < request.length; i++) {
      peer.out.write(request, i, 1);
      if (i == 0 || i == 9) {
        Await.until(SilentClientsTest::oneSleeps);
      }
    }
    RawPeer.Reply reply = peer.next(BLOCK);
    assertThat(reply.data().position(Long.BYTES)).isEqualTo(ByteBuffer.wrap(block(3 * BLOCK)));
    awaitRest();
    assertServed(peer, 0);
  }

  @Test
  void mayLeaveInEveryWay() throws IOException {
    RawPeer polite = opened();
    RawPeer dead = opened();
    RawPeer half = opened();
    RawPeer wrong = opened();
    awaitRest();
    polite.request(Wire.Command.DISC, 0, 0, 0, 0);
    dead.close();
    half.channel.shutdownOutput();
    wrong.out.writeLong(42);
    assertThat(polite.closedByServer()).isTrue();
    assertThat(half.closedByServer()).isTrue();
    assertThat(wrong.closedByServer()).isTrue();
    Await.until(() -> server.connections() == 0);
  }

  @Test
  void endWithTheServer() throws Exception {
    for (int i = 0; i < 200; i++) {
      opened();
    }
    awaitRest();
    int descriptors = Footprint.descriptors();
    long start = System.nanoTime();
    server.close();
    assertThat(System.nanoTime() - start)
        .isLessThan(ServerLimits.defaults().closeTime().toNanos() / 2);
    assertThat(server.connections()).isZero();
    for (RawPeer peer : peers) {
      assertThat(peer.closedByServer()).isTrue();
    }
    // Listening socket, 200 connections.
    Await.until(() -> Footprint.descriptors() <= descriptors - 201);
    server.awaitLastClient();
  }

  @Test
  void endWithTheirExportAndNoOther() throws IOException {
    server.addExport(Export.of("vdb", node));
    RawPeer stays = new RawPeer(socket).greeted().structured().go("vdb");
    peers.add(stays);
    for (int i = 0; i < 20; i++) {
      opened();
    }
    awaitRest();
    assertThat(server.removeExport("vda")).isTrue();
    assertThat(server.connections()).isEqualTo(1);
    for (RawPeer peer : peers.subList(1, 21)) {
      assertThat(peer.closedByServer()).isTrue();
    }
    assertServed(stays, 0);
  }

  /// Some rest, some are about to, some were just woken.
  @Test
  void endWithTheServerWhereverTheyAre() throws IOException {
    for (int round = 0; round < 100; round++) {
      Path path = folder.resolve("r.sock");
      var other = new ExportServer(ServerLimits.defaults().withThreadsKept(round % 8));
      other.addExport(Export.of("vda", node));
      other.listen(path);
      for (int i = 0; i < 8; i++) {
        RawPeer peer = new RawPeer(path).greeted().structured().go("vda");
        peers.add(peer);
        if (i % 2 > 0) {
          peer.request(Wire.Command.READ, 0, i, 0, BLOCK);
        }
      }
      long start = System.nanoTime();
      if (round % 2 > 0) {
        other.close();
      } else {
        other.close(Duration.ZERO);
      }
      assertThat(other.connections()).isZero();
      assertThat(System.nanoTime() - start).isLessThan(1_500_000_000L);
      for (RawPeer peer : peers) {
        assertThat(peer.closedByServer()).isTrue();
        peer.close();
      }
      peers.clear();
    }
  }
}
