// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import java.util.Optional;

/// What one job of a [BackupGroup] copies.
///
/// @param id the job's name
/// @param source the drive whose content at the group's instant is copied
/// @param target receives it; of the drive's size. The job never closes it
/// @param bitmap copy only what it marks at the group's instant, after the group's action ran; the
///   bitmap itself is not changed; absent: everything
/// @param targetIsZero the target is new and reads as zeroes, so that a full backup need not write
///   zeroes
/// @param scratch local, sparse, of the drive's size: old bytes wait there for the target. The job
///   never closes it
/// @param scratchLimitBytes most bytes in the scratch; a write that would need more fails the
///   backup, not the guest
/// @param bandwidthBytesPerSecond 0 for none
/// @param clock what the throttle goes by
public record BackupOptions(
    String id,
    Drive source,
    BlockNode target,
    Optional<DirtyBitmap> bitmap,
    boolean targetIsZero,
    BlockNode scratch,
    long scratchLimitBytes,
    long bandwidthBytesPerSecond,
    JobClock clock) {
  public BackupOptions {
    if (target.virtualSize() != source.virtualSize()
        || scratch.virtualSize() < source.virtualSize()) {
      throw new IllegalArgumentException(
          "job %s: target %s has %d bytes, scratch %s %d, the drive %d"
              .formatted(
                  id,
                  target.name(),
                  target.virtualSize(),
                  scratch.name(),
                  scratch.virtualSize(),
                  source.virtualSize()));
    }
    if (bandwidthBytesPerSecond < 0 || scratchLimitBytes < 0) {
      throw new IllegalArgumentException(
          "job %s: bandwidth %d, scratch limit %d"
              .formatted(id, bandwidthBytesPerSecond, scratchLimitBytes));
    }
  }

  /// A full backup, not throttled.
  public static BackupOptions of(
      String id, Drive source, BlockNode target, BlockNode scratch, long scratchLimitBytes) {
    return new BackupOptions(
        id,
        source,
        target,
        Optional.empty(),
        false,
        scratch,
        scratchLimitBytes,
        0,
        JobClock.SYSTEM);
  }

  public BackupOptions withBitmap(Optional<DirtyBitmap> value) {
    return new BackupOptions(
        id,
        source,
        target,
        value,
        targetIsZero,
        scratch,
        scratchLimitBytes,
        bandwidthBytesPerSecond,
        clock);
  }

  public BackupOptions withTargetIsZero(boolean value) {
    return new BackupOptions(
        id,
        source,
        target,
        bitmap,
        value,
        scratch,
        scratchLimitBytes,
        bandwidthBytesPerSecond,
        clock);
  }

  public BackupOptions withBandwidth(long bytesPerSecond) {
    return new BackupOptions(
        id,
        source,
        target,
        bitmap,
        targetIsZero,
        scratch,
        scratchLimitBytes,
        bytesPerSecond,
        clock);
  }

  public BackupOptions withClock(JobClock value) {
    return new BackupOptions(
        id,
        source,
        target,
        bitmap,
        targetIsZero,
        scratch,
        scratchLimitBytes,
        bandwidthBytesPerSecond,
        value);
  }
}
