// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.TransportException;
import io.tidemark.testkit.Seeds;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Servers that lie. The outcome is an exception of the client, never a hang or a wrong answer.
class NbdClientHostileTest {
  private static final int SIZE = 1 << 20;

  @TempDir Path folder;
  private Path socket;
  private ServerSocketChannel listener;

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("liar.sock");
    listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listener.bind(UnixDomainSocketAddress.of(socket));
  }

  @AfterEach
  void close() throws IOException {
    listener.close();
  }

  /// Serves each connection with `script`, then ends it.
  private void serve(Script script) {
    Thread.ofVirtual()
        .start(() -> {
          while (true) {
            try (SocketChannel channel = listener.accept()) {
              script.run(channel, new DataInputStream(Channels.newInputStream(channel)));
            } catch (IOException e) {
              if (!listener.isOpen()) {
                return;
              }
            }
          }
        });
  }

  private interface Script {
    void run(SocketChannel channel, DataInputStream in) throws IOException;
  }

  private static void send(SocketChannel channel, ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
  }

  /// What an honest server says up to transmission, in answer to our client.
  private static ByteBuffer handshake() {
    ByteBuffer all = ByteBuffer.allocate(4096);
    all.putLong(Wire.Magic.NBD).putLong(Wire.Magic.OPTION).putShort((short) 3);
    reply(all, Wire.Option.EXTENDED_HEADERS, Wire.Rep.ERR_UNSUP, 0);
    reply(all, Wire.Option.STRUCTURED_REPLY, Wire.Rep.ACK, 0);
    reply(all, Wire.Option.SET_META_CONTEXT, Wire.Rep.META_CONTEXT, 19).putInt(1);
    all.put("base:allocation".getBytes(java.nio.charset.StandardCharsets.UTF_8));
    reply(all, Wire.Option.SET_META_CONTEXT, Wire.Rep.ACK, 0);
    reply(all, Wire.Option.GO, Wire.Rep.INFO, 12).putShort((short) 0).putLong(SIZE);
    all.putShort((short) 0x6d);
    reply(all, Wire.Option.GO, Wire.Rep.INFO, 14).putShort((short) 3);
    all.putInt(1).putInt(4096).putInt(32 << 20);
    return reply(all, Wire.Option.GO, Wire.Rep.ACK, 0).flip();
  }

  private static ByteBuffer reply(ByteBuffer all, int option, int type, int length) {
    return all.putLong(Wire.Magic.OPTION_REPLY).putInt(option).putInt(type).putInt(length);
  }

  /// Bytes the client sends until it is in transmission.
  private static final int CLIENT_HANDSHAKE =
      4 + 16 + 16 + (16 + 4 + 3 + 4 + 4 + 15) + (16 + 4 + 3 + 6);

  private NbdClient connect() throws BlockException {
    var options = new ClientOptions(Duration.ofSeconds(5), Duration.ZERO, 4, 1, List.of());
    return NbdClient.connect(NbdUri.unix(socket, "vda"), options);
  }

  @Test
  void takesTheHonestHandshakeOfThisTest() throws Exception {
    serve((channel, in) -> {
      send(channel, handshake());
      in.readNBytes(CLIENT_HANDSHAKE);
      in.read();
    });
    try (NbdClient client = connect()) {
      assertThat(client.virtualSize()).isEqualTo(SIZE);
      assertThat(client.readOnly()).isFalse();
    }
  }

  @Test
  void failsWhenTheHandshakeEndsEarly() {
    int length = handshake().remaining();
    for (int cut = 0; cut < length; cut += 5) {
      int bytes = cut;
      serveOnce((channel, in) -> {
        send(channel, handshake().limit(bytes));
        channel.shutdownOutput();
        in.readAllBytes();
      });
      assertThatThrownBy(this::connect)
          .as("after %s bytes", cut)
          .isInstanceOf(BlockException.class);
    }
  }

  private void serveOnce(Script script) {
    Thread.ofVirtual()
        .start(() -> {
          try (SocketChannel channel = listener.accept()) {
            script.run(channel, new DataInputStream(Channels.newInputStream(channel)));
          } catch (IOException _) {
            // The client hung up, as it should.
          }
        });
  }

  @ParameterizedTest
  @Seeds(300)
  void survivesAHandshakeWithWrongBytes(long seed) {
    var random = new Random(seed);
    serveOnce((channel, in) -> {
      ByteBuffer bytes = handshake();
      for (int i = random.nextInt(4); i >= 0; i--) {
        int at = random.nextInt(bytes.limit());
        bytes.put(at, (byte) (random.nextBoolean() ? 0xff : random.nextInt()));
      }
      send(channel, bytes);
      channel.shutdownOutput();
      in.readAllBytes();
    });
    try (NbdClient client = connect()) {
      assertThat(client.virtualSize()).isNotNegative();
    } catch (BlockException e) {
      assertThat(e).hasMessageContaining("nbd+unix");
    }
  }

  @Test
  void givesUpOnAServerThatSaysNothing() {
    serveOnce((channel, in) -> in.readAllBytes());
    var options = new ClientOptions(Duration.ofMillis(50), Duration.ZERO, 4, 1, List.of());
    assertThatThrownBy(() -> NbdClient.connect(NbdUri.unix(socket, "vda"), options))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("within");
  }

  private static ByteBuffer chunk(int flags, int type, long cookie, int length, byte... payload) {
    ByteBuffer chunk = ByteBuffer.allocate(20 + payload.length);
    chunk.putInt(Wire.Magic.STRUCTURED_REPLY).putShort((short) flags).putShort((short) type);
    return chunk.putLong(cookie).putInt(length).put(payload).flip();
  }

  private static ByteBuffer data(long cookie, long offset, int count) {
    byte[] payload = ByteBuffer.allocate(8 + count).putLong(offset).array();
    return chunk(1, Wire.Chunk.OFFSET_DATA, cookie, payload.length, payload);
  }

  private static ByteBuffer hole(long cookie, long offset, int count) {
    byte[] payload = ByteBuffer.allocate(12).putLong(offset).putInt(count).array();
    return chunk(1, Wire.Chunk.OFFSET_HOLE, cookie, 12, payload);
  }

  private static ByteBuffer simple(long cookie, int error) {
    return ByteBuffer.allocate(16)
        .putInt(Wire.Magic.SIMPLE_REPLY)
        .putInt(error)
        .putLong(cookie)
        .flip();
  }

  /// Answers to a read of 4096 bytes at 8192 with cookie 0.
  static Stream<ByteBuffer> wrongReadReplies() {
    return Stream.of(
        simple(0, 0),
        simple(1, 0),
        data(1, 8192, 4096),
        data(0, 8191, 4096),
        data(0, 8193, 4096),
        data(0, 8192, 4095),
        data(0, 8192, 5000),
        data(0, -1, 4096),
        data(0, Long.MAX_VALUE, 4096),
        hole(0, 8192, 4095),
        hole(0, 8192, -1),
        hole(0, 8192, 0),
        hole(0, 12288, 1),
        chunk(1, Wire.Chunk.NONE, 0, 0),
        chunk(0, Wire.Chunk.NONE, 0, 0),
        chunk(1, Wire.Chunk.OFFSET_DATA, 0, 8, new byte[8]),
        chunk(1, Wire.Chunk.OFFSET_DATA, 0, -1, new byte[100]),
        chunk(1, Wire.Chunk.OFFSET_HOLE, 0, 11, new byte[11]),
        chunk(1, Wire.Chunk.BLOCK_STATUS, 0, 12, new byte[12]),
        chunk(1, Wire.Chunk.ERROR, 0, 5, new byte[5]),
        chunk(1, Wire.Chunk.ERROR, 0, 6, new byte[6]),
        chunk(1, Wire.Chunk.ERROR, 0, 6, new byte[] {0, 0, 0, 5, 0, 1}),
        chunk(1, Wire.Chunk.ERROR, 0, 1 << 30, new byte[100]),
        chunk(1, 77, 0, 0),
        ByteBuffer.allocate(16));
  }

  @ParameterizedTest
  @MethodSource("wrongReadReplies")
  void failsAReadWhoseReplyDoesNotFitIt(ByteBuffer reply) throws Exception {
    serve((channel, in) -> {
      send(channel, handshake());
      in.readNBytes(CLIENT_HANDSHAKE + Wire.Size.REQUEST);
      send(channel, reply);
      channel.shutdownOutput();
      in.readAllBytes();
    });
    try (NbdClient client = connect()) {
      assertThatThrownBy(() -> client.read(8192, ByteBuffer.allocate(4096)))
          .isInstanceOf(TransportException.class);
    }
  }

  private static ByteBuffer status(int context, int... fields) {
    ByteBuffer payload = ByteBuffer.allocate(4 + 4 * fields.length).putInt(context);
    for (int field : fields) {
      payload.putInt(field);
    }
    return chunk(1, Wire.Chunk.BLOCK_STATUS, 0, payload.capacity(), payload.array());
  }

  static Stream<ByteBuffer> wrongStatusReplies() {
    return Stream.of(
        status(1),
        status(2, 4096, 0),
        status(1, 4096),
        status(1, 0, 0),
        status(1, 4096, 0, 0, 3),
        simple(0, 0),
        chunk(1, Wire.Chunk.NONE, 0, 0),
        data(0, 0, 4096));
  }

  @ParameterizedTest
  @MethodSource("wrongStatusReplies")
  void failsABlockStatusWhoseReplyDoesNotFitIt(ByteBuffer reply) throws Exception {
    serve((channel, in) -> {
      send(channel, handshake());
      in.readNBytes(CLIENT_HANDSHAKE + Wire.Size.REQUEST);
      send(channel, reply);
      channel.shutdownOutput();
      in.readAllBytes();
    });
    try (NbdClient client = connect()) {
      assertThatThrownBy(() -> client.extents(0, 65536, _ -> true))
          .isInstanceOf(TransportException.class);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3, 512})
  void readsAndChangesAtAnyOffsetOfAServerWithLargeBlocks(int step) throws Exception {
    byte[] disk = new byte[SIZE];
    serve((channel, in) -> serveBlocks(channel, in, disk));
    byte[] model = new byte[SIZE];
    var random = new Random(step);
    try (NbdClient client = connect()) {
      for (int i = 0; i < 60; i++) {
        int offset = random.nextInt((SIZE - 20000) / step) * step;
        int length = 1 + random.nextInt(10000);
        if (i % 3 == 0) {
          client.writeZeroes(offset, length, io.tidemark.block.ZeroMode.MAY_UNMAP);
          java.util.Arrays.fill(model, offset, offset + length, (byte) 0);
        } else {
          byte[] bytes = new byte[length];
          random.nextBytes(bytes);
          client.write(offset, ByteBuffer.wrap(bytes));
          System.arraycopy(bytes, 0, model, offset, length);
        }
        ByteBuffer back = ByteBuffer.allocate(length + 5000);
        client.read(offset, back);
        assertThat(back.array())
            .isEqualTo(java.util.Arrays.copyOfRange(model, offset, offset + length + 5000));
      }
    }
    assertThat(disk).isEqualTo(model);
  }

  /// A server with a minimum block of 4096 that hangs up on any request that is not aligned.
  private static void serveBlocks(SocketChannel channel, DataInputStream in, byte[] disk)
      throws IOException {
    ByteBuffer hello = handshake();
    hello.putInt(hello.limit() - 20 - 12, 4096);
    send(channel, hello);
    in.readNBytes(CLIENT_HANDSHAKE);
    while (in.readInt() == Wire.Magic.REQUEST) {
      in.readShort();
      int type = in.readShort();
      long cookie = in.readLong();
      int offset = (int) in.readLong();
      int length = in.readInt();
      if (((offset | length) & 4095) != 0) {
        return;
      }
      switch (type) {
        case Wire.Command.READ -> {
          byte[] payload = ByteBuffer.allocate(8 + length).putLong(offset).array();
          System.arraycopy(disk, offset, payload, 8, length);
          send(channel, chunk(1, Wire.Chunk.OFFSET_DATA, cookie, payload.length, payload));
        }
        case Wire.Command.WRITE -> {
          in.readFully(disk, offset, length);
          send(channel, simple(cookie, 0));
        }
        case Wire.Command.WRITE_ZEROES -> {
          java.util.Arrays.fill(disk, offset, offset + length, (byte) 0);
          send(channel, simple(cookie, 0));
        }
        default -> {
          return;
        }
      }
    }
  }
}
