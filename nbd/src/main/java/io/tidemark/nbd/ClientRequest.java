// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.Waiting;
import java.nio.ByteBuffer;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// One request of a client on its way.
///
/// The caller makes it and waits; the connection's reader alone changes it until it is over, and
/// touches `data` no more after that.
final class ClientRequest {
  final int type;
  final int flags;
  final long offset;
  final long length; // u32 unless headers are extended
  final ByteBuffer data; // WRITE: what is sent; READ: `length` bytes to fill; else empty

  /// Block status: the context whose extents are wanted; the server may answer others too.
  int context = -1;

  /// Block status: length and flags of each extent, alternating.
  private long[] extents = new long[16];

  private int extentFields;

  /// Bytes of a read that came.
  long covered;

  /// The server's first complaint.
  @Nullable BlockException failure;

  private boolean over;
  private @Nullable ConnectionLostException lost;

  ClientRequest(int type, int flags, long offset, long length, ByteBuffer data) {
    this.type = type;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.data = data;
  }

  void addExtent(long extentLength, long extentFlags) {
    if (extentFields == extents.length) {
      extents = Arrays.copyOf(extents, extentFields * 2);
    }
    extents[extentFields++] = extentLength;
    extents[extentFields++] = extentFlags;
  }

  int extentCount() {
    return extentFields / 2;
  }

  long extentLength(int index) {
    return extents[2 * index];
  }

  long extentFlags(int index) {
    return extents[2 * index + 1];
  }

  /// Ends the request, well unless the connection was lost.
  synchronized void end(@Nullable ConnectionLostException cause) {
    over = true;
    lost = cause;
    notifyAll();
  }

  /// Waits for the end, uninterruptibly.
  void await() throws ConnectionLostException, BlockException {
    Waiting.until(this, () -> over);
    if (lost != null) {
      throw lost;
    }
    if (failure != null) {
      throw failure;
    }
  }
}
