// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/// What must happen to folders so that names survive power.
public final class Folders {
  private static final int AT_FDCWD = -100;
  private static final int RENAME_NOREPLACE = 1;

  private Folders() {}

  /// Returns when the names in a folder are on stable storage.
  public static void sync(Path folder) throws IOException {
    try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
      channel.force(true);
    }
  }

  /// Renames, and never replaces: EEXIST where `to` is taken, decided by the kernel in one step.
  public static void renameNoReplace(Path from, Path to) throws LinuxException {
    int result =
        Calls.renameat2(AT_FDCWD, from.toString(), AT_FDCWD, to.toString(), RENAME_NOREPLACE);
    if (result < 0) {
      throw new LinuxException(from + ": to " + to, "rename", -result);
    }
  }
}
