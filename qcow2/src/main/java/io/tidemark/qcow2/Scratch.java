// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.nio.ByteBuffer;
import java.util.concurrent.ArrayBlockingQueue;

/// Buffers of one cluster, kept for the next copy-on-write.
final class Scratch {
  private static final int KEPT_BYTES = 4 << 20;

  private final int size;
  private final ArrayBlockingQueue<ByteBuffer> kept;

  Scratch(int clusterSize) {
    size = clusterSize;
    kept = new ArrayBlockingQueue<>(Math.clamp(KEPT_BYTES / clusterSize, 2, 64));
  }

  /// A cleared buffer with undefined content.
  ByteBuffer take() {
    ByteBuffer buffer = kept.poll();
    return buffer == null ? ByteBuffer.allocateDirect(size) : buffer.clear();
  }

  void give(ByteBuffer buffer) {
    boolean _ = kept.offer(buffer);
  }
}
