// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Optional;
import java.util.Set;

/// QEMU's drivers `file` and `host_device`: a local file, a block device.
final class FileProtocol {
  static final Set<String> NAMES = Set.of("file", "host_device");

  /// What makes no difference here: which calls QEMU reads and writes by.
  private static final Set<String> IGNORED =
      Set.of("aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped");

  private FileProtocol() {}

  static Optional<Path> path(String name) {
    try {
      return name.isEmpty() ? Optional.empty() : Optional.of(Path.of(name));
    } catch (InvalidPathException _) {
      return Optional.empty();
    }
  }

  /// @param driver one of [#NAMES]; empty: whichever of them the file is
  static FileNode open(Optional<String> driver, SourceOptions options, OpenOptions how)
      throws BlockException {
    String name = options.take("filename").orElse("");
    Path path =
        path(name)
            .orElseThrow(() ->
                new UnsupportedImageException(
                    options.source()
                        + ": The '"
                        + driver.orElse("file")
                        + "' block driver requires a file name"));
    options.drop(IGNORED);
    Optional<String> locking = options.take("locking");
    boolean unlocked = locking.isPresent() && locking.get().equals("off");
    FileNode node = FileNode.open(path, unlocked ? how.withoutLocks() : how);
    if (driver.isPresent() && node.isDevice() != driver.get().equals("host_device")) {
      node.close();
      throw new UnsupportedImageException(
          path
              + ": '"
              + driver.get()
              + "' driver requires "
              + (node.isDevice() ? "a regular file" : "a block device"));
    }
    return node;
  }
}
