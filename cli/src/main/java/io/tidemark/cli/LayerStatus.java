// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import org.jspecify.annotations.Nullable;

/// What a chain holds at one offset after the other, asked with an offset that only grows. Used by
/// one thread.
final class LayerStatus {
  /// Bytes that one look goes forward at most, so that an empty disk of terabytes is not walked
  /// before the first answer.
  private static final long WINDOW = 1L << 30;

  private final BlockNode top;
  private final @Nullable BlockNode base; // not asked; null: the whole chain
  private @Nullable Extent current; // the last one found; null before the first

  private LayerStatus(BlockNode top, @Nullable BlockNode base) {
    this.top = top;
    this.base = base;
  }

  /// Over the whole chain: ranges that no layer holds are `UNALLOCATED` and read as zeroes.
  static LayerStatus ofChain(BlockNode top) {
    return new LayerStatus(top, null);
  }

  /// Of the top layer alone: `UNALLOCATED` ranges are its backing node's.
  static LayerStatus ofLayer(BlockNode top) {
    return new LayerStatus(top, top.backing().orElse(null));
  }

  /// The state at `offset`, with its end. `offset` is in the disk.
  Extent at(long offset) throws BlockException {
    Extent known = current;
    if (known != null && offset >= known.offset() && offset < known.end()) {
      return known;
    }
    long length = Math.min(WINDOW, top.virtualSize() - offset);
    Extent[] first = new Extent[1];
    Extents.LayerVisitor visitor =
        (extent, _, _) -> {
          first[0] = extent;
          return false;
        };
    if (base == null) {
      Extents.walk(top, offset, length, visitor);
    } else {
      Extents.walkAbove(top, base, offset, length, visitor);
    }
    if (first[0] == null) {
      throw new IllegalStateException(top.name() + ": no extent at " + offset);
    }
    current = first[0];
    return first[0];
  }
}
