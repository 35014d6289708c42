// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// What a client was told is written, after the server was killed.
@Tag("interop")
class ServeKillIT {
  private static final int SIZE = 64 << 20;
  private static final int WRITE = 4096;
  private static final int WRITERS = 8;

  private final ScratchFolder folder = new ScratchFolder();
  private final Path image = folder.resolve("disk.qcow2");
  private final byte[] wanted = new byte[SIZE]; // of each place its writer's
  private final Set<Integer> unanswered = ConcurrentHashMap.newKeySet(); // where any bytes will do

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  /// Writes from several threads, each to its own places all over the disk, without a flush, and
  /// kills the server while requests are in flight. Those count as not written: their places are
  /// noted.
  private void writeAndKill(String cache, long seed) throws Exception {
    Path socket = folder.resolve("s.sock");
    Files.deleteIfExists(socket);
    try (var server =
            TidemarkProcess.export(
                folder.path(), "-k" + socket, "-f", "qcow2", "--cache", cache, image.toString());
        var client = NbdClient.connect(NbdUri.unix(socket, ""))) {
      for (int at : unanswered) {
        client.write(at, ByteBuffer.wrap(wanted, at, WRITE));
      }
      unanswered.clear();
      var answered = new Semaphore(0);
      var writers = new ArrayList<Thread>();
      for (int i = 0; i < WRITERS; i++) {
        int writer = i;
        writers.add(
            Thread.ofPlatform()
                .start(() -> write(client, new Random(seed * WRITERS + writer), writer, answered)));
      }
      answered.acquire(500);
      server.kill();
      for (Thread writer : writers) {
        writer.join();
      }
    }
  }

  /// Until the server is gone.
  private void write(NbdClient client, Random random, int writer, Semaphore answered) {
    int at = 0;
    try {
      while (true) {
        at = (random.nextInt(SIZE / WRITE / WRITERS) * WRITERS + writer) * WRITE;
        byte[] bytes = new byte[WRITE];
        random.nextBytes(bytes);
        client.write(at, ByteBuffer.wrap(bytes));
        System.arraycopy(bytes, 0, wanted, at, WRITE);
        answered.release();
      }
    } catch (BlockException _) {
      unanswered.add(at);
    }
  }

  private void requireWanted(Path raw) throws IOException {
    byte[] found = Files.readAllBytes(raw);
    assertThat(found).hasSize(SIZE);
    for (int at : unanswered) {
      System.arraycopy(found, at, wanted, at, WRITE);
    }
    assertThat(Arrays.mismatch(found, wanted)).isEqualTo(-1);
  }

  @ParameterizedTest
  @ValueSource(strings = {"writeback", "none"})
  void isThereForWhoeverOfOursOpensTheImageNext(String cache) throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    qemuImg.ok("create", "-q", "-f", "qcow2", image, SIZE);
    for (long seed = 1; seed <= 3; seed++) {
      writeAndKill(cache, seed);
      Tool.Result checked = qemuImg.run("check", "-q", image);
      assertThat(checked.exit()).as(checked.err()).isIn(0, 3); // sound, perhaps with leaks
    }
    writeAndKill(cache, 4);

    Path raw = folder.resolve("disk.raw");
    Root.tidemark().ok("image", "convert", "-O", "raw", image, raw);
    requireWanted(raw);

    // The conversion only read; serving brings the log in, and ends cleanly.
    Path socket = folder.resolve("s.sock");
    Files.deleteIfExists(socket);
    try (var server =
        TidemarkProcess.export(
            folder.path(), "-t", "-k" + socket, "-f", "qcow2", image.toString())) {
      assertThat(server.stop()).isZero();
    }
    qemuImg.ok("check", "-q", image);
    Files.delete(raw);
    qemuImg.ok("convert", "-O", "raw", image, raw);
    requireWanted(raw);
  }
}
