// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Optional;
import java.util.UUID;

/// Uuids as libvirt reads them: 32 hexadecimal digits, hyphens anywhere between pairs.
final class Uuids {
  private Uuids() {}

  static Optional<UUID> parse(String text) {
    String digits = text.replace("-", "").replace(" ", "");
    if (digits.length() != 32 || !digits.matches("[0-9a-fA-F]{32}")) {
      return Optional.empty();
    }
    return Optional.of(
        new UUID(
            Long.parseUnsignedLong(digits.substring(0, 16), 16),
            Long.parseUnsignedLong(digits.substring(16), 16)));
  }
}
