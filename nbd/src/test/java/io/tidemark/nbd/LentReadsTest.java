// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Await;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Reads that are sent from where the node has their bytes.
class LentReadsTest {
  private static final int SIZE = 8 << 20;
  private static final int KIB = 1 << 10;

  @TempDir Path folder;
  private Path socket;
  private final byte[] content = random();
  private final ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private static byte[] random() {
    byte[] bytes = new byte[SIZE];
    new Random(42).nextBytes(bytes);
    return bytes;
  }

  private LendingNode serve(int piece) {
    var node = new LendingNode(content, piece);
    server.addExport(Export.of("vda", node));
    return node;
  }

  private RawPeer peer(Framing framing) throws IOException {
    RawPeer peer = new RawPeer(socket).greeted();
    return switch (framing) {
      case SIMPLE -> peer.go("vda");
      case STRUCTURED -> peer.structured().go("vda");
      case EXTENDED -> peer.extended().go("vda");
    };
  }

  private byte[] wanted(int offset, int length) {
    return Arrays.copyOfRange(content, offset, offset + length);
  }

  @ParameterizedTest
  @EnumSource(Framing.class)
  void everyReadIsWhatTheDiskHolds(Framing framing) throws IOException {
    LendingNode node = serve(100_000);
    var random = new Random(7);
    try (RawPeer peer = peer(framing)) {
      for (int i = 0; i < 200; i++) {
        int length = 1 + random.nextInt(i % 3 == 0 ? 2 << 20 : 300_000);
        int offset = random.nextInt(SIZE - length);
        node.lendsTo = i % 2 == 0 ? SIZE : offset + random.nextInt(length);
        int unfragmented = i % 5 == 0 && framing.chunked() ? Wire.CommandFlag.DF : 0;
        assertThat(peer.read(offset, length, unfragmented))
            .as("read %d of seed 7: %d bytes at %d", i, length, offset)
            .isEqualTo(wanted(offset, length));
      }
    }
    assertThat(node.lent.get() > 0).as("whether anything was lent").isEqualTo(framing.chunked());
  }

  @ParameterizedTest
  @ValueSource(ints = {64 * KIB, 300 * KIB, 516 * KIB, 2048 * KIB})
  void whatMayNotBeFragmentedComesInOneChunk(int length) throws IOException {
    serve(SIZE);
    try (RawPeer peer = peer(Framing.STRUCTURED)) {
      peer.request(Wire.Command.READ, Wire.CommandFlag.DF, 1, 77, length);
      RawPeer.Reply reply = peer.next(0);
      assertThat(reply.chunk()).isEqualTo(Wire.Chunk.OFFSET_DATA);
      assertThat(reply.done()).isTrue();
      assertThat(Arrays.copyOfRange(reply.payload(), 8, reply.payload().length))
          .isEqualTo(wanted(77, length));
    }
  }

  /// Many small pieces would each cost a system call, and wake the client.
  @Test
  void smallPiecesAreReadIntoTheBuffer() throws IOException {
    LendingNode node = serve(SocketBorrower.LEAST_PIECE - 1);
    try (RawPeer peer = peer(Framing.STRUCTURED)) {
      assertThat(peer.read(0, 1 << 20, 0)).isEqualTo(wanted(0, 1 << 20));
    }
    assertThat(node.lent).hasValue(0);
  }

  /// The client reads nothing until it has asked for more than the socket holds, and the server has
  /// found that out.
  @ParameterizedTest
  @ValueSource(ints = {64 * KIB, 256 * KIB, 1024 * KIB})
  void aCrowdedSocketGetsEveryByteOnce(int length) throws IOException {
    LendingNode node = serve(SIZE);
    int count = SIZE / length;
    try (RawPeer peer = peer(Framing.STRUCTURED)) {
      for (int i = 0; i < count; i++) {
        peer.request(Wire.Command.READ, 0, i, (long) i * length, length);
      }
      Await.until(() -> node.read.get() > 0);
      for (int i = 0; i < count; i++) {
        byte[] got = new byte[length];
        RawPeer.Reply reply;
        do {
          reply = peer.next(0);
          assertThat(reply.cookie()).isEqualTo(i);
          if (reply.chunk() == Wire.Chunk.OFFSET_DATA) {
            ByteBuffer data = reply.data();
            int at = (int) (data.getLong() - (long) i * length);
            data.get(got, at, data.remaining());
          }
        } while (!reply.done());
        assertThat(got).as("reply %d", i).isEqualTo(wanted(i * length, length));
      }
    }
    assertThat(node.lent.get()).isPositive().isLessThan(SIZE);
  }

