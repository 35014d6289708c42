// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;

/// A node that is only ever read: every change is refused, and there is nothing to flush.
public interface ReadOnlyNode extends BlockNode {
  /// Why, for the error's text, behind the node's name.
  String whyReadOnly();

  @Override
  default boolean readOnly() {
    return true;
  }

  private ReadOnlyNodeException refusal() {
    return new ReadOnlyNodeException(name() + ": " + whyReadOnly());
  }

  @Override
  default void write(long offset, ByteBuffer from) throws BlockException {
    throw refusal();
  }

  @Override
  default void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    throw refusal();
  }

  @Override
  default void discard(long offset, long length) throws BlockException {
    throw refusal();
  }

  @Override
  default void flush() {}
}
