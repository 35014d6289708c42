// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/// A disk of any size that holds nothing, and notes the lengths it was told to zero.
final class SparseNode implements BlockNode {
  private final long size;
  final List<Long> zeroed = Collections.synchronizedList(new ArrayList<>());

  SparseNode(long size) {
    this.size = size;
  }

  @Override
  public String name() {
    return "sparse";
  }

  @Override
  public long virtualSize() {
    return size;
  }

  @Override
  public boolean readOnly() {
    return false;
  }

  @Override
  public void read(long offset, ByteBuffer into) {
    into.position(into.limit());
  }

  @Override
  public void write(long offset, ByteBuffer from) {
    from.position(from.limit());
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) {
    zeroed.add(length);
  }

  @Override
  public void discard(long offset, long length) {}

  @Override
  public void flush() {}

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    visitor.visit(new Extent(offset, length, Extent.State.UNALLOCATED, -1, false));
  }

  @Override
  public void close() {}
}
