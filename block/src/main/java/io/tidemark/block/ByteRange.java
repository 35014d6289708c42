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

  public boolean overlaps(long otherOffset, long otherLength) {
    return offset < otherOffset + otherLength && otherOffset < end();
  }
}
