// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;

/// The guest-facing root of a disk: it stays while what is beneath changes.
///
/// Every guest request is counted in flight, so that the drive can be drained; every change (write,
/// zero, discard) locks its range, runs through the filters, and marks the dirty bitmaps before the
/// node beneath is asked.
public final class Drive implements BlockNode {
  /// While open no guest request runs; new ones wait. Drains nest.
  public interface Drained extends AutoCloseable {
    @Override
    void close();
  }

  public Drive(String name, BlockNode root) {
    throw new UnsupportedOperationException();
  }

  @Override
  public String name() {
    throw new UnsupportedOperationException();
  }

  @Override
  public long virtualSize() {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean readOnly() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void flush() throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// The guest's view of the whole chain: no extent is `UNALLOCATED` but where the last layer says
  /// so.
  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Closes the root.
  @Override
  public void close() throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Waits for the requests in flight and holds new ones, guest flushes too. Jobs that use [#root]
  /// are not held.
  public Drained drain() {
    throw new UnsupportedOperationException();
  }

  /// The node beneath, for jobs: reads and writes on it pass by the filters, the bitmaps and the
  /// drain.
  public BlockNode root() {
    throw new UnsupportedOperationException();
  }

  /// Puts another node of the same size beneath. Only while drained by the caller. The old one is
  /// not closed.
  public void repoint(BlockNode newRoot) {
    throw new UnsupportedOperationException();
  }

  /// Holds a range against guest changes: a background copy's extent from its read to its write.
  public RangeLock.Held lockRange(long offset, long length) {
    throw new UnsupportedOperationException();
  }

  /// Adds or removes a filter. Only while drained by the caller. Filters run `before` in order of
  /// adding, `after` in the reverse.
  public void addFilter(WriteFilter filter) {
    throw new UnsupportedOperationException();
  }

  public void removeFilter(WriteFilter filter) {
    throw new UnsupportedOperationException();
  }

  /// Adds a bitmap that records guest changes while it is enabled. Only while drained by the
  /// caller. Names are unique.
  public void addBitmap(DirtyBitmap bitmap) {
    throw new UnsupportedOperationException();
  }

  public Optional<DirtyBitmap> removeBitmap(String name) {
    throw new UnsupportedOperationException();
  }

  public List<DirtyBitmap> bitmaps() {
    throw new UnsupportedOperationException();
  }

  /// Counts since the drive was made.
  public IoStatistics statistics() {
    throw new UnsupportedOperationException();
  }
}
