// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;

/// The buffer of a thread that copies from node to node.
public final class CopyBuffer {
  /// Bytes that are read and then written at a time. A quarter of what the cache next to a
  /// processor holds today: the write then finds there what the read has left. With 1 MiB a copy
  /// between files in the page cache took more than twice the processor time; with less than 128
  /// KiB the calls begin to count.
  public static final int BYTES = 256 << 10;

  private CopyBuffer() {}

  /// A new one, direct.
  public static ByteBuffer make() {
    return ByteBuffer.allocateDirect(BYTES);
  }
}
