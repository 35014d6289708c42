// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import java.util.Optional;

/// One drive of a [ViewGroup].
///
/// @param id the job's name
/// @param source the drive whose content at the group's instant is to be readable
/// @param bitmap what changed since an earlier moment: a copy of it as it is at the instant, after
///   the group's action ran, goes with the view; it is not changed
/// @param scratch local, of the drive's size: what the guest overwrites goes there first. The job
///   never closes it
/// @param scratchLimitBytes most bytes in the scratch; a write that would need more fails the view,
///   not the guest
/// @param clock of the job
public record ViewOptions(
    String id,
    Drive source,
    Optional<DirtyBitmap> bitmap,
    BlockNode scratch,
    long scratchLimitBytes,
    JobClock clock) {
  public ViewOptions {
    if (scratch.virtualSize() < source.virtualSize() || scratchLimitBytes < 0) {
      throw new IllegalArgumentException(
          "job %s: scratch %s has %d bytes, at most %d may be used, the drive %d"
              .formatted(
                  id,
                  scratch.name(),
                  scratch.virtualSize(),
                  scratchLimitBytes,
                  source.virtualSize()));
    }
  }
}
