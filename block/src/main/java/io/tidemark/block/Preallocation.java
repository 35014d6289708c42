// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Locale;
import java.util.Optional;

/// What is done ahead for bytes that a disk has not been given yet. In order of cost.
///
/// Spec: qemu `qapi/block-core.json`, `PreallocMode`.
public enum Preallocation {
  /// Nothing.
  OFF,
  /// The format's tables; the space of the data is left to the file system.
  METADATA,
  /// The tables, and space reserved for the data.
  FALLOC,
  /// The tables, and zeroes written where the data will be.
  FULL;

  /// QEMU's word for it.
  public String word() {
    return name().toLowerCase(Locale.ROOT);
  }

  public static Optional<Preallocation> of(String word) {
    for (Preallocation one : values()) {
      if (one.word().equals(word)) {
        return Optional.of(one);
      }
    }
    return Optional.empty();
  }
}
