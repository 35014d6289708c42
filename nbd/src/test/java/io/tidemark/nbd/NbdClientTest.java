// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.Extent;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

class NbdClientTest {
  private static final int SIZE = 2 << 20;
  private static final ClientOptions PATIENT =
      ClientOptions.defaults().withReconnectDelay(Duration.ofSeconds(20));

  @TempDir Path folder;
  private Path socket;
  private final MemoryNode node = new MemoryNode(SIZE);
  private ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    serve(node);
  }

  private void serve(MemoryNode disk) throws IOException {
    server = new ExportServer();
    server.addExport(Export.of("vda", disk));
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private NbdUri uri() {
    return NbdUri.unix(socket, "vda");
  }

  @ParameterizedTest
  @Seeds(20)
  void behavesAsTheDiskBehindIt(long seed) throws BlockException {
    var random = new Random(seed);
    var model = new ModelDisk(SIZE);
    try (NbdClient client = NbdClient.connect(uri())) {
      assertThat(client.virtualSize()).isEqualTo(SIZE);
      for (int i = 0; i < 200; i++) {
        int offset = random.nextInt(SIZE);
        int length = Math.min(SIZE - offset, random.nextInt(i % 10 == 0 ? 700_000 : 9000));
        switch (random.nextInt(5)) {
          case 0, 1 -> {
            byte[] data = new byte[length];
            random.nextBytes(data);
            ByteBuffer from = ByteBuffer.wrap(data);
            client.write(offset, from);
            assertThat(from.hasRemaining()).isFalse();
            model.write(offset, data);
          }
          case 2 -> {
            ZeroMode mode = random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP;
            client.writeZeroes(offset, length, mode);
            model.zero(offset, length);
          }
          case 3 -> {
            client.discard(offset, length);
            model.zero(offset, length);
          }
          default -> {
            ByteBuffer into =
                random.nextBoolean()
                    ? ByteBuffer.allocate(length)
                    : ByteBuffer.allocateDirect(length);
            client.read(offset, into);
            assertThat(into.hasRemaining()).isFalse();
            byte[] bytes = new byte[length];
            into.flip().get(bytes);
            assertThat(bytes).isEqualTo(model.read(offset, length));
          }
        }
      }
      client.flush();
      model.holdsExactly(client);
      model.holdsExactly(node);
    }
  }

  @Test
  void tellsZeroesFromData() throws BlockException {
    try (NbdClient client = NbdClient.connect(uri())) {
      client.write(8192, ByteBuffer.allocate(4096));
      var extents = new ArrayList<Extent>();
      client.extents(
          100,
          20000,
          extent -> {
            extents.add(extent);
            return true;
          });
      assertThat(extents)
          .containsExactly(
              new Extent(100, 8092, Extent.State.ZERO, 100, false),
              new Extent(8192, 4096, Extent.State.DATA, 8192, false),
              new Extent(12288, 7812, Extent.State.ZERO, 12288, false));
      extents.clear();
      client.extents(
          0,
          SIZE,
          extent -> {
            extents.add(extent);
            return false;
          });
      assertThat(extents).hasSize(1);
    }
  }

  @Test
  void carriesRequestsOfManyThreadsTogether() throws Exception {
    try (NbdClient client = NbdClient.connect(uri())) {
      var faults = new ArrayList<Throwable>();
      var threads = new ArrayList<Thread>();
      for (int t = 0; t < 16; t++) {
        int lane = t;
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    writeAndRead(client, lane);
                  } catch (BlockException | RuntimeException | AssertionError e) {
                    synchronized (faults) {
                      faults.add(e);
                    }
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(faults).isEmpty();
    }
  }

  private static void writeAndRead(NbdClient client, int lane) throws BlockException {
    var random = new Random(lane);
    byte[] data = new byte[3000];
    for (int i = 0; i < 100; i++) {
      random.nextBytes(data);
      client.write(lane * 5000L, ByteBuffer.wrap(data));
      ByteBuffer back = ByteBuffer.allocate(data.length);
      client.read(lane * 5000L, back);
      assertThat(back.array()).isEqualTo(data);
    }
  }

  @Test
  void passesTheServersErrorsOnByKind() throws BlockException {
    try (NbdClient client = NbdClient.connect(uri())) {
      node.failure = new OutOfSpaceException("full");
      assertThatThrownBy(() -> client.write(0, ByteBuffer.allocate(512)))
          .isInstanceOf(OutOfSpaceException.class)
          .hasMessageContaining(uri().toString())
          .hasMessageContaining("no space left");
      node.failure = new UnsupportedImageException("no");
      assertThatThrownBy(() -> client.writeZeroes(0, 512, ZeroMode.MAY_UNMAP))
          .isInstanceOf(UnsupportedImageException.class);
      node.failure = new TransportException("broken");
      assertThatThrownBy(() -> client.read(0, ByteBuffer.allocate(512)))
          .isInstanceOf(TransportException.class);
      assertThatThrownBy(client::flush).isInstanceOf(TransportException.class);
      node.failure = null;
      client.flush();
    }
  }

  @Test
  void refusesChangesOfAReadOnlyExportItself() throws Exception {
    server.addExport(new Export("ro", node, "", true, List.of()));
    try (NbdClient client = NbdClient.connect(NbdUri.unix(socket, "ro"))) {
      assertThat(client.readOnly()).isTrue();
      assertThatThrownBy(() -> client.write(0, ByteBuffer.allocate(1)))
          .isInstanceOf(ReadOnlyNodeException.class);
      client.flush();
    }
  }

  @Test
  void refusesRangesOutsideOfTheDisk() throws BlockException {
    try (NbdClient client = NbdClient.connect(uri())) {
      assertThatThrownBy(() -> client.read(SIZE, ByteBuffer.allocate(1)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> client.discard(1, Long.MAX_VALUE))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }

  @Test
  void saysWhyItCannotConnect() {
    assertThatThrownBy(() -> NbdClient.connect(NbdUri.unix(socket, "vdb")))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("\"vdb\"")
        .hasMessageContaining("not offered");
    assertThatThrownBy(() -> NbdClient.connect(NbdUri.unix(folder.resolve("none.sock"), "vda")))
        .isInstanceOf(TransportException.class);
  }

  @Test
  void listsExportsWithWhatTheyCan() throws Exception {
    server.addExport(new Export("ro", node, "read only", true, List.of()));

    List<ExportInfo> exports = NbdClient.list(NbdUri.unix(socket, ""), ClientOptions.defaults());

    assertThat(exports).extracting(ExportInfo::name).containsExactly("vda", "ro");
    assertThat(exports.getLast().description()).isEqualTo("read only");
    assertThat(exports.getLast().readOnly()).isTrue();
    assertThat(exports.getFirst().contexts()).containsExactly("base:allocation");
  }

  // ---- loss of the server

  @Test
  void waitsForALostServerAndSendsAgain() throws Exception {
    try (NbdClient client = NbdClient.connect(uri(), PATIENT)) {
      client.write(0, ByteBuffer.wrap(new byte[] {1}));
      server.close();
      var outcome = new AtomicReference<@Nullable Throwable>();
      Thread writer =
          Thread.ofPlatform()
              .start(() -> {
                try {
                  client.write(1, ByteBuffer.wrap(new byte[] {2}));
                } catch (Throwable e) {
                  outcome.set(e);
                }
              });
      serve(node);
      writer.join();

      assertThat(outcome.get()).isNull();
      assertThat(node.copy(0, 2)).containsExactly(1, 2);
    }
  }

  @Test
  void losesNoWriteOfManyThreadsOverManyRestarts() throws Exception {
    try (NbdClient client = NbdClient.connect(uri(), PATIENT)) {
      var faults = new ArrayList<Throwable>();
      var stop = new CountDownLatch(1);
      var threads = new ArrayList<Thread>();
      for (int t = 0; t < 4; t++) {
        int lane = t;
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    do {
                      writeAndRead(client, lane);
                    } while (stop.getCount() > 0);
                  } catch (BlockException | RuntimeException | AssertionError e) {
                    synchronized (faults) {
                      faults.add(e);
                    }
                  }
                }));
      }
      for (int i = 0; i < 10; i++) {
        int before = node.reads.get();
        while (node.reads.get() < before + 50 && faults.isEmpty()) {
          Thread.onSpinWait();
        }
        server.close();
        serve(node);
      }
      stop.countDown();
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(faults).isEmpty();
    }
  }

  @Test
  void failsAtOnceWithoutADelayAndFindsTheServerLater() throws Exception {
    try (NbdClient client = NbdClient.connect(uri())) {
      server.close();
      assertThatThrownBy(client::flush).isInstanceOf(TransportException.class);
      assertThatThrownBy(client::flush)
          .isInstanceOf(TransportException.class)
          .hasMessageContaining("away");
      serve(node);
      client.flush();
    }
  }

  @Test
  void failsWhenTheDelayIsOver() throws Exception {
    var options = ClientOptions.defaults().withReconnectDelay(Duration.ofMillis(60));
    try (NbdClient client = NbdClient.connect(uri(), options)) {
      server.close();
      long start = System.nanoTime();
      assertThatThrownBy(client::flush).isInstanceOf(TransportException.class);
      assertThat(System.nanoTime() - start).isGreaterThan(50_000_000L);
    }
  }

  @Test
  void requestsThatWaitTogetherFailTogether() throws Exception {
    var options = ClientOptions.defaults().withReconnectDelay(Duration.ofMillis(300));
    try (NbdClient client = NbdClient.connect(uri(), options)) {
      server.close();
      var failures = new ArrayList<Throwable>();
      var threads = new ArrayList<Thread>();
      for (int t = 0; t < 20; t++) {
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    client.flush();
                  } catch (BlockException e) {
                    synchronized (failures) {
                      failures.add(e);
                    }
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(failures).hasSize(20).allMatch(e -> e instanceof TransportException);
    }
  }

  @Test
  void goesOnWithAnExportThatCameBackLonger() throws Exception {
    try (NbdClient client = NbdClient.connect(uri(), PATIENT)) {
      server.close();
      serve(new MemoryNode(2 * SIZE));
      client.write(0, ByteBuffer.wrap(new byte[] {1}));
      assertThat(client.virtualSize()).isEqualTo(SIZE);
    }
  }

  @Test
  void refusesAnExportThatCameBackShorter() throws Exception {
    var options = ClientOptions.defaults().withReconnectDelay(Duration.ofMillis(1));
    try (NbdClient client = NbdClient.connect(uri(), options)) {
      server.close();
      serve(new MemoryNode(SIZE / 2));
      assertThatThrownBy(client::flush)
          .isInstanceOf(TransportException.class)
          .hasMessageContaining("came back as another");
    }
  }

  @Test
  void endsWaitingRequestsWhenItIsClosed() throws Exception {
    NbdClient client = NbdClient.connect(uri(), PATIENT);
    server.close();
    var outcome = new AtomicReference<@Nullable Throwable>();
    Thread reader =
        Thread.ofPlatform()
            .start(() -> {
              try {
                client.read(0, ByteBuffer.allocate(1));
              } catch (Throwable e) {
                outcome.set(e);
              }
            });
    client.close();
    reader.join();

    assertThat(outcome.get()).isInstanceOf(TransportException.class);
  }
}
