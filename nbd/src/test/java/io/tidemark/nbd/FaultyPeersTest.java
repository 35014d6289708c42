// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Await;
import io.tidemark.testkit.Footprint;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// Peers that leave, lie, stall or come in crowds: what they cost when they are gone, and what
/// another client notices of them meanwhile.
class FaultyPeersTest {
  private static final int SIZE = 8 << 20;
  private static final int ROUNDS = 60;

  /// Direct memory that [BufferPool] may keep of `peers` connections that all sent large requests.
  private static long spare(int peers) {
    return Math.min(ServerLimits.defaults().bufferBytes(), peers * 2L * BufferPool.LARGE)
        + 256L * BufferPool.SMALL;
  }

  @TempDir Path folder;
  private Path socket;
  private final ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.addExport(Export.of("vda", new MemoryNode(SIZE)));
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private RawPeer opened() throws IOException {
    return new RawPeer(socket).greeted().structured().go("vda");
  }

  private static long serverThreads() {
    return Footprint.threads("nbd-client");
  }

  /// One way of being a nuisance; the socket is closed behind it without a word.
  private void misbehave(Random random) throws IOException {
    try (RawPeer peer = random.nextInt(4) == 0 ? new RawPeer(socket) : opened()) {
      switch (random.nextInt(7)) {
        case 0 -> {} // leaves at once
        case 1 -> peer.out.write(garbage(random)); // in the handshake or after it
        case 2 -> {
          byte[] half = new byte[random.nextInt(1 << 20)];
          peer.request(Wire.Command.WRITE, 0, 1, 0, 1 << 20, half); // dies in its payload
        }
        case 3 -> peer.out.write(new byte[] {0x25, 0x60, (byte) 0x95}); // in a header
        case 4 -> { // asks for much and reads none of it
          for (int i = 0; i < 8; i++) {
            peer.request(Wire.Command.READ, 0, i, 0, 1 << 20);
          }
        }
        case 5 -> peer.request(Wire.Command.WRITE, 0, 1, 0, 0xffff_ffffL); // far too large
        default -> { // closes one half, and hears the rest
          peer.request(Wire.Command.READ, 0, 1, 0, 4096);
          peer.channel.shutdownOutput();
          peer.closedByServer();
        }
      }
    } catch (IOException _) {
      // Dropped while it wrote: that is an outcome too.
    }
  }

  private static byte[] garbage(Random random) {
    byte[] bytes = new byte[1 + random.nextInt(20_000)];
    random.nextBytes(bytes);
    return bytes;
  }

  /// A client that goes on with its work: reads what it wrote, and notes how long each took.
  private final class Steady implements AutoCloseable {
    private final List<Long> nanos = new ArrayList<>();
    private final Thread thread;
    private volatile boolean stop;
    private volatile @Nullable Throwable fault;

    Steady() throws IOException {
      RawPeer peer = opened();
      thread = Thread.ofPlatform().start(() -> work(peer));
    }

    private void work(RawPeer peer) {
      try (peer) {
        for (long n = 1; !stop; n++) {
          byte[] bytes = ByteBuffer.allocate(4096).putLong(n).array();
          long start = System.nanoTime();
          if (peer.error(Wire.Command.WRITE, 0, SIZE - 4096, 4096, bytes) != 0
              || !Arrays.equals(peer.read(SIZE - 4096, 4096, 0), bytes)) {
            throw new AssertionError("request " + n);
          }
          nanos.add(System.nanoTime() - start);
        }
      } catch (IOException | RuntimeException | Error e) {
        fault = e;
      }
    }

    /// Ends it and says how long a write and a read took it at the median and at worst.
    String figures() throws InterruptedException {
      stop = true;
      thread.join();
      if (fault != null) {
        throw new AssertionError("the steady client failed", fault);
      }
      nanos.sort(null);
      return "%d rounds, median %d us, worst %d us"
          .formatted(nanos.size(), nanos.get(nanos.size() / 2) / 1000, nanos.getLast() / 1000);
    }

    long worstMillis() {
      return nanos.getLast() / 1_000_000;
    }

    @Override
    public void close() {
      stop = true;
    }
  }

