// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Some disks, one behind the other, as one that is read. Any thread may read; one at a time asks
/// for the state, with offsets that only grow.
final class SourceDisk {
  /// @param start offset of its first byte in the whole
  private record Part(BlockNode node, long start, LayerStatus status) {
    long end() {
      return start + node.virtualSize();
    }
  }

  private final List<Part> parts = new ArrayList<>();
  private final boolean layered;
  private final long size;
  private int asked; // part of the last question about the state

  /// What guests read in these disks.
  SourceDisk(List<? extends BlockNode> nodes) {
    this(nodes, Optional.empty());
  }

  /// What the layers of `top` above `base` hold: the rest is `UNALLOCATED`.
  SourceDisk(BlockNode top, BlockNode base) {
    this(List.of(top), Optional.of(base));
  }

  private SourceDisk(List<? extends BlockNode> nodes, Optional<BlockNode> base) {
    layered = base.isPresent();
    long at = 0;
    for (BlockNode node : nodes) {
      LayerStatus status =
          base.isPresent() ? LayerStatus.above(node, base.get()) : LayerStatus.ofChain(node);
      parts.add(new Part(node, at, status));
      at = Math.addExact(at, node.virtualSize());
    }
    this.size = at;
  }

  long size() {
    return size;
  }

  /// What the range that begins at `offset` holds: one state, not beyond the disk that it is in.
  /// `UNALLOCATED` is only said of layers above a base; elsewhere it is `ZERO`.
  ///
  /// @param enough bytes from which on the end of the range need not be looked for
  Extent at(long offset, long enough) throws BlockException {
    while (offset >= parts.get(asked).end()) {
      asked++;
    }
    Part part = parts.get(asked);
    Extent found = part.status.at(offset - part.start, enough);
    Extent.State state = found.state();
    if (!layered && state == Extent.State.UNALLOCATED) {
      state = Extent.State.ZERO;
    }
    return new Extent(found.offset() + part.start, found.length(), state, -1, false);
  }

  /// Fills `into` with the bytes from `offset` on, across the disks.
  void read(long offset, ByteBuffer into) throws BlockException {
    int limit = into.limit();
    for (Part part : parts) {
      if (offset >= part.end() || !into.hasRemaining()) {
        continue;
      }
      into.limit((int) Math.min(limit, into.position() + (part.end() - offset)));
      int before = into.position();
      part.node.read(offset - part.start, into);
      offset += into.position() - before;
      into.limit(limit);
    }
  }
}
