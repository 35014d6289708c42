// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Map;
import java.util.Optional;

/// What a new image is to be.
///
/// @param virtualSize bytes
/// @param backing recorded as it is given; not opened
/// @param options further options by QEMU's names (`cluster_size`, `preallocation`, …); a format
///   refuses those it does not know by name
public record CreateOptions(
    long virtualSize, Optional<BackingReference> backing, Map<String, String> options) {
  public CreateOptions {
    if (virtualSize < 0) {
      throw new IllegalArgumentException("virtual size " + virtualSize);
    }
    options = Map.copyOf(options);
  }

  public static CreateOptions ofSize(long virtualSize) {
    return new CreateOptions(virtualSize, Optional.empty(), Map.of());
  }
}