  @ParameterizedTest
  @Seeds(4)
  void leaveNothingBehindAndDisturbNobody(long seed) throws Exception {
    try (Steady steady = new Steady()) {
      Await.until(() -> server.connections() == 1);
      int descriptors = Footprint.descriptors();
      long direct = Footprint.directBytes();
      var threads = new ArrayList<Thread>();
      for (int i = 0; i < 4; i++) {
        var random = new Random(seed * 4 + i);
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  for (int n = 0; n < ROUNDS; n++) {
                    try {
                      misbehave(random);
                    } catch (IOException e) {
                      throw new java.io.UncheckedIOException(e);
                    }
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      Await.until(() -> server.connections() == 1 && serverThreads() == 1);

      System.out.println("beside faulty peers: " + steady.figures());
      assertThat(steady.worstMillis()).isLessThan(5_000);
      Await.until(() -> Footprint.descriptors() <= descriptors);
      // Spare buffers stay in the pool, as many as were in use together.
      assertThat(Footprint.directBytes() - direct).isLessThanOrEqualTo(spare(5));
    }
  }

  /// Each connection costs two small buffers, and a thread while it is not silent, and is answered
  /// although all others are open; then nothing is left but the pool's spare buffers.
  @Test
  void aThousandConnectionsAtOnceAreServedAndForgotten() throws Exception {
    int descriptors = Footprint.descriptors();
    long direct = Footprint.directBytes();
    var peers = new ArrayList<RawPeer>();
    try {
      for (int i = 0; i < 1000; i++) {
        peers.add(opened());
      }
      assertThat(server.connections()).isEqualTo(1000);
      assertThat(Footprint.directBytes() - direct)
          .isLessThan(1000 * 2L * BufferPool.SMALL + (4 << 20));
      for (RawPeer peer : peers) {
        assertThat(peer.error(Wire.Command.WRITE, 0, 0, 4, new byte[4])).isZero();
      }
    } finally {
      for (RawPeer peer : peers) {
        peer.close();
      }
    }
    Await.until(() -> server.connections() == 0 && serverThreads() == 0);
    Await.until(() -> Footprint.descriptors() <= descriptors);
  }

  /// Sockets that open no export go when their time is over, whatever they have said, and not
  /// before; those that did stay however long they are silent.
  @Test
  void halfOpenHandshakesEndAndSilentClientsStay() throws Exception {
    Path other = folder.resolve("t.sock");
    try (var impatient =
        new ExportServer(ServerLimits.defaults().withHandshakeTime(Duration.ofSeconds(1)))) {
      impatient.addExport(Export.of("vda", new MemoryNode(SIZE)));
      impatient.listen(other);
      var silent = new RawPeer(other).greeted().go("vda");
      List<RawPeer> half = new ArrayList<>();
      for (int i = 0; i < 50; i++) {
        RawPeer peer = new RawPeer(other);
        half.add(peer);
        if (i % 2 > 0) {
          peer.out.writeInt(3);
          peer.out.write(new byte[] {'I', 'H', 'A', 'V'});
        }
      }
      for (RawPeer peer : half) {
        assertThat(peer.closedByServer()).isTrue();
        peer.close();
      }
      Await.until(() -> impatient.connections() == 1);
      assertThat(silent.read(0, 4096, 0)).hasSize(4096);
      silent.close();
    }
  }

  /// A peer that sips gets every byte right, while others are answered in between.
  @Test
  void aSlowReaderGetsItsBytesAndHoldsNobodyUp() throws Exception {
    byte[] content = new byte[2 << 20];
    new Random(3).nextBytes(content);
    try (RawPeer slow = opened();
        RawPeer other = opened()) {
      assertThat(other.error(Wire.Command.WRITE, 0, 0, content.length, content)).isZero();
      slow.request(Wire.Command.READ, Wire.CommandFlag.DF, 9, 0, content.length);
      byte[] header = slow.in.readNBytes(Wire.Size.CHUNK + Wire.Size.OFFSET);
      assertThat(header).isNotEmpty();
      byte[] got = new byte[content.length];
      for (int at = 0; at < got.length; at += 1 << 16) {
        slow.in.readFully(got, at, 1 << 16);
        assertThat(other.read(SIZE - 4096, 4096, 0)).hasSize(4096);
      }
      assertThat(got).isEqualTo(content);
    }
  }
}
