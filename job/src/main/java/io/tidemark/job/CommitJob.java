// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.ZeroMode;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Commits layers of a drive's chain that no guest writes, from `top` down to above `base`, into
/// the base (QEMU: block-commit of an intermediate layer). Then the overlay above `top` stands on
/// the base. Committing the active layer is a [MirrorJob] onto the base.
///
/// What is written into the base is hidden by the layers that are committed, so the guest reads the
/// same throughout. The base gets the size of `top`; what a longer base has beyond it was hidden
/// and would come to light, so it becomes zero.
public final class CommitJob extends LayerJob {
  private final CommitOptions options;

  public CommitJob(CommitOptions options) {
    super(
        options.id(),
        options.drive(),
        options.bandwidthBytesPerSecond(),
        options.decision(),
        options.clock());
    this.options = options;
  }

  @Override
  BlockNode target() {
    return options.base();
  }

  @Override
  BlockNode source() {
    return options.top();
  }

  @Override
  boolean guestWritesTarget() {
    return false;
  }

  @Override
  void prepare() throws BlockException {
    long size = options.top().virtualSize();
    long base = options.base().virtualSize();
    if (base < size) {
      options.base().resize(size);
    } else if (base > size) {
      writes(size, base - size);
      options.base().writeZeroes(size, base - size, ZeroMode.MAY_UNMAP);
    }
  }

  @Override
  void writes(long offset, long length) {
    for (DirtyBitmap bitmap : options.baseBitmaps()) {
      bitmap.record(offset, length);
    }
  }

  @Override
  List<Extent> wanted(long offset, long length) throws BlockException {
    List<Extent> found = new ArrayList<>();
    Extents.walkAbove(
        options.top(),
        options.base(),
        offset,
        length,
        (extent, _, _) -> {
          if (extent.state() != Extent.State.UNALLOCATED) {
            found.add(extent);
          }
          return true;
        });
    return found;
  }

  /// On disk: the base holds everything committed, flushed. Here the overlay's header changes, in
  /// one step of the format's; before and after it the overlay reads the same, over `top` and over
  /// the base.
  @Override
  void takeEffect() throws BlockException {
    boolean readOnly = options.overlay().readOnly();
    if (readOnly) {
      options.overlay().reopen(false);
    }
    try {
      options.overlay().changeBacking(Optional.of(options.reference()));
    } finally {
      if (readOnly) {
        options.overlay().reopen(true);
      }
    }
    Optional<BlockNode> _ = options.overlay().detachBacking();
    options.overlay().attachBacking(options.base());
  }
}
