// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Drive;
import io.tidemark.block.FormatNode;
import java.time.Duration;
import java.util.Optional;

/// What a [StreamJob] pulls, and how.
///
/// @param id the job's name
/// @param drive whose root is `top`
/// @param top receives what it lacks
/// @param base beneath `top`, stays its backing node; absent: everything is pulled
/// @param reference how `top` is to record the base; absent without a base
/// @param bandwidthBytesPerSecond 0 for no limit
/// @param decision how long a pending job waits, with the guest held, to be finalized
/// @param clock what throttle and limits go by
public record StreamOptions(
    String id,
    Drive drive,
    FormatNode top,
    Optional<BlockNode> base,
    Optional<BackingReference> reference,
    long bandwidthBytesPerSecond,
    Duration decision,
    JobClock clock) {
  public StreamOptions {
    if (base.isPresent() != reference.isPresent()) {
      throw new IllegalArgumentException("job " + id + ": a base and its reference go together");
    }
    if (bandwidthBytesPerSecond < 0) {
      throw new IllegalArgumentException("job " + id + ": bandwidth " + bandwidthBytesPerSecond);
    }
  }
}
