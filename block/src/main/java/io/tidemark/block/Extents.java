// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// The layers of a chain, looked at from above.
///
/// What is found for a range is the topmost layer that holds it. Where a layer's backing node is
/// shorter, the rest reads as zeroes, whatever lies deeper: that part is never asked of the layers
/// beneath. Neighbours that continue each other are one extent.
public final class Extents {
  /// Receives extents of a chain in order of offset, without gaps.
  @FunctionalInterface
  public interface LayerVisitor {
    /// @param extent what was found; `UNALLOCATED` when no layer that was looked at holds it: then
    ///   the base answers, and where there is none it reads as zeroes
    /// @param depth layers between the top and `layer`
    /// @param layer the node that holds the range, or for `UNALLOCATED` the last one asked
    /// @return whether to go on
    boolean visit(Extent extent, int depth, BlockNode layer) throws BlockException;
  }

  private Extents() {}

  /// Walks the whole chain: what a guest reads.
  public static void walk(BlockNode top, long offset, long length, LayerVisitor visitor)
      throws BlockException {
    new Walk(null, visitor).run(top, offset, length);
  }

  /// Walks the layers above `base`, which itself is not asked: what a shallow copy onto `base` must
  /// hold. Ranges of these layers that read as zeroes, though `base` may hold something there, are
  /// `ZERO`. `base` lies beneath `top`, or this throws `IllegalArgumentException`.
  public static void walkAbove(
      BlockNode top, BlockNode base, long offset, long length, LayerVisitor visitor)
      throws BlockException {
    BlockNode layer = top.backing().orElse(null);
    while (layer != null && !layer.equals(base)) {
      layer = layer.backing().orElse(null);
    }
    if (layer == null) {
      throw new IllegalArgumentException(base.name() + " is not beneath " + top.name());
    }
    new Walk(base, visitor).run(top, offset, length);
  }

  private static final class Walk {
    private final @Nullable BlockNode base; // null: to the chain's end
    private final LayerVisitor visitor;
    private boolean more = true;

    // The extent that neighbours may still extend; null before the first.
    private @Nullable Extent pending;
    private int pendingDepth;
    private @Nullable BlockNode pendingLayer;

    Walk(@Nullable BlockNode base, LayerVisitor visitor) {
      this.base = base;
      this.visitor = visitor;
    }

    void run(BlockNode top, long offset, long length) throws BlockException {
      layer(top, 0, offset, length);
      if (more) {
        deliver();
      }
    }

    private void layer(BlockNode node, int depth, long offset, long length) throws BlockException {
      if (length > 0) {
        node.extents(offset, length, extent -> found(node, depth, extent));
      }
    }

    private boolean found(BlockNode node, int depth, Extent extent) throws BlockException {
      BlockNode beneath = node.backing().orElse(null);
      if (extent.state() != Extent.State.UNALLOCATED || beneath == null || beneath.equals(base)) {
        add(extent, depth, node);
        return more;
      }
      long inBacking = Math.clamp(beneath.virtualSize() - extent.offset(), 0L, extent.length());
      layer(beneath, depth + 1, extent.offset(), inBacking);
      if (more && inBacking < extent.length()) {
        Extent.State past = base == null ? Extent.State.UNALLOCATED : Extent.State.ZERO;
        long from = extent.offset() + inBacking;
        // qemu: a place that stands ready is told where nothing beneath answers.
        long host = extent.hostOffset() < 0 ? -1 : extent.hostOffset() + inBacking;
        add(new Extent(from, extent.end() - from, past, host, false), depth, node);
      }
      return more;
    }

    private void add(Extent extent, int depth, BlockNode layer) throws BlockException {
      if (pending != null && layer.equals(pendingLayer) && continues(pending, extent)) {
        pending =
            new Extent(
                pending.offset(),
                pending.length() + extent.length(),
                pending.state(),
                pending.hostOffset(),
                pending.compressed());
        return;
      }
      deliver();
      pending = extent;
      pendingDepth = depth;
      pendingLayer = layer;
    }

    private void deliver() throws BlockException {
      if (more && pending != null && pendingLayer != null) {
        more = visitor.visit(pending, pendingDepth, pendingLayer);
        pending = null;
      }
    }

    private static boolean continues(Extent before, Extent after) {
      boolean sameKind =
          before.state() == after.state()
              && before.compressed() == after.compressed()
              && before.end() == after.offset();
      boolean samePlace =
          before.hostOffset() < 0
              ? after.hostOffset() < 0
              : after.hostOffset() == before.hostOffset() + before.length();
      return sameKind && samePlace;
    }
  }
}
