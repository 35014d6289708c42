// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What a mirror copies, and the one way in which a range gets from the source to the target.
///
/// [#dirty] has a bit for every granule that the target may not hold. [#touched] has one for every
/// granule of the target that was written since the job began: only where it is clear may a zero of
/// the source be skipped on a new target, or a range that the base answers for be left to the base.
///
/// The source is asked what it holds under the range lock, so the answer and the bytes belong
/// together. Writes, zeroes and discards of the guest all end here or in [MirrorLanes]; a discard
/// always here, since nodes may differ in what they make of one.
final class MirrorCopy {
  /// Bytes that are looked at in one go for what need not be copied; the guest's writes to them
  /// wait meanwhile.
  private static final long SCAN_BYTES = 64L << 20;

  final DirtyBitmap dirty;
  private final DirtyBitmap touched;
  private final Drive source;
  private final BlockNode target;
  private final Optional<BlockNode> base;
  private final boolean zeroesMayStay;
  private final List<DirtyBitmap> targetBitmaps;

  MirrorCopy(MirrorOptions options) {
    this.source = options.source();
    this.target = options.target();
    this.base = options.base();
    this.zeroesMayStay = options.targetIsZero() && base.isEmpty();
    long size = source.virtualSize();
    this.dirty = new DirtyBitmap(options.id() + "-dirty", size, options.granularityBytes());
    this.touched = new DirtyBitmap(options.id() + "-touched", size, options.granularityBytes());
    this.targetBitmaps = options.targetBitmaps();
    dirty.setAll();
  }

  /// Whether [#skippable] may find anything.
  boolean skipsAnything() {
    return zeroesMayStay || base.isPresent();
  }

  /// The window to look at next for what need not be copied.
  ByteRange scanWindow(long offset) {
    long step = Math.max(SCAN_BYTES, dirty.granularity());
    return new ByteRange(offset, Math.min(step, source.virtualSize() - offset));
  }

  /// Whole granules of the window that the target holds as it is. The caller holds the window.
  List<ByteRange> skippable(ByteRange window) throws BlockException {
    List<ByteRange> runs = new ArrayList<>();
    for (Extent extent : extents(window.offset(), window.length())) {
      if (!staysAsIs(extent)) {
        continue;
      }
      int last = runs.size() - 1;
      if (last >= 0 && runs.get(last).end() == extent.offset()) {
        long offset = runs.get(last).offset();
        runs.set(last, new ByteRange(offset, extent.end() - offset));
      } else {
        runs.add(new ByteRange(extent.offset(), extent.length()));
      }
    }
    return runs.stream().map(this::wholeGranules).filter(r -> r.length() > 0).toList();
  }

  private boolean staysAsIs(Extent extent) {
    return switch (extent.state()) {
      case DATA -> false;
      case ZERO -> zeroesMayStay;
      case UNALLOCATED -> zeroesMayStay || base.isPresent();
    };
  }

  private ByteRange wholeGranules(ByteRange range) {
    long mask = dirty.granularity() - 1L;
    long from = (range.offset() + mask) & ~mask;
    long to = range.end() == source.virtualSize() ? range.end() : range.end() & ~mask;
    return new ByteRange(from, Math.max(0, to - from));
  }

  /// Bytes of the granules that a range touches.
  long granuleBytes(long offset, long length) {
    long mask = dirty.granularity() - 1L;
    return Math.min((offset + length + mask) & ~mask, source.virtualSize()) - (offset & ~mask);
  }

  /// Whether every granule of the range is dirty.
  boolean allDirty(long offset, long length) {
    return dirty
        .nextDirty(offset, Long.MAX_VALUE)
        .filter(r -> r.offset() <= offset && r.end() >= offset + length)
        .isPresent();
  }

  /// About to change the range of the target.
  void touch(long offset, long length) {
    touched.set(offset, length);
    for (DirtyBitmap bitmap : targetBitmaps) {
      bitmap.record(offset, length);
    }
  }

  /// Makes the range of the target what the source holds. The caller holds the range of the drive,
  /// or answers for what changes meanwhile.
  ///
  /// @return bytes of data that were copied
  long copy(long offset, long length, ByteBuffer buffer) throws BlockException {
    long data = 0;
    for (Extent extent : extents(offset, length)) {
      switch (extent.state()) {
        case DATA -> data += copyData(extent.offset(), extent.length(), buffer);
        case ZERO -> zero(extent);
        case UNALLOCATED -> {
          if (base.isPresent()) {
            data += copyTouched(extent, buffer);
          } else {
            zero(extent);
          }
        }
      }
    }
    return data;
  }

  private List<Extent> extents(long offset, long length) throws BlockException {
    List<Extent> found = new ArrayList<>();
    Extents.LayerVisitor visitor =
        (extent, _, _) -> {
          found.add(extent);
          return true;
        };
    BlockNode root = source.root();
    if (base.isPresent()) {
      Extents.walkAbove(root, base.get(), offset, length, visitor);
    } else {
      Extents.walk(root, offset, length, visitor);
    }
    return found;
  }

  private long copyData(long offset, long length, ByteBuffer buffer) throws BlockException {
    BlockNode root = source.root();
    touch(offset, length);
    long end = offset + length;
    for (long at = offset; at < end; at += buffer.limit()) {
      buffer.clear().limit((int) Math.min(buffer.capacity(), end - at));
      root.read(at, buffer);
      target.write(at, buffer.flip());
    }
    return length;
  }

  private void zero(Extent extent) throws BlockException {
    if (!zeroesMayStay) {
      touch(extent.offset(), extent.length());
      target.writeZeroes(extent.offset(), extent.length(), ZeroMode.MAY_UNMAP);
      return;
    }
    for (ByteRange range : touchedWithin(extent)) {
      target.writeZeroes(range.offset(), range.length(), ZeroMode.MAY_UNMAP);
    }
  }

  private long copyTouched(Extent extent, ByteBuffer buffer) throws BlockException {
    long data = 0;
    for (ByteRange range : touchedWithin(extent)) {
      data += copyData(range.offset(), range.length(), buffer);
    }
    return data;
  }

  private List<ByteRange> touchedWithin(Extent extent) {
    List<ByteRange> ranges = new ArrayList<>();
    long from = extent.offset();
    while (from < extent.end()) {
      Optional<ByteRange> next = touched.nextDirty(from, Long.MAX_VALUE);
      if (next.isEmpty() || next.get().offset() >= extent.end()) {
        break;
      }
      long start = Math.max(from, next.get().offset());
      from = Math.min(next.get().end(), extent.end());
      ranges.add(new ByteRange(start, from - start));
    }
    return ranges;
  }
}
