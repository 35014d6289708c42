// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// `export serve` under clients that come in crowds, leave without a word or are killed: what it
/// holds when they are gone, by the kernel's figures, and what a client that goes on notices.
/// `-Dserve.rounds=N` for more connections one after the other.
@Tag("interop")
class ServeFaultsIT {
  private static final int ROUNDS = Integer.getInteger("serve.rounds", 2000);
  private static final int CROWD = 1000;
  private static final int SIZE = 64 << 20;

  /// What a JVM may start for itself meanwhile: compilers, collectors, timers.
  private static final int OWN_THREADS = 12;

  private static final int OWN_DESCRIPTORS = 4;
  private static final long OWN_KIB = 128 << 10;

  private final ScratchFolder folder = new ScratchFolder();
  private final Path socket = folder.resolve("s.sock");
  private TidemarkProcess server;

  @BeforeEach
  void serve() throws IOException {
    Path image = folder.resolve("disk.raw");
    try (var file = new java.io.RandomAccessFile(image.toFile(), "rw")) {
      file.setLength(SIZE);
    }
    server =
        TidemarkProcess.export(
            folder.path(), "-t", "-e", "0", "-k" + socket, "-f", "raw", image.toString());
  }

  @AfterEach
  void stop() throws IOException {
    server.close();
    folder.close();
  }

  /// What the kernel says of the server's process.
  private record Held(int threads, int descriptors, long residentKib) {
    static Held by(long pid) throws IOException {
      Path process = Path.of("/proc", Long.toString(pid));
      int threads = 0;
      long resident = 0;
      for (String line : Files.readAllLines(process.resolve("status"))) {
        String[] words = line.split("\\s+");
        switch (words[0]) {
          case "Threads:" -> threads = Integer.parseInt(words[1]);
          case "VmRSS:" -> resident = Long.parseLong(words[1]);
          default -> {}
        }
      }
      try (Stream<Path> open = Files.list(process.resolve("fd"))) {
        return new Held(threads, (int) open.count(), resident);
      }
    }

    boolean noMoreThan(Held before) {
      return threads <= before.threads + OWN_THREADS
          && descriptors <= before.descriptors + OWN_DESCRIPTORS;
    }
  }

  private Held held() throws IOException {
    return Held.by(server.pid());
  }

  private void awaitNoMoreThan(Held before) {
    Patience.await().until(() -> held().noMoreThan(before));
  }

  /// A connection by hand, in transmission.
  private final class Peer implements AutoCloseable {
    private final SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    private final DataInputStream in = new DataInputStream(Channels.newInputStream(channel));

    Peer() throws IOException {
      channel.connect(UnixDomainSocketAddress.of(socket));
      in.readNBytes(18);
      ByteBuffer chosen = ByteBuffer.allocate(20).putInt(3);
      send(chosen.putLong(0x49484156454F5054L).putInt(1).putInt(0)); // EXPORT_NAME, the default
      assertThat(in.readLong()).isEqualTo(SIZE);
      in.readUnsignedShort();
    }

    private void send(ByteBuffer bytes) throws IOException {
      bytes.flip();
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
    }

    void ask(int command, int length) throws IOException {
      ByteBuffer request = ByteBuffer.allocate(28).putInt(0x25609513).putShort((short) 0);
      send(request.putShort((short) command).putLong(7).putLong(0).putInt(length));
    }

    void read() throws IOException {
      ask(0, 4096);
      assertThat(in.readNBytes(16 + 4096)).hasSize(16 + 4096);
    }

    @Override
    public void close() throws IOException {
      channel.close();
    }
  }

  /// Reads and writes all the while, and keeps how long each took.
  private final class Steady {
    private final List<Long> nanos = new ArrayList<>();
    private final Thread thread = Thread.ofPlatform().start(this::work);
    private volatile boolean stop;
    private volatile String fault = "";

    private void work() {
      try (NbdClient client = NbdClient.connect(NbdUri.unix(socket, ""))) {
        for (long n = 1; !stop; n++) {
          ByteBuffer bytes = ByteBuffer.allocate(4096).putLong(n).clear();
          long start = System.nanoTime();
          client.write(SIZE - 4096, bytes);
          client.read(SIZE - 4096, bytes.clear());
          nanos.add(System.nanoTime() - start);
          if (bytes.flip().getLong() != n) {
            throw new AssertionError("read something else than was written in round " + n);
          }
        }
      } catch (BlockException | RuntimeException | Error e) {
        fault = e.toString();
      }
    }

