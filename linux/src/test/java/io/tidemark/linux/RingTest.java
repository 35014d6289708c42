// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.BitSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Skipped aloud where the kernel refuses rings.
class RingTest {
  private static final int BLOCK = 4096;

  @TempDir Path dir;

  private static Ring ring(int entries) throws IOException {
    try {
      return Ring.open(entries);
    } catch (LinuxException e) {
      return abort("no io_uring here: " + e.getMessage());
    }
  }

  private static ByteBuffer block(int fill) {
    ByteBuffer block = ByteBuffer.allocateDirect(2 * BLOCK).alignedSlice(BLOCK).slice(0, BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      block.put(i, (byte) fill);
    }
    return block;
  }

  @Test
  void writesAndReadsManyBlocksAndHandsBackEachTagOnce() throws IOException {
    Path path = Files.write(dir.resolve("file"), new byte[64 * BLOCK]);
    try (Ring ring = ring(64);
        var file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE)) {
      ByteBuffer[] blocks = new ByteBuffer[64];
      for (int i = 0; i < 64; i++) {
        blocks[i] = block(i);
        ring.write(file, blocks[i], (long) i * BLOCK, i);
      }
      assertThat(ring.room()).isZero();
      takeAll(ring, 64);
      for (int i = 0; i < 64; i++) {
        blocks[i] = block(-1);
        ring.read(file, blocks[i], (long) i * BLOCK, i);
      }
      takeAll(ring, 64);
      for (int i = 0; i < 64; i++) {
        assertThat(blocks[i]).as("block %s", i).isEqualTo(block(i));
      }
    }
    assertThat(Files.readAllBytes(path)[63 * BLOCK]).isEqualTo((byte) 63);
  }

  private static void takeAll(Ring ring, int count) throws IOException {
    var seen = new BitSet();
    while (seen.cardinality() < count) {
      ring.enter(true);
      while (ring.take()) {
        assertThat(ring.result()).isEqualTo(BLOCK);
        assertThat(seen.get((int) ring.tag())).isFalse();
        seen.set((int) ring.tag());
      }
    }
  }

  @Test
  void goesRoundItsQueuesManyTimes() throws IOException {
    Path path = Files.write(dir.resolve("file"), new byte[BLOCK]);
    try (Ring ring = ring(4);
        var file = LinuxFile.open(path, LinuxFile.Access.READ)) {
      ByteBuffer into = block(9);
      for (int i = 0; i < 1000; i++) {
        ring.read(file, into, 0, i);
        do {
          ring.enter(true);
        } while (!ring.take());
        assertThat(ring.tag()).isEqualTo(i);
        assertThat(ring.take()).isFalse();
      }
    }
  }

  @Test
  void tellsTheErrorOfTheOneRequestThatFailed() throws IOException {
    Path path = Files.write(dir.resolve("file"), new byte[BLOCK]);
    try (Ring ring = ring(4);
        var file = LinuxFile.open(path, LinuxFile.Access.READ)) {
      ring.write(file, block(1), 0, 77);
      do {
        ring.enter(true);
      } while (!ring.take());
      assertThat(ring.tag()).isEqualTo(77);
      assertThat(ring.result()).isEqualTo(-Errno.EBADF);
    }
  }

  @Test
  void findsTheDescriptorOfASocketAndSeesWhenItCanBeRead() throws IOException {
    Path address = dir.resolve("s");
    try (Ring ring = ring(4);
        ServerSocketChannel listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listening.bind(UnixDomainSocketAddress.of(address));
      try (SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(address));
          SocketChannel other = SocketChannel.open(UnixDomainSocketAddress.of(address));
          SocketChannel server = listening.accept();
          SocketDescriptor found = SocketDescriptor.of(server).orElseThrow()) {
        assertThat(server.getOption(java.net.StandardSocketOptions.SO_LINGER)).isEqualTo(-1);
        ring.poll(found, Ring.READABLE, 1);
        ring.enter(false);
        assertThat(ring.take()).isFalse();
        assertThat(client.write(ByteBuffer.wrap(new byte[] {5}))).isEqualTo(1);
        do {
          ring.enter(true);
        } while (!ring.take());
        assertThat(ring.result() & Ring.READABLE).isNotZero();

        assertThat(found.send(block(3))).isEqualTo(BLOCK);
        ByteBuffer got = ByteBuffer.allocate(1);
        assertThat(client.read(got)).isEqualTo(1);
        assertThat(got.get(0)).isEqualTo((byte) 3);
        assertThat(other.isConnected()).isTrue();
      }
    }
  }

  /// Both ends of a connection, and the descriptor of the second.
  private record Ends(SocketChannel client, SocketChannel server, SocketDescriptor found)
      implements AutoCloseable {
    static Ends open(Path address) throws IOException {
      try (ServerSocketChannel listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
        listening.bind(UnixDomainSocketAddress.of(address));
        SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(address));
        SocketChannel server = listening.accept();
        return new Ends(client, server, SocketDescriptor.of(server).orElseThrow());
      }
    }

    @Override
    public void close() throws IOException {
      found.close();
      server.close();
      client.close();
    }
  }

  @Test
  void sendsNothingToAPeerThatDoesNotRead() throws IOException {
    try (Ends ends = Ends.open(dir.resolve("s"))) {
      ByteBuffer bytes = ByteBuffer.allocateDirect(1 << 20);
      int most = 100;
      while (ends.found().send(bytes.clear()) > 0 && most > 0) {
        most--;
      }
      assertThat(most).isPositive();
      assertThat(ends.client().isConnected()).isTrue();
    }
  }

  @Test
  void receivesWhatIsThereAndDoesNotWait() throws IOException {
    try (Ends ends = Ends.open(dir.resolve("s"))) {
      ByteBuffer into = ByteBuffer.allocateDirect(8);
      assertThat(ends.found().receive(into)).isZero();
      ends.client().write(ByteBuffer.wrap(new byte[] {1, 2, 3}));
      assertThat(ends.found().receive(into)).isEqualTo(3);
      assertThat(into.position()).isEqualTo(3);
      assertThat(into.get(2)).isEqualTo((byte) 3);
      assertThat(ends.found().receive(into)).isZero();
      ends.client().shutdownOutput();
      assertThat(ends.found().receive(into)).isEqualTo(-1);
    }
  }
}
