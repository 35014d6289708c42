// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// How a disk is resized.
///
/// @param preallocation for the new bytes, when it grows
/// @param shrink whether a smaller size is meant; without it, shrinking is refused
public record ResizeOptions(Preallocation preallocation, boolean shrink) {
  /// Grow without preallocation.
  public static final ResizeOptions GROW = new ResizeOptions(Preallocation.OFF, false);

  /// Any size, without preallocation.
  public static final ResizeOptions ANY = new ResizeOptions(Preallocation.OFF, true);
}
