// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.Extent;

/// `base:allocation`: what a reader of a node finds, its backing chain included.
///
/// Spec: proto.md, "Metadata contexts", `base:allocation`.
final class Allocation {
  private Allocation() {}

  /// Flags for an extent of `Extents.walk`.
  static int flags(Extent extent) {
    return switch (extent.state()) {
      case DATA -> 0;
      // qemu: 7.2 says so also of zeroes that keep their space
      case UNALLOCATED, ZERO -> Wire.State.HOLE | Wire.State.ZERO;
    };
  }
}
