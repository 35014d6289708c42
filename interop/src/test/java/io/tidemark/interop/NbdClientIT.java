// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.Extent;
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
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.awaitility.Awaitility;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Our client node against qemu-nbd and nbdkit.
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
    return Stream.of(
        List.of("qemu-nbd", "-t", "-e8", "-f", "raw", "-k", "{sock}", "{img}"),
        List.of("nbdkit", "-f", "-U", "{sock}", "file", "{img}"),
        List.of(
            "nbdkit",
            "-f",
            "-U",
            "{sock}",
            "--filter=blocksize-policy",
            "file",
            "{img}",
            "blocksize-minimum=4096",
            "blocksize-preferred=4096",
            "blocksize-maximum=1M",
            "blocksize-error-policy=error"),
        List.of("nbdkit", "-f", "-U", "{sock}", "--filter=nozero", "file", "{img}"),
        List.of("nbdkit", "-f", "-n", "--no-sr", "-U", "{sock}", "file", "{img}"));
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
    Awaitility.await().until(() -> Files.exists(socket) || !process.isAlive());
    return process;
  }

  private static void end(Process process) {
    process.destroy();
    try {
      assertThat(process.waitFor(20, TimeUnit.SECONDS)).isTrue();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  private NbdClient connect() {
    return Awaitility.await()
        .ignoreExceptionsInstanceOf(BlockException.class)
        .until(() -> NbdClient.connect(NbdUri.unix(socket, "")), client -> true);
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
      end(server);
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
          Awaitility.await()
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
      end(server);
    }
  }
}
