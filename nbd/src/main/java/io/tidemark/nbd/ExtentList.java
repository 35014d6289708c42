// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import java.nio.ByteBuffer;
import java.util.Optional;

/// Appends the extents of a block status chunk to a buffer: neighbours of equal flags become one,
/// the number is bounded, and no extent passes the range that was asked for.
///
/// Spec: proto.md, NBD_REPLY_TYPE_BLOCK_STATUS.
final class ExtentList {
  private final ByteBuffer out;
  private final int max;
  private final boolean wide; // 64-bit lengths and flags
  private int count;
  private int lastFlags;
  private long lastLength;

  /// @param max extents at most, at least 1; `out` has room for them
  /// @param framing decides how wide an extent is; unless extended, a range has at most 2^32 - 1
  ///   bytes
  ExtentList(ByteBuffer out, int max, Framing framing) {
    this.out = out;
    this.max = max;
    this.wide = framing == Framing.EXTENDED;
  }

  /// `base:allocation` of a range.
  void allocation(BlockNode node, long offset, long length) throws BlockException {
    Extents.walk(
        node, offset, length, (extent, _, _) -> add(extent.length(), Allocation.flags(extent)));
    finish();
  }

  /// `qemu:allocation-depth` of a range: 0 where no layer of the chain holds anything, 1 where the
  /// top does, 2 where its backing node does, and so on.
  void depth(BlockNode node, long offset, long length) throws BlockException {
    node.layers(
        offset,
        length,
        (extent, depth, _) ->
            add(extent.length(), extent.state() == Extent.State.UNALLOCATED ? 0 : depth + 1));
    finish();
  }

  /// `qemu:dirty-bitmap` of a range. What lies past the bitmap's end counts as dirty.
  void dirty(DirtyBitmap bitmap, long offset, long length) {
    long end = offset + length;
    long at = offset;
    while (at < end) {
      if (at >= bitmap.size()) {
        add(end - at, Wire.State.DIRTY);
        break;
      }
      Optional<ByteRange> dirty = bitmap.nextDirty(at, Long.MAX_VALUE);
      long mapped = Math.min(end, bitmap.size());
      long from = Math.min(mapped, dirty.map(ByteRange::offset).orElse(mapped));
      if (from > at && !add(from - at, 0)) {
        break;
      }
      at = Math.max(at, from);
      long to = Math.min(mapped, dirty.map(ByteRange::end).orElse(mapped));
      if (to > at) {
        if (!add(to - at, Wire.State.DIRTY)) {
          break;
        }
        at = to;
      }
    }
    finish();
  }

  /// Extents appended so far.
  int count() {
    return count;
  }

  private boolean add(long length, int flags) {
    if (lastLength > 0 && flags != lastFlags) {
      if (count + 1 >= max) {
        return false;
      }
      put();
    }
    lastLength += length;
    lastFlags = flags;
    return true;
  }

  private void finish() {
    if (lastLength > 0) {
      put();
    }
  }

  private void put() {
    if (wide) {
      out.putLong(lastLength).putLong(lastFlags);
    } else {
      out.putInt((int) lastLength).putInt(lastFlags);
    }
    count++;
    lastLength = 0;
  }
}
