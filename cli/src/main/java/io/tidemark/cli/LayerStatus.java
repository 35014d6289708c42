// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import org.jspecify.annotations.Nullable;

/// What a chain holds at one offset after the other, asked with an offset that only grows. Used by
/// one thread at a time.
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

  /// Of the layers above `base`, which is beneath `top`: `UNALLOCATED` ranges are the base's.
  static LayerStatus above(BlockNode top, BlockNode base) {
    return new LayerStatus(top, base);
  }

  /// The state at `offset`, with its end. `offset` is in the disk.
  Extent at(long offset) throws BlockException {
    return at(offset, WINDOW);
  }

  /// As [#at(long)], but the range may end once it has `enough` bytes, though the state goes on.
  /// Where the bytes lie plays no part: a range of one state is one range.
  Extent at(long offset, long enough) throws BlockException {
    Extent known = current;
    if (known != null && offset >= known.offset() && offset < known.end()) {
      return known;
    }
    long length = Math.min(WINDOW, top.virtualSize() - offset);
    var run = new Run(enough);
    if (base == null) {
      Extents.walk(top, offset, length, run);
    } else {
      Extents.walkAbove(top, base, offset, length, run);
    }
    Extent found = run.found;
    if (found == null) {
      throw new IllegalStateException(top.name() + ": no extent at " + offset);
    }
    current = found;
    return found;
  }

  /// Joins neighbours of one state.
  private static final class Run implements Extents.LayerVisitor {
    private final long enough;
    @Nullable Extent found; // null before the first

    Run(long enough) {
      this.enough = enough;
    }

    @Override
    public boolean visit(Extent extent, int depth, BlockNode layer) {
      Extent before = found;
      if (before == null) {
        found = extent;
      } else if (before.state() == extent.state()) {
        found =
            new Extent(
                before.offset(), before.length() + extent.length(), before.state(), -1, false);
      } else {
        return false;
      }
      return extent.end() - (before == null ? extent.offset() : before.offset()) < enough;
    }
  }
}
