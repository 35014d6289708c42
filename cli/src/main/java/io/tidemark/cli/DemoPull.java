// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.FileNode;
import io.tidemark.block.Zeroes;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/// The readers of the demo's pull backup: each copies what the daemon serves into a raw file.
///
/// @param socket of the backup's server
/// @param export the disk's name there
record DemoPull(Path socket, String export) {
  private static final int CHUNK = 1024 * 1024;
  private static final Duration LONGEST = Duration.ofMinutes(2);

  /// Copies with Tidemark's own client.
  void read(Path into) throws IOException {
    var chunk = ByteBuffer.allocateDirect(CHUNK);
    try (NbdClient client =
            NbdClient.connect(NbdUri.unix(socket, export), ClientOptions.defaults());
        var file = FileNode.create(into)) {
      file.resize(client.virtualSize());
      for (long at = 0; at < client.virtualSize(); at += CHUNK) {
        chunk.clear().limit((int) Math.min(CHUNK, client.virtualSize() - at));
        client.read(at, chunk);
        if (!Zeroes.isZero(chunk.flip())) {
          file.write(at, chunk);
        }
      }
    }
  }

  /// Copies with nbdcopy of libnbd.
  ///
  /// @return false when that is not installed
  boolean readByNbdcopy(Path into, Path log) throws IOException, CommandException {
    Optional<Path> program = nbdcopy();
    if (program.isEmpty()) {
      return false;
    }
    String uri = "nbd+unix:///" + export + "?socket=" + socket;
    Process process =
        new ProcessBuilder(List.of(program.get().toString(), uri, into.toString()))
            .redirectErrorStream(true)
            .redirectOutput(log.toFile())
            .start();
    try {
      boolean ended = process.waitFor(LONGEST.toSeconds(), TimeUnit.SECONDS);
      if (!ended || process.exitValue() != 0) {
        throw new CommandException("nbdcopy failed; see " + log);
      }
      return true;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new CommandException("interrupted while nbdcopy ran");
    } finally {
      process.destroy();
    }
  }

  private static Optional<Path> nbdcopy() {
    var found = new ArrayList<Path>();
    String path = Optional.ofNullable(System.getenv("PATH")).orElse("");
    for (String folder : path.split(File.pathSeparator, -1)) {
      Path program = Path.of(folder).resolve("nbdcopy");
      if (!folder.isEmpty() && Files.isExecutable(program)) {
        found.add(program);
      }
    }
    return found.stream().findFirst();
  }
}
