// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.Extent;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.ExportInfo;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Queue;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// Our client node against qemu-nbd, qemu-storage-daemon and nbdkit, with what they can be told to
/// do to a client.
@Tag("interop")
class NbdClientIT {
  private static final int SIZE = 16 << 20;

  private final ScratchFolder folder = new ScratchFolder();
  private final Path disk = folder.resolve("disk.img");
  private final Path socket = folder.resolve("s.sock");

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  /// Words of a server's command; `{sock}` and `{img}` are filled in.
  static Stream<List<String>> servers() {
    Stream<List<String>> qemu =
        Stream.of(
                "",
                "--cache=none",
                "--cache=writethrough",
                "--aio=threads",
                "--discard=unmap --detect-zeroes=unmap",
                "--discard=ignore",
                "-A")
            .map(more -> words("qemu-nbd -t -e8 -f raw -k {sock} " + more + " {img}"));
    Stream<List<String>> daemon =
        Stream.of(
            words(
                "qemu-storage-daemon --blockdev file,node-name=f,filename={img},discard=unmap"
                    + " --nbd-server addr.type=unix,addr.path={sock},max-connections=0"
                    + " --export nbd,id=e,node-name=f,name=,writable=on"));
    Stream<List<String>> nbdkit =
        Stream.of(
                "file {img}",
                "-n --no-sr file {img}",
                "--filter=blocksize-policy file {img} blocksize-minimum=4096"
                    + " blocksize-preferred=4096 blocksize-maximum=1M blocksize-error-policy=error",
                "--filter=blocksize file {img} minblock=512 maxdata=64K maxlen=1M",
                "--filter=nozero file {img}",
                "--filter=nozero file {img} zeromode=emulate",
                "--filter=nozero file {img} zeromode=notrim",
                "--filter=nozero file {img} zeromode=plugin",
                "--filter=nozero file {img} fastzeromode=none",
                "--filter=nozero file {img} fastzeromode=slow",
                "--filter=noextents file {img}",
                "--filter=cacheextents file {img}",
                "--filter=fua file {img} fuamode=pass",
                "--filter=fua file {img} fuamode=emulate",
                "--filter=fua file {img} fuamode=force",
                "--filter=fua file {img} fuamode=discard",
                "--filter=nocache file {img} cachemode=none",
                "--filter=multi-conn file {img} multi-conn-mode=disable",
                "--filter=multi-conn file {img} multi-conn-mode=emulate",
                "--filter=multi-conn file {img} multi-conn-mode=plugin",
                "--filter=noparallel file {img} serialize=requests",
                "--filter=delay file {img} rdelay=2ms wdelay=1ms",
                "--filter=readahead --filter=cache file {img} cache=writethrough",
                "--filter=retry file {img} retries=2",
                "--filter=retry-request file {img} retry-request-retries=2",
                "--filter=exitlast file {img}",
                "--filter=log file {img} logfile=/dev/stderr")
            .map(line -> words("nbdkit -f -U {sock} " + line));
    return Stream.of(qemu, daemon, nbdkit).flatMap(all -> all);
  }

  private static List<String> words(String line) {
    return List.of(line.split(" +"));
  }

  private Process start(List<String> words) throws IOException {
    try (var file = new java.io.RandomAccessFile(disk.toFile(), "rw")) {
      file.setLength(SIZE);
    }
    Object[] rest =
        words.stream()
            .skip(1)
            .map(w -> w.replace("{sock}", socket.toString()).replace("{img}", disk.toString()))
            .toArray();
    Process process = Tool.require(words.getFirst()).start(rest);
    Patience.await().until(() -> Files.exists(socket) || !process.isAlive());
    return process;
  }

  /// Over several connections, where the server lets them act as one.
  private NbdClient connect() {
    var options = ClientOptions.defaults().withConnections(3);
    return Patience.await()
        .ignoreExceptionsInstanceOf(BlockException.class)
        .until(() -> NbdClient.connect(NbdUri.unix(socket, ""), options), client -> true);
  }

  @ParameterizedTest
  @MethodSource("servers")
  void behavesAsTheDiskBehindIt(List<String> words) throws IOException {
    Process server = start(words);
    try (NbdClient client = connect()) {
      assertThat(client.virtualSize()).isEqualTo(SIZE);
      var random = new Random(5);
      var model = new ModelDisk(SIZE);
      for (int i = 0; i < 150; i++) {
        int offset = random.nextInt(SIZE);
        int length = Math.min(SIZE - offset, random.nextInt(i % 10 == 0 ? 3_000_000 : 20_000));
        switch (random.nextInt(4)) {
          case 0 -> {
            ZeroMode mode = random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP;
            client.writeZeroes(offset, length, mode);
            model.zero(offset, length);
          }
          case 1 -> {
            model.attempt(offset, new byte[length]);
            client.discard(offset, length);
            model.settle(client, offset, length);
          }
          default -> {
            byte[] bytes = new byte[length];
            random.nextBytes(bytes);
            client.write(offset, ByteBuffer.wrap(bytes));
            model.write(offset, bytes);
          }
        }
      }
      client.flush();
      model.holdsExactly(client);
      assertThat(Files.readAllBytes(disk)).isEqualTo(model.read(0, SIZE));
      checkExtents(client, model);
    } finally {
      Tool.end(server);
    }
  }

