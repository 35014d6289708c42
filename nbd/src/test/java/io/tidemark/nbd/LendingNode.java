// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.Borrower;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ReadOnlyNode;
import io.tidemark.block.TransportException;
import java.nio.ByteBuffer;
import java.util.concurrent.atomic.AtomicLong;

/// A disk in memory that lends its bytes in pieces, and can be told to stop lending, and to fail,
/// from some byte on.
final class LendingNode implements ReadOnlyNode {
  private final ByteBuffer bytes;
  private final int piece;
  final AtomicLong lent = new AtomicLong();
  final AtomicLong read = new AtomicLong();
  volatile long lendsTo = Long.MAX_VALUE;
  volatile long readsTo = Long.MAX_VALUE;

  LendingNode(byte[] content, int piece) {
    bytes = ByteBuffer.allocateDirect(content.length).put(content).flip();
    this.piece = piece;
  }

  @Override
  public int lend(long offset, int length, Borrower borrower) {
    int taken = 0;
    while (taken < length) {
      long at = offset + taken;
      int step = (int) Math.min(Math.min(piece, length - taken), Math.max(0, lendsTo - at));
      int got = step == 0 ? 0 : borrower.take(bytes.slice((int) at, step));
      taken += got;
      lent.addAndGet(got);
      if (got < step || step == 0) {
        break;
      }
    }
    return taken;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    int length = into.remaining();
    if (offset + length > readsTo) {
      throw new TransportException("disk: bad block");
    }
    into.put(bytes.slice((int) offset, length));
    read.addAndGet(length);
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    visitor.visit(new Extent(offset, length, Extent.State.DATA, offset, false));
  }

  @Override
  public String name() {
    return "disk";
  }

  @Override
  public String whyReadOnly() {
    return "a test reads it";
  }

  @Override
  public long virtualSize() {
    return bytes.capacity();
  }

  @Override
  public void close() {}
}
