// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// A half-open range of guest bytes `[offset, offset + length)`; both non-negative, and their sum
/// fits a `long`.
public record ByteRange(long offset, long length) {
  public ByteRange {
    if (offset < 0 || length < 0 || offset > Long.MAX_VALUE - length) {
      throw new IllegalArgumentException("range at " + offset + " of " + length + " bytes");
    }
  }

  /// First byte past the range.
  public long end() {
    return offset + length;
  }

  /// Whether a byte lies in both; an empty range overlaps nothing.
  public boolean overlaps(long otherOffset, long otherLength) {
    return length > 0
        && otherLength > 0
        && offset < otherOffset + otherLength
        && otherOffset < end();
  }
}
