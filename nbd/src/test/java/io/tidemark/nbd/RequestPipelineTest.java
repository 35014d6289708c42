// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.tidemark.block.Drive;
import io.tidemark.block.FileNode;
import io.tidemark.block.HostAccess;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.RequestQueue;
import io.tidemark.linux.LinuxException;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// Many requests of one connection at a disk past the page cache. Skipped aloud where the kernel
/// has no io_uring.
@Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class RequestPipelineTest {
  private static final int SIZE = 8 << 20;
  private static final int SLOT = 128 << 10; // where requests of a burst do not meet

  @TempDir Path folder;
  private Path socket;
  private Path file;
  private Drive drive;
  private ExportServer server;

  @BeforeEach
  void serve() throws IOException {
    try {
      RequestQueue.open(1).close();
    } catch (LinuxException e) {
      assumeTrue(false, "no io_uring here: " + e.getMessage());
    }
    socket = folder.resolve("s.sock");
    file = Files.write(folder.resolve("disk"), new byte[SIZE]);
    OpenOptions options = OpenOptions.readWrite().with(HostAccess.DIRECT_QUEUED);
    drive = new Drive("vda", FileNode.open(file, options));
    server = new ExportServer();
    server.addExport(Export.of("vda", drive));
    server.listen(socket);
  }

  @AfterEach
  void close() throws IOException {
    if (server != null) {
      server.close();
      drive.close();
    }
  }

  private RawPeer peer(Framing framing) throws IOException {
    RawPeer peer = new RawPeer(socket).greeted();
    switch (framing) {
      case SIMPLE -> {}
      case STRUCTURED -> peer.structured();
      case EXTENDED -> peer.extended();
    }
    return peer.go("vda");
  }

  private record Asked(int type, int offset, int length) {}

  @ParameterizedTest
  @Seeds(12)
  void everyRequestOfABurstIsAnsweredOnceAndRight(long seed) throws IOException {
    var random = new Random(seed);
    byte[] model = new byte[SIZE];
    try (RawPeer peer =
        peer(List.of(Framing.values()).get((int) (seed % Framing.values().length)))) {
      for (int burst = 0; burst < 12; burst++) {
        Map<Long, Asked> asked = new HashMap<>();
        int count = 1 + random.nextInt(SIZE / SLOT);
        var requests = new ArrayList<Request>();
        for (int i = 0; i < count; i++) {
          long cookie = burst * 1000L + i;
          Request request = pick(random, i * SLOT, model);
          requests.add(request);
          asked.put(cookie, request.asked());
        }
        int first = burst * 1000;
        Thread sender = Thread.ofPlatform().start(() -> send(peer, requests, first));
        for (int i = 0; i < count; i++) {
          answer(peer, asked, model);
        }
        join(sender);
        assertThat(asked).isEmpty();
      }
      assertThat(peer.error(Wire.Command.FLUSH, 0, 0, 0)).isZero();
      assertThat(peer.read(0, SIZE, 0)).isEqualTo(model);
    }
    assertThat(Files.readAllBytes(file)).isEqualTo(model);
  }

  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Request(Asked asked, int flags, byte[] data) {}

  /// From a thread of its own: a peer that only sends, and does not read, stops the server.
  private static void send(RawPeer peer, List<Request> requests, long cookie) {
    try {
      for (Request request : requests) {
        Asked asked = request.asked();
        peer.request(
            asked.type(),
            request.flags(),
            cookie++,
            asked.offset(),
            asked.length(),
            request.data());
      }
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private static Request pick(Random random, int slot, byte[] model) {
    int unit = random.nextInt(4) == 0 ? 1 : 4096;
    int length = unit * (1 + random.nextInt(SLOT / unit / (1 + random.nextInt(16))));
    int offset = slot + unit * random.nextInt((SLOT - length) / unit + 1);
    int type =
        switch (random.nextInt(8)) {
          case 0 -> Wire.Command.WRITE_ZEROES;
          case 1, 2, 3 -> Wire.Command.WRITE;
          default -> Wire.Command.READ;
        };
    byte[] data = new byte[type == Wire.Command.WRITE ? length : 0];
    if (type == Wire.Command.WRITE) {
      random.nextBytes(data);
      System.arraycopy(data, 0, model, offset, length);
    } else if (type == Wire.Command.WRITE_ZEROES) {
      Arrays.fill(model, offset, offset + length, (byte) 0);
    }
    boolean fua = type != Wire.Command.READ && random.nextInt(10) == 0;
    int flags = fua ? Wire.CommandFlag.FUA : 0;
    return new Request(new Asked(type, offset, length), flags, data);
  }

  private static void answer(RawPeer peer, Map<Long, Asked> asked, byte[] model)
      throws IOException {
    while (true) {
      // A simple reply does not say how long it is: its cookie, which comes first, does.
      RawPeer.Reply reply = peer.next(cookie -> payload(Objects.requireNonNull(asked.get(cookie))));
      Asked about = Objects.requireNonNull(asked.get(reply.cookie()));
      assertThat(reply.error()).isZero();
      if (about.type() == Wire.Command.READ && reply.payload().length > 0) {
        int skip = reply.chunk() == Wire.Chunk.OFFSET_DATA ? 8 : 0;
        int at = skip == 0 ? about.offset() : (int) reply.data().getLong();
        byte[] got = Arrays.copyOfRange(reply.payload(), skip, reply.payload().length);
        assertThat(got).isEqualTo(Arrays.copyOfRange(model, at, at + got.length));
      }
      if (reply.done()) {
        asked.remove(reply.cookie());
        return;
      }
    }
  }

  private static int payload(Asked about) {
    return about.type() == Wire.Command.READ ? about.length() : 0;
  }

  @Test
  void aPeerThatDoesNotReadItsRepliesHoldsUpNoDrain() throws IOException {
    byte[] model = new byte[SIZE];
    new Random(1).nextBytes(model);
    try (RawPeer writer = peer(Framing.STRUCTURED)) {
      assertThat(writer.error(Wire.Command.WRITE, 0, 0, SIZE, model)).isZero();
    }
    try (RawPeer slow = peer(Framing.SIMPLE)) {
      for (int i = 0; i < 64; i++) {
        slow.request(Wire.Command.READ, 0, i, (i % 8) << 20, 1 << 20);
      }
      for (int i = 0; i < 20; i++) {
        try (var drained = drive.drain()) {
          assertThat(drained).isNotNull();
        }
      }
      for (int i = 0; i < 64; i++) {
        RawPeer.Reply reply = slow.next(1 << 20);
        int at = (int) (reply.cookie() % 8) << 20;
        assertThat(reply.payload()).isEqualTo(Arrays.copyOfRange(model, at, at + (1 << 20)));
      }
    }
  }

  @Test
  void aRequestThatFailsIsAnsweredAndOthersAreToo() throws IOException {
    try (RawPeer peer = peer(Framing.STRUCTURED);
        var channel =
            java.nio.channels.FileChannel.open(file, java.nio.file.StandardOpenOption.WRITE)) {
      channel.truncate(SIZE / 2); // under the node
      peer.request(Wire.Command.READ, 0, 1, SIZE / 2, 4096);
      peer.request(Wire.Command.READ, 0, 2, 0, 4096);
      int failed = 0;
      for (int i = 0; i < 2; i++) {
        RawPeer.Reply reply = peer.next(0);
        failed += reply.error() == NbdErrno.EIO.number() ? 1 : 0;
        assertThat(reply.error() != 0).isEqualTo(reply.cookie() == 1);
      }
      assertThat(failed).isEqualTo(1);
    }
  }

  @Test
  void aServerThatClosesEndsAConnectionThatWaitsOrDoesNotRead() throws IOException {
    try (RawPeer idle = peer(Framing.SIMPLE);
        RawPeer slow = peer(Framing.SIMPLE)) {
      for (int i = 0; i < 64; i++) {
        slow.request(Wire.Command.READ, 0, i, 0, 1 << 20);
      }
      server.close(java.time.Duration.ofMillis(200));
      assertThat(server.connections()).isZero();
      assertThat(idle.closedByServer()).isTrue();
    }
  }

  @Test
  void closesEveryDescriptorOfAConnectionThatEnds() throws IOException {
    long before = descriptors();
    for (int i = 0; i < 50; i++) {
      try (RawPeer peer = peer(Framing.STRUCTURED)) {
        assertThat(peer.read(0, 8192, 0)).hasSize(8192);
      }
    }
    long start = System.nanoTime();
    while (descriptors() > before + 3 && System.nanoTime() - start < 20_000_000_000L) {
      Thread.onSpinWait();
    }
    assertThat(descriptors()).isLessThanOrEqualTo(before + 3);
  }

  private static long descriptors() throws IOException {
    try (var all = Files.list(Path.of("/proc/self/fd"))) {
      return all.count();
    }
  }
}
