// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// A range of one node's own layer that has one state.
///
/// @param offset guest offset, bytes
/// @param length bytes, at least 1
/// @param state what a read finds, as far as this layer alone knows
/// @param hostOffset where the bytes lie in the file beneath, or -1 when there is no such single
///   place; for `UNALLOCATED`, the place that stands ready and holds nothing yet
/// @param compressed whether the bytes are stored compressed (then `hostOffset` is -1)
public record Extent(long offset, long length, State state, long hostOffset, boolean compressed) {
  /// What a layer holds for a range.
  public enum State {
    /// Bytes are stored here.
    DATA,
    /// Reads as zeroes because this layer says so; nothing beneath is asked.
    ZERO,
    /// Not in this layer: the backing node answers, or zeroes where there is none (or it is
    /// shorter).
    UNALLOCATED
  }

  public long end() {
    return offset + length;
  }
}
