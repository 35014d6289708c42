// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.Optional;

/// Direct buffers of a server's connections, in five sizes, used again.
///
/// Every connection begins with two tiny ones, and has two small ones once it was used. Larger ones
/// are lent while `limitBytes` lasts; a connection that gets none goes on with what it has. Any
/// thread may call.
final class BufferPool {
  /// What a connection holds, twice, until a request does not fit.
  static final int TINY = 512;

  static final int SMALL = 32 << 10;

  /// Room for headers beside a payload of a round size.
  private static final int SLACK = 4 << 10;

  /// Every buffer begins at a multiple of this, for direct requests.
  private static final int PAGE = 4096;

  /// Of a request of 256 KiB.
  static final int QUARTER = (256 << 10) + SLACK;

  static final int MEDIUM = (512 << 10) + SLACK;
  static final int LARGE = (1 << 20) + SLACK;

  private static final int[] SIZES = {SMALL, QUARTER, MEDIUM, LARGE};

  /// Small buffers kept for the next connection; larger ones are all kept, `limitBytes` bounds
  /// them.
  private static final int SPARE_SMALL = 128;

  private final long limitBytes;
  private final ArrayDeque<ByteBuffer> small = new ArrayDeque<>();
  private final ArrayDeque<ByteBuffer> quarter = new ArrayDeque<>();
  private final ArrayDeque<ByteBuffer> medium = new ArrayDeque<>();
  private final ArrayDeque<ByteBuffer> large = new ArrayDeque<>();
  private long madeBytes; // medium and large ones, lent or spare

  BufferPool(long limitBytes) {
    this.limitBytes = limitBytes;
  }

  synchronized ByteBuffer small() {
    ByteBuffer spare = small.pollLast();
    return spare != null ? spare.clear() : make(SMALL);
  }

  /// Not kept: a connection needs them once.
  static ByteBuffer tiny() {
    return ByteBuffer.allocateDirect(TINY);
  }

  private static ByteBuffer make(int size) {
    return ByteBuffer.allocateDirect(size + PAGE).alignedSlice(PAGE).slice(0, size);
  }

  /// As [#lend], for one request: small ones are not counted, because a connection has a bounded
  /// number of requests.
  Optional<ByteBuffer> lendPage(int bytes) {
    return bytes <= SMALL ? Optional.of(small()) : lend(bytes);
  }

  /// A buffer of the smallest size that holds `bytes`; empty when there is none so large, or the
  /// limit is reached.
  synchronized Optional<ByteBuffer> lend(int bytes) {
    for (int size : SIZES) {
      if (size >= bytes && size != SMALL) {
        ByteBuffer spare = shelf(size).pollLast();
        if (spare != null) {
          return Optional.of(spare.clear());
        }
        if (madeBytes + size > limitBytes) {
          return Optional.empty();
        }
        try {
          ByteBuffer made = make(size);
          madeBytes += size;
          return Optional.of(made);
        } catch (OutOfMemoryError _) { // the JVM's own limit of direct memory
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  synchronized void giveBack(ByteBuffer buffer) {
    if (buffer.capacity() == TINY) {
      return;
    }
    if (buffer.capacity() != SMALL || small.size() < SPARE_SMALL) {
      shelf(buffer.capacity()).addLast(buffer);
    }
  }

  private ArrayDeque<ByteBuffer> shelf(int size) {
    return switch (size) {
      case SMALL -> small;
      case QUARTER -> quarter;
      case MEDIUM -> medium;
      case LARGE -> large;
      default -> throw new IllegalArgumentException("no buffers of " + size + " bytes");
    };
  }
}
