// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Pulls what lies beneath a drive's top image, down to a base or to the chain's end, up into it
/// (QEMU: block-stream; libvirt: pull). Then the top stands on the base alone, or on nothing.
///
/// The guest writes the top meanwhile: each extent is held on the drive from the question what the
/// top lacks to the write. What the guest wrote is the top's own and is left alone. On no base,
/// zeroes are not written: where nothing answers, zeroes are read.
public final class StreamJob extends LayerJob {
  private final StreamOptions options;

  public StreamJob(StreamOptions options) {
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
    return options.top();
  }

  @Override
  BlockNode source() {
    return options.top();
  }

  @Override
  boolean guestWritesTarget() {
    return true;
  }

  @Override
  void prepare() {}

  @Override
  List<Extent> wanted(long offset, long length) throws BlockException {
    Optional<BlockNode> beneath = options.top().backing();
    List<Extent> found = new ArrayList<>();
    if (beneath.isEmpty() || beneath.equals(options.base())) {
      return found;
    }
    options
        .top()
        .extents(
            offset,
            length,
            extent -> {
              if (extent.state() == Extent.State.UNALLOCATED) {
                addBeneath(beneath.get(), extent, found);
              }
              return true;
            });
    return found;
  }

  private void addBeneath(BlockNode beneath, Extent lacking, List<Extent> found)
      throws BlockException {
    long there = Math.clamp(beneath.virtualSize() - lacking.offset(), 0L, lacking.length());
    Extents.LayerVisitor visitor =
        (extent, _, _) -> {
          boolean wanted =
              switch (extent.state()) {
                case DATA -> true;
                case ZERO -> options.base().isPresent();
                case UNALLOCATED -> false;
              };
          if (wanted) {
            found.add(extent);
          }
          return true;
        };
    if (options.base().isPresent()) {
      Extents.walkAbove(beneath, options.base().get(), lacking.offset(), there, visitor);
      if (there < lacking.length()) {
        // Past the end of what is taken out: zeroes now, though the base may be longer.
        found.add(
            new Extent(
                lacking.offset() + there, lacking.length() - there, Extent.State.ZERO, -1, false));
      }
    } else {
      Extents.walk(beneath, lacking.offset(), there, visitor);
    }
  }

  /// On disk: everything pulled is there, flushed. Here the header changes, in one step of the
  /// format's; before and after it the image reads the same, over the old backing file and over the
  /// new one.
  @Override
  void takeEffect() throws BlockException {
    Optional<BlockNode> old = options.top().backing();
    if (old.isEmpty()) {
      return;
    }
    options.top().changeBacking(options.reference());
    if (old.equals(options.base())) {
      return; // only its name was to change
    }
    Optional<BlockNode> _ = options.top().detachBacking();
    options.base().ifPresent(options.top()::attachBacking);
  }
}
