// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.Extents;
import io.tidemark.block.ReadOnlyNode;
import java.nio.ByteBuffer;

/// A [FrozenView] as a node that is read. Closing it does nothing: the view is its job's.
final class FrozenNode implements ReadOnlyNode {
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
  public String whyReadOnly() {
    return "is read-only";
  }

  @Override
  public void close() {}
}
