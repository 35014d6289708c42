// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static java.nio.charset.StandardCharsets.US_ASCII;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;

/// An NBD client that asks, and reads its answers when the test says so. By the oldest handshake,
/// EXPORT_NAME, with simple replies or in chunks.
final class SlowReader implements AutoCloseable {
  private static final long OPTION = 0x49484156454F5054L;
  private static final int READ_REPLY_BYTES = 16;

  private static final int CHUNK_BYTES = 20;

  private final SocketChannel channel;
  private final boolean chunked;
  private long asked;
  private long taken;

  SlowReader(Path socket, String export, boolean chunked) throws IOException {
    this.chunked = chunked;
    channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    channel.connect(UnixDomainSocketAddress.of(socket));
    receive(18);
    byte[] name = export.getBytes(US_ASCII);
    var hello = ByteBuffer.allocate(4 + 16 + 16 + name.length).putInt(3);
    if (chunked) {
      hello.putLong(OPTION).putInt(8).putInt(0);
    }
    hello.putLong(OPTION).putInt(1).putInt(name.length).put(name).flip();
    channel.write(hello);
    receive((chunked ? 20 : 0) + 10);
  }

  /// Sends a request to read.
  void ask(long offset, int length) throws IOException {
    var request = ByteBuffer.allocate(28);
    request.putInt(0x25609513).putInt(0).putLong(asked++).putLong(offset).putInt(length).flip();
    channel.write(request);
  }

  /// What the next request, of this length, is answered with.
  byte[] take(int length) throws IOException {
    if (chunked) {
      return takeChunks(length);
    }
    ByteBuffer head = receive(READ_REPLY_BYTES);
    assertThat(head.getInt()).as("magic").isEqualTo(0x67446698);
    assertThat(head.getInt()).as("error").isZero();
    assertThat(head.getLong()).as("cookie").isEqualTo(taken++);
    return receive(length).array();
  }

  private byte[] takeChunks(int length) throws IOException {
    var all = ByteBuffer.allocate(length);
    boolean done;
    do {
      ByteBuffer head = receive(CHUNK_BYTES);
      assertThat(head.getInt()).as("magic").isEqualTo(0x668e33ef);
      done = head.getShort() == 1;
      short type = head.getShort();
      assertThat(head.getLong()).as("cookie").isEqualTo(taken);
      ByteBuffer payload = receive(head.getInt());
      switch (type) {
        case 0 -> assertThat(done).as("an empty chunk ends the reply").isTrue();
        case 1 -> all.put(payload.position(Long.BYTES)); // data come in order
        case 2 -> all.position(all.position() + payload.getInt(Long.BYTES));
        default -> throw new AssertionError("chunk type " + type);
      }
    } while (!done);
    assertThat(all.hasRemaining()).as("whether bytes are missing").isFalse();
    taken++;
    return all.array();
  }

  private ByteBuffer receive(int bytes) throws IOException {
    var into = ByteBuffer.allocate(bytes);
    while (into.hasRemaining()) {
      assertThat(channel.read(into)).as("bytes of the server").isPositive();
    }
    return into.flip();
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
