// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;

/// A change a guest asked for. Write, zero and discard are equal for every [WriteFilter] (rule 7).
public sealed interface GuestWrite {
  long offset();

  long length();

  /// @param bytes read-only view, position to limit; take a `duplicate()` to read it
  record Data(long offset, ByteBuffer bytes) implements GuestWrite {
    @Override
    public long length() {
      return bytes.remaining();
    }
  }

  record Zeroes(long offset, long length, ZeroMode mode) implements GuestWrite {}

  record Discard(long offset, long length) implements GuestWrite {}

  /// Does the same to another node.
  default void applyTo(BlockNode node) throws BlockException {
    switch (this) {
      case Data(long offset, ByteBuffer bytes) -> node.write(offset, bytes.duplicate());
      case Zeroes(long offset, long length, ZeroMode mode) ->
          node.writeZeroes(offset, length, mode);
      case Discard(long offset, long length) -> node.discard(offset, length);
    }
  }
}
