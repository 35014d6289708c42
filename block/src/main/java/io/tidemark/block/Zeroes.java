// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;

/// Zero bytes: telling them, and having some at hand. Any thread may call.
public final class Zeroes {
  /// Bytes in the shared block of zeroes.
  public static final int BLOCK = 256 * 1024;

  private static final ByteBuffer ZEROES = ByteBuffer.allocateDirect(BLOCK).asReadOnlyBuffer();

  private Zeroes() {}

  /// Whether all bytes from position to limit are zero; an empty buffer is. Position and limit
  /// stay.
  public static boolean isZero(ByteBuffer bytes) {
    int position = bytes.position();
    int end = bytes.limit();
    // Most data differs in its first bytes: ask them before the block is set up.
    if (end - position >= Long.BYTES && bytes.getLong(position) != 0) {
      return false;
    }
    ByteBuffer zeroes = ZEROES.duplicate();
    ByteBuffer part = bytes.duplicate();
    while (position < end) {
      int length = Math.min(BLOCK, end - position);
      part.limit(position + length).position(position);
      if (part.mismatch(zeroes.clear().limit(length)) != -1) {
        return false;
      }
      position += length;
    }
    return true;
  }

  /// A read-only buffer of `length` zeroes, at most [#BLOCK].
  public static ByteBuffer of(int length) {
    return ZEROES.duplicate().limit(length);
  }

  /// Puts zeroes from position to limit.
  public static void fill(ByteBuffer into) {
    while (into.hasRemaining()) {
      into.put(of(Math.min(BLOCK, into.remaining())));
    }
  }
}
