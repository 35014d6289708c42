// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;

/// The running system's boot: what was only in the page cache is gone when it has changed.
public final class BootId {
  private static final Path FILE = Path.of("/proc/sys/kernel/random/boot_id");

  private BootId() {}

  /// A random id that the kernel chose when it started.
  public static UUID current() throws IOException {
    String text = Files.readString(FILE).strip();
    try {
      return UUID.fromString(text);
    } catch (IllegalArgumentException e) {
      throw new IOException(FILE + ": '" + text + "' is not an id", e);
    }
  }
}