  /// Extents cover the disk without gaps, and what they call zero is.
  private static void checkExtents(NbdClient client, ModelDisk model) throws BlockException {
    var extents = new ArrayList<Extent>();
    client.extents(
        1,
        SIZE - 2,
        extent -> {
          extents.add(extent);
          return true;
        });
    long at = 1;
    for (Extent extent : extents) {
      assertThat(extent.offset()).isEqualTo(at);
      if (extent.state() == Extent.State.ZERO) {
        assertThat(model.read(at, (int) extent.length())).containsOnly(0);
      }
      at = extent.end();
    }
    assertThat(at).isEqualTo(SIZE - 1);
  }

  @Test
  void listsWhatQemuOffers() throws IOException {
    Process server =
        start(
            List.of(
                "qemu-nbd",
                "-t",
                "-e8",
                "-r",
                "-x",
                "vda",
                "-D",
                "a disk",
                "-f",
                "raw",
                "-k",
                "{sock}",
                "{img}"));
    try {
      List<ExportInfo> exports =
          Patience.await()
              .ignoreExceptionsInstanceOf(BlockException.class)
              .until(
                  () -> NbdClient.list(NbdUri.unix(socket, ""), ClientOptions.defaults()),
                  list -> true);
      assertThat(exports).hasSize(1);
      assertThat(exports.getFirst().name()).isEqualTo("vda");
      assertThat(exports.getFirst().description()).isEqualTo("a disk");
      assertThat(exports.getFirst().readOnly()).isTrue();
      assertThat(exports.getFirst().size()).isEqualTo(SIZE);
      assertThat(exports.getFirst().contexts()).containsExactly("base:allocation");
    } finally {
      Tool.end(server);
    }
  }

  /// Requests that fail now and then fail alone, and leave connection and disk as they were.
  @Test
  void goesOnAfterErrorsOfTheServer() throws IOException {
    Process server =
        start(words("nbdkit -f -U {sock} --filter=error file {img} error=EIO error-rate=20%"));
    try (NbdClient client = connect()) {
      var random = new Random(6);
      var model = new ModelDisk(SIZE);
      int failed = 0;
      for (int i = 0; i < 300; i++) {
        byte[] bytes = new byte[1 + random.nextInt(9000)];
        random.nextBytes(bytes);
        int offset = random.nextInt(SIZE - bytes.length);
        boolean done = false;
        while (!done) {
          try {
            client.write(offset, ByteBuffer.wrap(bytes));
            done = true;
          } catch (TransportException e) {
            failed++;
          }
        }
        model.write(offset, bytes);
      }
      assertThat(failed).isBetween(10, 300);
      assertThat(Files.readAllBytes(disk)).isEqualTo(model.read(0, SIZE));
    } finally {
      Tool.end(server);
    }
  }

  /// A server that ends, or that goes and comes back, under requests of several threads: with a
  /// delay to reconnect none of them fails, and none is lost.
  @ParameterizedTest
  @ValueSource(
      strings = {
        "qemu-nbd -t -e8 -f raw -k {sock} {img}",
        "nbdkit -f -U {sock} file {img}",
        "qemu-storage-daemon --blockdev file,node-name=f,filename={img}"
            + " --nbd-server addr.type=unix,addr.path={sock},max-connections=0"
            + " --export nbd,id=e,node-name=f,name=,writable=on"
      })
  void losesNothingWhileTheServerIsKilledAndStartedAgain(String line) throws Exception {
    List<String> words = words(line);
    Process server = start(words);
    var options =
        ClientOptions.defaults().withConnections(2).withReconnectDelay(Duration.ofSeconds(60));
    connect().close(); // it is there
    try (NbdClient client = NbdClient.connect(NbdUri.unix(socket, ""), options)) {
      var faults = new ConcurrentLinkedQueue<Throwable>();
      var written = new AtomicInteger();
      var threads = new ArrayList<Thread>();
      int lane = SIZE / 4;
      for (int i = 0; i < 4; i++) {
        int from = i * lane;
        threads.add(Thread.ofPlatform().start(() -> work(client, from, lane, written, faults)));
      }
      for (int kill = 1; kill <= 4; kill++) {
        int until = kill * 150;
        Patience.await().until(() -> written.get() >= until || !faults.isEmpty());
        server.destroyForcibly().waitFor();
        Files.deleteIfExists(socket);
        server = start(words);
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(faults).isEmpty();
    } finally {
      Tool.end(server);
    }
  }

  private static void work(
      NbdClient client, int from, int lane, AtomicInteger written, Queue<Throwable> faults) {
    try {
      var random = new Random(from);
      byte[] content = new byte[lane];
      client.write(from, ByteBuffer.wrap(content));
      for (int n = 0; n < 250; n++) {
        int length = 1 + random.nextInt(20_000);
        int at = random.nextInt(lane - length);
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        client.write(from + at, ByteBuffer.wrap(bytes));
        System.arraycopy(bytes, 0, content, at, length);
        written.incrementAndGet();
        int look = random.nextInt(lane - 5000);
        byte[] seen = new byte[5000];
        client.read(from + look, ByteBuffer.wrap(seen));
        assertThat(seen).isEqualTo(Arrays.copyOfRange(content, look, look + 5000));
      }
      byte[] all = new byte[lane];
      client.read(from, ByteBuffer.wrap(all));
      assertThat(all).isEqualTo(content);
    } catch (BlockException | RuntimeException | Error e) {
      faults.add(e);
    }
  }
}