    String end() throws InterruptedException {
      stop = true;
      thread.join();
      assertThat(fault).isEmpty();
      nanos.sort(null);
      assertThat(nanos.getLast()).isLessThan(Duration.ofSeconds(10).toNanos());
      return "a write and a read of a steady client: %d, median %d us, 99%% %d us, worst %d us"
          .formatted(
              nanos.size(),
              nanos.get(nanos.size() / 2) / 1000,
              nanos.get(nanos.size() * 99 / 100) / 1000,
              nanos.getLast() / 1000);
    }
  }

  private void rounds(int count) throws InterruptedException {
    var left = new AtomicInteger(count);
    var faults = new ConcurrentLinkedQueue<Throwable>();
    var threads = new ArrayList<Thread>();
    for (int i = 0; i < 3; i++) {
      var random = new Random(i);
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try {
                  while (left.getAndDecrement() > 0) {
                    round(random);
                  }
                } catch (IOException | RuntimeException | Error e) {
                  faults.add(e);
                }
              }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(faults).isEmpty();
  }

  private void round(Random random) throws IOException {
    try (var peer = new Peer()) {
      switch (random.nextInt(4)) {
        case 0 -> peer.read();
        case 1 -> peer.ask(0, 1 << 20); // and hears none of it
        case 2 -> peer.ask(1, 1 << 20); // and sends none of it
        default -> peer.ask(2, 0); // disconnects as it should
      }
    }
  }

  @Test
  void connectionsOneAfterTheOtherLeaveNothingBehind() throws Exception {
    rounds(300);
    Held before = held();
    var steady = new Steady();
    rounds(ROUNDS);
    String figures = steady.end();
    awaitNoMoreThan(before);
    Held after = held();
    System.out.println(ROUNDS + " connections: " + before + " -> " + after + "; " + figures);
    assertThat(after.residentKib()).isLessThan(before.residentKib() + OWN_KIB);
  }

  @Test
  void aThousandConnectionsAtOnceLeaveNothingBehind() throws Exception {
    rounds(300);
    Held before = held();
    var steady = new Steady();
    var peers = new ArrayList<Peer>();
    try {
      for (int i = 0; i < CROWD; i++) {
        peers.add(new Peer());
      }
      for (Peer peer : peers) {
        peer.read();
      }
      Held meanwhile = held();
      assertThat(meanwhile.descriptors()).isGreaterThan(CROWD);
      assertThat(meanwhile.threads()).isLessThan(CROWD / 10); // the silent have none
      System.out.println(
          CROWD
              + " at once: "
              + before
              + " -> "
              + meanwhile
              + ", "
              + (meanwhile.residentKib() - before.residentKib()) / CROWD
              + " KiB each");
    } finally {
      for (Peer peer : peers) {
        peer.close();
      }
    }
    System.out.println(steady.end());
    awaitNoMoreThan(before);
    System.out.println("and then: " + held());
  }

  @Test
  void clientsKilledInTheMiddleLeaveNothingBehind() throws Exception {
    Tool nbdcopy = Tool.require("nbdcopy");
    byte[] content = new byte[SIZE];
    new Random(1).nextBytes(content);
    Path source = Files.write(folder.resolve("source.raw"), content);
    String uri = "nbd+unix:///?socket=" + socket;
    nbdcopy.ok("--connections=4", source, uri);
    Held before = held();
    var random = new Random(2);
    for (int n = 0; n < 12; n++) {
      Process copy =
          n % 2 == 0
              ? nbdcopy.start("--connections=4", source, uri)
              : nbdcopy.start("--connections=4", uri, folder.resolve("out.raw"));
      Kills.pauseMillis(random.nextInt(60));
      copy.destroyForcibly().waitFor();
    }
    awaitNoMoreThan(before);
    // The writers wrote what was there: whatever arrived of a request, nothing else is.
    Path back = folder.resolve("back.raw");
    nbdcopy.ok(uri, back);
    assertThat(Files.mismatch(source, back)).isEqualTo(-1);
    System.out.println("killed clients: " + before + " -> " + held());
  }
}
