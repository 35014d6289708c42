// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.util.Optional;

/// Brings into an overlay all that would read otherwise over another backing node.
///
/// The overlay keeps its old chain meanwhile, and its header is not changed here: after a crash it
/// reads as before, and holds some more. What the overlay holds already, and clusters that both
/// chains read alike, are not written. Whole clusters are, so that no part of one is left to what
/// lies beneath.
final class Rebasing {
  private static final int BUFFER = 1 << 20;

  /// Bytes that are written together at least, where the overlay has no clusters.
  private static final int SECTOR = 512;

  private final FormatNode overlay;
  private final LayerStatus before;
  private final Optional<? extends BlockNode> newBacking;
  private final Optional<LayerStatus> after;
  private final boolean keptIsAlike; // what `before` does not hold reads alike
  private final int unit; // what differs is written in its multiples
  private final int buffer; // a multiple of it
  private final ByteBuffer oldBytes;
  private final ByteBuffer newBytes;

  /// @param kept node of the overlay's chain that the new backing node is another opening of: what
  ///   it holds reads alike and is not looked at
  Rebasing(FormatNode overlay, Optional<? extends BlockNode> newBacking, Optional<BlockNode> kept) {
    this.overlay = overlay;
    this.newBacking = newBacking;
    this.before =
        kept.isPresent() ? LayerStatus.above(overlay, kept.get()) : LayerStatus.ofChain(overlay);
    this.after = newBacking.map(LayerStatus::ofChain);
    this.keptIsAlike = kept.isPresent();
    this.unit = (int) Math.max(SECTOR, overlay.clusterSize());
    this.buffer = Math.max(BUFFER, unit);
    this.oldBytes = ByteBuffer.allocateDirect(buffer);
    this.newBytes = ByteBuffer.allocateDirect(buffer);
  }

  void run(Progress progress) throws BlockException {
    LayerStatus own = LayerStatus.ofLayer(overlay);
    long size = overlay.virtualSize();
    for (long at = 0; at < size; ) {
      Extent held = own.at(at);
      long end = Math.min(size, held.end());
      if (held.state() == Extent.State.UNALLOCATED) {
        range(at, end, progress);
      }
      at = end;
      progress.update(at, size);
    }
  }

  /// A range that the overlay does not hold.
  private void range(long from, long to, Progress progress) throws BlockException {
    for (long at = from; at < to; ) {
      Extent was = before.at(at);
      long end = Math.min(to, was.end());
      boolean wasZero = was.state() != Extent.State.DATA;
      if (keptIsAlike && was.state() == Extent.State.UNALLOCATED) {
        at = end;
        continue;
      }
      long newSize = newBacking.map(BlockNode::virtualSize).orElse(0L);
      boolean isZero = true;
      if (at < newSize) {
        Extent is = after.orElseThrow().at(at);
        isZero = is.state() != Extent.State.DATA;
        end = Math.min(end, Math.min(is.end(), newSize));
      }
      if (!wasZero || !isZero) {
        end = Math.min(end, at + buffer - at % buffer);
        compare(at, (int) (end - at), wasZero, isZero);
      }
      at = end;
      progress.update(at, overlay.virtualSize());
    }
  }

  private void compare(long offset, int length, boolean wasZero, boolean isZero)
      throws BlockException {
    ByteBuffer old = read(overlay, oldBytes, offset, length, wasZero);
    ByteBuffer now =
        isZero
            ? read(overlay, newBytes, offset, length, true)
            : read(newBacking.orElseThrow(), newBytes, offset, length, false);
    for (int from = 0; from < length; ) {
      int end = unitEnd(offset, from, length);
      boolean alikeHere = alike(old, now, from, end);
      while (end < length && alike(old, now, end, unitEnd(offset, end, length)) == alikeHere) {
        end = unitEnd(offset, end, length);
      }
      if (!alikeHere) {
        write(offset + from, old.slice(from, end - from));
      }
      from = end;
    }
  }

  private int unitEnd(long offset, int from, int length) {
    return (int) Math.min(length, from + unit - (offset + from) % unit);
  }

  private static boolean alike(ByteBuffer one, ByteBuffer other, int from, int to) {
    return one.slice(from, to - from).mismatch(other.slice(from, to - from)) < 0;
  }

  /// Writes what the range reads as into the overlay, so that it holds it whatever lies beneath.
  private void write(long offset, ByteBuffer bytes) throws BlockException {
    if (Zeroes.isZero(bytes)) {
      overlay.writeZeroes(offset, bytes.remaining(), ZeroMode.MAY_UNMAP);
      if (holds(offset, bytes.remaining())) {
        return; // an image without a way to say zero may have left it to what lies beneath now
      }
    }
    overlay.write(offset, bytes);
  }

  private boolean holds(long offset, long length) throws BlockException {
    boolean[] held = {true};
    overlay.extents(
        offset,
        length,
        extent -> {
          held[0] &= extent.state() != Extent.State.UNALLOCATED;
          return held[0];
        });
    return held[0];
  }

  private static ByteBuffer read(
      BlockNode node, ByteBuffer buffer, long offset, int length, boolean zero)
      throws BlockException {
    buffer.clear().limit(length);
    if (zero) {
      Zeroes.fill(buffer);
    } else {
      node.read(offset, buffer);
    }
    return buffer.flip();
  }
}
