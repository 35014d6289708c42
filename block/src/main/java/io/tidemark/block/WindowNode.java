// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Optional;

/// A part of another node, for `offset` and `size` of QEMU's `raw` driver. Its size is given. The
/// node's chain is part of it: there is no backing node.
public final class WindowNode implements BlockNode {
  private final BlockNode whole;
  private final long start;
  private final long size;

  private WindowNode(BlockNode whole, long start, long size) {
    this.whole = whole;
    this.start = start;
    this.size = size;
  }

  /// The part that the options `offset` and `size` name; `whole` itself when they are not there.
  static BlockNode of(BlockNode whole, SourceOptions options) throws BlockException {
    return of(whole, options.takeSize("offset"), options.takeSize("size"));
  }

  /// The part of `whole` from `offset`, of `size` bytes or up to the end; `whole` itself when
  /// neither is given. The part owns it.
  ///
  /// @throws UnsupportedImageException when the part does not lie within, or its size is no
  ///   multiple of 512
  public static BlockNode of(BlockNode whole, Optional<Long> offset, Optional<Long> size)
      throws BlockException {
    if (offset.isEmpty() && size.isEmpty()) {
      return whole;
    }
    long start = offset.orElse(0L);
    long there = whole.virtualSize();
    if (start > there) {
      throw new UnsupportedImageException(
          whole.name() + ": offset " + start + " is past the end of the file, " + there + " bytes");
    }
    if (size.isPresent() && size.get() % RawFormat.SECTOR != 0) {
      throw new UnsupportedImageException(
          whole.name() + ": size " + size.get() + " is not a multiple of " + RawFormat.SECTOR);
    }
    if (size.isPresent() && size.get() > there - start) {
      throw new UnsupportedImageException(
          whole.name()
              + ": offset "
              + start
              + " and size "
              + size.get()
              + " pass the end of the file, "
              + there
              + " bytes");
    }
    return new WindowNode(whole, start, size.orElse(there - start));
  }

  @Override
  public String name() {
    return whole.name();
  }

  @Override
  public long virtualSize() {
    return size;
  }

  @Override
  public boolean readOnly() {
    return whole.readOnly();
  }

  @Override
  public void reopen(boolean wantReadOnly) throws BlockException {
    whole.reopen(wantReadOnly);
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    whole.read(place(offset, into.remaining()), into);
  }

  @Override
  public int lend(long offset, int length, Borrower borrower) {
    return whole.lend(place(offset, length), length, borrower);
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    whole.write(place(offset, from.remaining()), from);
  }

  @Override
  public int writeUnit() {
    return whole.writeUnit();
  }

  @Override
  public boolean queues() {
    return whole.queues();
  }

  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    request.moveTo(place(request.offset(), request.length()));
    return whole.begin(request);
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    whole.writeZeroes(place(offset, length), length, mode);
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    whole.discard(place(offset, length), length);
  }

  @Override
  public void flush() throws BlockException {
    whole.flush();
  }

  @Override
  public void startWriteBack() throws BlockException {
    whole.startWriteBack();
  }

  /// Host offsets are those of the whole.
  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    layers(offset, length, (extent, _, _) -> visitor.visit(extent));
  }

  @Override
  public void layers(long offset, long length, Extents.LayerVisitor visitor) throws BlockException {
    whole.layers(
        place(offset, length),
        length,
        (extent, depth, layer) ->
            visitor.visit(
                new Extent(
                    extent.offset() - start,
                    extent.length(),
                    extent.state(),
                    extent.hostOffset(),
                    extent.compressed()),
                depth,
                layer));
  }

  @Override
  public long allocatedBytes() throws BlockException {
    return whole.allocatedBytes();
  }

  @Override
  public void close() throws BlockException {
    whole.close();
  }

  private long place(long offset, long length) {
    if (offset < 0 || length < 0 || offset > size - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + " of " + size);
    }
    return start + offset;
  }
}
