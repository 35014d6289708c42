// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.FileNode;
import io.tidemark.domain.spi.DriverException;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;

/// Makes the files in which backups keep old bytes: sparse, and without a name from the start, so
/// that the kernel takes them back whenever the process ends.
final class Scratch {
  private static final Logger LOG = System.getLogger(Scratch.class.getName());

  private Scratch() {}

  static FileNode create(EngineConfig config, long size) throws DriverException {
    Path path = config.scratchDir().resolve("tidemark-scratch-" + UUID.randomUUID());
    FileNode file;
    try {
      Files.createDirectories(config.scratchDir());
      file = FileNode.create(path);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    } catch (IOException e) {
      throw DriverErrors.of(config.scratchDir() + ": no place for scratch files", e);
    }
    try {
      Files.delete(path);
      file.resize(size);
      return file;
    } catch (BlockException e) {
      close(file);
      throw DriverErrors.of(e);
    } catch (IOException e) {
      close(file);
      throw DriverErrors.of(path + ": cannot be unlinked", e);
    }
  }

  /// Gives the file's space back. Closing twice is harmless.
  static void close(FileNode scratch) {
    try {
      scratch.close();
    } catch (BlockException e) {
      // Safe because nobody reads it again, and its space goes with the descriptor.
      LOG.log(Level.DEBUG, "{0}: {1}", scratch.name(), e.getMessage());
    }
  }
}
