// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import org.assertj.core.api.Assertions;
import org.opentest4j.TestAbortedException;

/// A file system of a few MiB that a test may fill, or stop. Who may not mount one skips the test,
/// aloud.
final class SmallFileSystem implements AutoCloseable {
  private final Path mount;
  private boolean frozen;

  private SmallFileSystem(Path mount) {
    this.mount = mount;
  }

  /// One in memory, to be filled.
  static SmallFileSystem inMemory(Path mount, int mebibytes) throws IOException {
    return mounted(mount, "-t", "tmpfs", "-o", "size=" + mebibytes + "m,mode=700", "tidemark-test");
  }

  /// One that can be stopped: everybody who writes it then waits, in the kernel.
  static SmallFileSystem stoppable(Path mount, int mebibytes) throws IOException {
    Path image = mount.resolveSibling(mount.getFileName() + ".ext4");
    try (var file = new RandomAccessFile(image.toFile(), "rw")) {
      file.setLength((long) mebibytes << 20);
    }
    Tool.require("mkfs.ext4").ok("-q", "-F", image);
    return mounted(mount, "-o", "loop", image);
  }

  private static SmallFileSystem mounted(Path mount, Object... words) throws IOException {
    Files.createDirectory(mount);
    Object[] all = java.util.Arrays.copyOf(words, words.length + 1);
    all[words.length] = mount;
    Tool.Result mounted = Tool.require("mount").run(all);
    if (mounted.exit() != 0) {
      String reason = "a file system of one's own takes root: " + mounted.text().strip();
      System.err.println("SKIPPED: " + reason);
      throw new TestAbortedException(reason);
    }
    return new SmallFileSystem(mount);
  }

  Path path() {
    return mount;
  }

  Path resolve(String name) {
    return mount.resolve(name);
  }

  /// Holds everybody who writes, until [#go].
  void freeze() {
    Tool.require("fsfreeze").ok("-f", mount);
    frozen = true;
  }

  void go() {
    if (!frozen) {
      return;
    }
    Tool.require("fsfreeze").ok("-u", mount);
    frozen = false;
  }

  /// Takes all the space that is left.
  ///
  /// @return the file that holds it
  Path fill() throws IOException {
    Path filler = mount.resolve("filler");
    try (var out = Files.newOutputStream(filler)) {
      byte[] page = new byte[4096];
      Assertions.assertThatThrownBy(
              () -> {
                while (true) {
                  out.write(page);
                }
              })
          .hasMessageContaining("No space left");
    }
    return filler;
  }

  @Override
  public void close() {
    go();
    if (Tool.require("umount").run(mount).exit() != 0) {
      Tool.require("umount").ok("-l", mount);
    }
  }
}
