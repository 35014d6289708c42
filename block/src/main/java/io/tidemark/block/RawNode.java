// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Optional;

/// A raw image: its file, and zeroes from the file's end to the end of that sector.
///
/// Nothing is kept here, so there is no crash order of its own: a write that reaches into the last,
/// partial sector grows the file to whole sectors first, which changes no byte that a guest sees.
final class RawNode implements FormatNode {
  private final BlockNode file;
  private final String format;
  private volatile boolean readOnly;
  private volatile boolean guessed; // that this is raw

  RawNode(BlockNode file, boolean readOnly) throws BlockException {
    this(file, readOnly, "raw");
  }

  /// @param format what it calls itself: a protocol's name when that was asked for
  RawNode(BlockNode file, boolean readOnly, String format) throws BlockException {
    this.format = format;
    this.file = file;
    this.readOnly = readOnly || file.readOnly();
    RawFormat.roundUp(file.name(), file.virtualSize());
  }

  @Override
  public String format() {
    return format;
  }

  @Override
  public BlockNode file() {
    return file;
  }

  @Override
  public Optional<BackingReference> backingReference() {
    return Optional.empty();
  }

  @Override
  public void attachBacking(BlockNode backing) {
    throw new IllegalArgumentException(name() + ": a raw image has no backing node");
  }

  @Override
  public Optional<BlockNode> detachBacking() {
    return Optional.empty();
  }

  @Override
  public String name() {
    return file.name();
  }

  @Override
  public long virtualSize() {
    return (file.virtualSize() + RawFormat.SECTOR - 1) & -RawFormat.SECTOR;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    long fileSize = file.virtualSize();
    int length = into.remaining();
    if (offset <= fileSize - length) {
      file.read(offset, into);
      return;
    }
    check(offset, length);
    int limit = into.limit();
    int inFile = Math.clamp(fileSize - offset, 0, length);
    into.limit(into.position() + inFile);
    try {
      file.read(offset, into);
    } finally {
      into.limit(limit);
    }
    Zeroes.fill(into);
  }

  @Override
  public int lend(long offset, int length, Borrower borrower) {
    return file.lend(offset, length, borrower);
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    reach(offset, from.remaining());
    if (guessed && offset < ImageOpener.PROBE_BYTES) {
      writeHead(offset, from);
    } else {
      file.write(offset, from);
    }
  }

  @Override
  public int writeUnit() {
    return file.writeUnit();
  }

  @Override
  public boolean queues() {
    return file.queues();
  }

  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    boolean inFile = request.offset() <= file.virtualSize() - request.length();
    boolean harmless =
        !request.write() || !(readOnly || (guessed && request.offset() < ImageOpener.PROBE_BYTES));
    return inFile && harmless && file.begin(request);
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    reach(offset, length);
    file.writeZeroes(offset, length, mode);
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    reach(offset, length);
    file.discard(offset, length);
  }

  /// From now on a write is refused that would make the image look like another format: whoever
  /// guesses next would believe it. For an image whose format nobody told.
  void keepUnrecognisable() {
    guessed = true;
  }

  /// One at a time: two writes that are harmless alone could make a header together.
  private synchronized void writeHead(long offset, ByteBuffer from) throws BlockException {
    ByteBuffer head = ByteBuffer.allocate((int) Math.min(ImageOpener.PROBE_BYTES, virtualSize()));
    read(0, head);
    int length = Math.min(from.remaining(), head.capacity() - (int) offset);
    head.put((int) offset, from, from.position(), length);
    String other = Drivers.probe(head.clear()).name();
    if (!other.equals("raw")) {
      throw new ReadOnlyNodeException(
          name()
              + ": write at 0 would make the image look like "
              + other
              + "; its format was guessed as raw, and is to be told (-f raw) for that");
    }
    file.write(offset, from);
  }

  /// Checks a change, and makes the file cover it.
  private void reach(long offset, long length) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name() + ": opened read-only");
    }
    if (offset >= 0 && length >= 0 && offset <= file.virtualSize() - length) {
      return;
    }
    synchronized (this) {
      check(offset, length);
      if (virtualSize() > file.virtualSize()) {
        file.resize(virtualSize());
      }
    }
  }

  @Override
  public void flush() throws BlockException {
    file.flush();
  }

  @Override
  public void startWriteBack() throws BlockException {
    file.startWriteBack();
  }

  @Override
  public synchronized void reopen(boolean wantReadOnly) throws BlockException {
    if (wantReadOnly == readOnly) {
      return;
    }
    file.reopen(wantReadOnly);
    readOnly = wantReadOnly;
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    check(offset, length);
    long inFile = Math.clamp(file.virtualSize() - offset, 0L, length);
    var tail = new Tail(visitor);
    if (inFile > 0) {
      file.extents(offset, inFile, tail);
    }
    if (inFile < length && tail.more) {
      visitor.visit(
          new Extent(offset + inFile, length - inFile, Extent.State.ZERO, offset + inFile, false));
    }
  }

  /// Remembers whether the visitor wants what follows the file's end.
  private static final class Tail implements ExtentVisitor {
    private final ExtentVisitor visitor;
    private boolean more = true;

    Tail(ExtentVisitor visitor) {
      this.visitor = visitor;
    }

    @Override
    public boolean visit(Extent extent) throws BlockException {
      more = visitor.visit(extent);
      return more;
    }
  }

  /// The new size is rounded up to whole sectors.
  @Override
  public void resize(long newSize) throws BlockException {
    resize(newSize, ResizeOptions.ANY);
  }

  /// As above. `preallocation` is off, falloc (space reserved) or full (zeroes written). When space
  /// for the new bytes cannot be had, the size is the old one again.
  @Override
  public void resize(long newSize, ResizeOptions options) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name() + ": opened read-only");
    }
    Preallocation preallocation = options.preallocation();
    if (preallocation == Preallocation.METADATA) {
      throw new UnsupportedImageException(
          name() + ": preallocation 'metadata' is not one of off, falloc, full");
    }
    long size = RawFormat.roundUp(name(), newSize);
    long before = file.virtualSize();
    if (size < virtualSize() && !options.shrink()) {
      throw new UnsupportedImageException(
          name()
              + ": shrinking from "
              + virtualSize()
              + " to "
              + size
              + " bytes loses data; ask for it with --shrink");
    }
    if (size < before && preallocation != Preallocation.OFF) {
      throw new UnsupportedImageException(
          name() + ": preallocation=" + preallocation.word() + " cannot be used to shrink");
    }
    file.resize(size);
    if (size > before) {
      try {
        preallocate(file, before, size, preallocation);
      } catch (BlockException e) {
        try {
          file.resize(before);
        } catch (BlockException left) {
          e.addSuppressed(left);
        }
        throw e;
      }
    }
  }

  /// Takes space for bytes of a file that read as zeroes.
  static void preallocate(BlockNode file, long from, long to, Preallocation preallocation)
      throws BlockException {
    switch (preallocation) {
      case OFF, METADATA -> {}
      case FALLOC -> file.writeZeroes(from, to - from, ZeroMode.NO_UNMAP);
      case FULL -> {
        for (long at = from; at < to; at += Zeroes.BLOCK) {
          file.write(at, Zeroes.of((int) Math.min(Zeroes.BLOCK, to - at)));
        }
      }
    }
  }

  @Override
  public long allocatedBytes() throws BlockException {
    return file.allocatedBytes();
  }

  @Override
  public void close() throws BlockException {
    file.close();
  }

  private void check(long offset, long length) {
    long size = virtualSize();
    if (offset < 0 || length < 0 || offset > size - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + " of " + size);
    }
  }
}
