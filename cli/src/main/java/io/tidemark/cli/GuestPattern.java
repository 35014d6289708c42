// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/// What the demo's guest puts into a block: 4096 bytes that follow from the block's number and the
/// number of the operation that wrote it, so that any block of any copy can be judged by itself.
///
/// Layout, big-endian: magic, block, operation, then 509 words of a mixed counter.
public final class GuestPattern {
  /// Bytes of a block.
  public static final int BLOCK = 4096;

  private static final long MAGIC = 0x74696465_6d61726bL; // "tidemark"

  private GuestPattern() {}

  /// Puts one block at the buffer's position and advances it by [#BLOCK].
  public static void put(ByteBuffer into, long block, long operation) {
    ByteBuffer words = into.slice(into.position(), BLOCK).order(ByteOrder.BIG_ENDIAN);
    words.putLong(MAGIC).putLong(block).putLong(operation);
    long state = mix(block * 0x9E3779B97F4A7C15L + operation);
    while (words.hasRemaining()) {
      state += 0x9E3779B97F4A7C15L;
      words.putLong(mix(state));
    }
    into.position(into.position() + BLOCK);
  }

  /// The operation that the block at `offset` of `from` claims, or -1 when it is not a block of
  /// ours.
  public static long operation(ByteBuffer from, int offset, long block) {
    ByteBuffer words = from.duplicate().order(ByteOrder.BIG_ENDIAN);
    if (words.getLong(offset) != MAGIC || words.getLong(offset + 8) != block) {
      return -1;
    }
    return words.getLong(offset + 16);
  }

  // The finaliser of SplitMix64: every bit of the input reaches every bit of the result.
  private static long mix(long value) {
    long z = (value ^ (value >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }
}
