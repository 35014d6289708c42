// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// What a client was told is written, after the server was killed.
@Tag("interop")
class ServeKillIT {
  private static final int SIZE = 64 << 20;
  private static final int WRITE = 4096;

  private final ScratchFolder folder = new ScratchFolder();
  private final Path image = folder.resolve("disk.qcow2");
  private final byte[] wanted = new byte[SIZE];

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  /// Writes to places all over the disk, without a flush, and kills the server.
  private void writeAndKill(String cache, long seed) throws IOException {
    Path socket = folder.resolve("s.sock");
    Files.deleteIfExists(socket);
    var random = new Random(seed);
    try (var server =
            TidemarkProcess.export(
                folder.path(), "-k" + socket, "-f", "qcow2", "--cache", cache, image.toString());
        var client = NbdClient.connect(NbdUri.unix(socket, ""))) {
      for (int i = 0; i < 500; i++) {
        int at = random.nextInt(SIZE / WRITE) * WRITE;
        byte[] bytes = new byte[WRITE];
        random.nextBytes(bytes);
        client.write(at, ByteBuffer.wrap(bytes));
        System.arraycopy(bytes, 0, wanted, at, WRITE);
      }
      server.kill();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"writeback", "none"})
  void isThereForWhoeverOfOursOpensTheImageNext(String cache) throws IOException {
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
    assertThat(Arrays.mismatch(Files.readAllBytes(raw), wanted)).isEqualTo(-1);

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
    assertThat(Arrays.mismatch(Files.readAllBytes(raw), wanted)).isEqualTo(-1);
  }
}
