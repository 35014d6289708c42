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
/// EXPORT_NAME, and simple replies.
final class SlowReader implements AutoCloseable {
  private static final int READ_REPLY_BYTES = 16;

  private final SocketChannel channel;
  private long asked;
  private long taken;

  SlowReader(Path socket, String export) throws IOException {
    channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    channel.connect(UnixDomainSocketAddress.of(socket));
    receive(18);
    byte[] name = export.getBytes(US_ASCII);
    var hello = ByteBuffer.allocate(4 + 16 + name.length);
    hello.putInt(3).putLong(0x49484156454F5054L).putInt(1).putInt(name.length).put(name).flip();
    channel.write(hello);
    receive(10);
  }

  /// Sends a request to read.
  void ask(long offset, int length) throws IOException {
    var request = ByteBuffer.allocate(28);
    request.putInt(0x25609513).putInt(0).putLong(asked++).putLong(offset).putInt(length).flip();
    channel.write(request);
  }

  /// What the next request, of this length, is answered with.
  byte[] take(int length) throws IOException {
    ByteBuffer head = receive(READ_REPLY_BYTES);
    assertThat(head.getInt()).as("magic").isEqualTo(0x67446698);
    assertThat(head.getInt()).as("error").isZero();
    assertThat(head.getLong()).as("cookie").isEqualTo(taken++);
    return receive(length).array();
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
