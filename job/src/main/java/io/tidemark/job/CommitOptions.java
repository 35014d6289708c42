// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.FormatNode;
import java.time.Duration;
import java.util.List;

/// What a [CommitJob] commits, and how.
///
/// @param id the job's name
/// @param drive whose chain holds all these nodes
/// @param overlay the layer directly above `top`
/// @param top the uppermost layer to commit
/// @param base beneath `top`, writable
/// @param reference how the overlay is to record the base
/// @param bandwidthBytesPerSecond 0 for no limit
/// @param decision how long a pending job waits, with the guest held, to be finalized
/// @param clock what throttle and limits go by
/// @param baseBitmaps those of them that are enabled record what the job writes into the base, each
///   range before it is written; each covers the whole of the base, at its final size
public record CommitOptions(
    String id,
    Drive drive,
    FormatNode overlay,
    BlockNode top,
    BlockNode base,
    BackingReference reference,
    long bandwidthBytesPerSecond,
    Duration decision,
    JobClock clock,
    List<DirtyBitmap> baseBitmaps) {
  public CommitOptions {
    baseBitmaps = List.copyOf(baseBitmaps);
    if (bandwidthBytesPerSecond < 0) {
      throw new IllegalArgumentException("job " + id + ": bandwidth " + bandwidthBytesPerSecond);
    }
  }
}
