// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.Durability;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/// QEMU's cache modes. All images are read and written through the page cache; what a mode decides
/// here is whether a written image is synced before the command ends.
enum CacheMode {
  NONE,
  OFF,
  WRITEBACK,
  WRITETHROUGH,
  DIRECTSYNC,
  UNSAFE;

  /// @param option that names the mode: `-t` or `-T`
  static CacheMode of(String option, String word) throws CommandException {
    for (CacheMode mode : values()) {
      if (mode.word().equals(word)) {
        return mode;
      }
    }
    throw new CommandException(
        option
            + " '"
            + word
            + "' is not a cache mode: use "
            + Arrays.stream(values()).map(CacheMode::word).collect(Collectors.joining(", ")));
  }

  private String word() {
    return name().toLowerCase(Locale.ROOT);
  }

  /// What an image opened in this mode promises.
  Durability durability() {
    return this == UNSAFE ? Durability.UNSAFE : Durability.FLUSHED;
  }
}