  @Test
  void smallReadsAndLargeOnesKeepTheirOrder() throws IOException {
    serve(SIZE);
    try (RawPeer peer = peer(Framing.STRUCTURED)) {
      for (int i = 0; i < 8; i++) {
        peer.request(Wire.Command.READ, 0, i, i * 1000L, i % 2 == 0 ? 512 : 128 * KIB);
      }
      for (int i = 0; i < 8; i++) {
        RawPeer.Reply reply = peer.next(0);
        assertThat(reply.cookie()).isEqualTo(i);
        int length = i % 2 == 0 ? 512 : 128 * KIB;
        ByteBuffer data = reply.data();
        assertThat(data.getLong()).isEqualTo(i * 1000L);
        assertThat(Arrays.copyOfRange(reply.payload(), 8, reply.payload().length))
            .isEqualTo(wanted(i * 1000, length));
        while (!reply.done()) {
          reply = peer.next(0);
        }
      }
    }
  }

  /// Bytes of the chunk are in the socket when the rest of it cannot be read.
  @ParameterizedTest
  @EnumSource(
      value = Framing.class,
      names = {"STRUCTURED", "EXTENDED"})
  void aFailureBehindTheHeaderIsToldAndTheConnectionGoesOn(Framing framing) throws IOException {
    LendingNode node = serve(SIZE);
    int bad = 600_000; // in the second chunk
    node.lendsTo = bad;
    node.readsTo = bad;
    try (RawPeer peer = peer(framing)) {
      peer.request(Wire.Command.READ, 0, 1, 0, 1 << 20);
      List<RawPeer.Reply> replies = new ArrayList<>();
      do {
        replies.add(peer.next(0));
      } while (!replies.getLast().done());
      assertThat(replies)
          .extracting(RawPeer.Reply::chunk)
          .containsExactly(Wire.Chunk.OFFSET_DATA, Wire.Chunk.OFFSET_DATA, Wire.Chunk.ERROR_OFFSET);
      assertThat(replies.getFirst().payload()).endsWith(wanted(0, 512 * KIB));
      int known = bad - 512 * KIB;
      assertThat(Arrays.copyOfRange(replies.get(1).payload(), 8, 8 + known))
          .isEqualTo(wanted(512 * KIB, known));
      RawPeer.Reply error = replies.getLast();
      assertThat(error.error()).isEqualTo(NbdErrno.EIO.number());
      assertThat(error.data().getLong(error.payload().length - 8)).isEqualTo(bad);
      assertThat(peer.read(0, 200_000, 0)).isEqualTo(wanted(0, 200_000));
    }
  }

  /// Nothing of the chunk was sent: only the error is.
  @Test
  void aFailureBeforeTheHeaderSendsNoChunk() throws IOException {
    LendingNode node = serve(SIZE);
    node.lendsTo = 0;
    node.readsTo = 0;
    try (RawPeer peer = peer(Framing.STRUCTURED)) {
      peer.request(Wire.Command.READ, 0, 1, 4096, 1 << 20);
      RawPeer.Reply reply = peer.next(0);
      assertThat(reply.chunk()).isEqualTo(Wire.Chunk.ERROR_OFFSET);
      assertThat(reply.done()).isTrue();
      assertThat(reply.data().getLong(reply.payload().length - 8)).isEqualTo(4096);
      node.readsTo = SIZE;
      assertThat(peer.read(4096, 1 << 20, 0)).isEqualTo(wanted(4096, 1 << 20));
    }
  }
}
