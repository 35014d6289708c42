// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.Extents;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;

/// A [FrozenView] as a node that is read. Closing it does nothing: the view is its job's.
final class FrozenNode implements BlockNode {
  private final String name;
  private final FrozenView view;

  FrozenNode(String drive, FrozenView view) {
    this.name = drive + " (frozen)";
    this.view = view;
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public long virtualSize() {
    return view.size();
  }

  @Override
  public boolean readOnly() {
    return true;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    check(offset, into.remaining());
    view.read(offset, into);
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    check(offset, length);
    view.extents(offset, length, visitor);
  }

  /// One layer: what lies beneath the drive is told as the view's own.
  @Override
  public void layers(long offset, long length, Extents.LayerVisitor visitor) throws BlockException {
    extents(offset, length, extent -> visitor.visit(extent, 0, this));
  }

  private void check(long offset, long length) {
    if (offset < 0 || length < 0 || offset > virtualSize() - length) {
      throw new IllegalArgumentException(
          name + ": " + length + " bytes at " + offset + " of " + virtualSize());
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    throw refused();
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    throw refused();
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    throw refused();
  }

  private BlockException refused() {
    return new ReadOnlyNodeException(name + ": is read-only");
  }

  /// There is nothing to flush.
  @Override
  public void flush() {}

  @Override
  public void close() {}
}
