// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import java.util.List;
import java.util.Optional;

/// What a [MirrorJob] copies, and how.
///
/// @param id the job's name
/// @param source the drive to copy
/// @param target receives the copy; of the drive's size. The job never closes it
/// @param base of the source's chain: what it and the nodes beneath hold is not copied, since the
///   target's own backing chain answers for it (a shallow copy); absent: the whole guest view
/// @param targetIsZero the target is new and reads as zeroes (with a base: as the base), so zeroes
///   are not written
/// @param granularityBytes bytes per bit of the mirror's bitmap, a power of two
/// @param bandwidthBytesPerSecond limit of the background copy, 0 for none
/// @param bufferBytes most bytes in flight, the job's buffers in all
/// @param synchronousWrites mirror guest writes before they are acknowledged from the start, not
///   only when the copy would not converge
/// @param limits how long the guest waits for the target
/// @param clock what limits and throttle go by
/// @param targetBitmaps those of them that are enabled record what the job writes into the target,
///   each range before it is written; of the drive's size
public record MirrorOptions(
    String id,
    Drive source,
    BlockNode target,
    Optional<BlockNode> base,
    boolean targetIsZero,
    int granularityBytes,
    long bandwidthBytesPerSecond,
    long bufferBytes,
    boolean synchronousWrites,
    MirrorLimits limits,
    JobClock clock,
    List<DirtyBitmap> targetBitmaps) {
  /// QEMU's.
  public static final long DEFAULT_BUFFER_BYTES = 16L << 20;

  public MirrorOptions {
    targetBitmaps = List.copyOf(targetBitmaps);
    if (target.virtualSize() != source.virtualSize()) {
      throw new IllegalArgumentException(
          "job %s: target %s has %d bytes, the drive %d"
              .formatted(id, target.name(), target.virtualSize(), source.virtualSize()));
    }
    if (Integer.bitCount(granularityBytes) != 1 || granularityBytes < DirtyBitmap.MIN_GRANULARITY) {
      throw new IllegalArgumentException(
          "job %s: granularity %d, a power of two from %d to %d is wanted"
              .formatted(id, granularityBytes, DirtyBitmap.MIN_GRANULARITY, 1 << 30));
    }
    if (bandwidthBytesPerSecond < 0 || bufferBytes < 0) {
      throw new IllegalArgumentException(
          "job %s: bandwidth %d, buffer %d".formatted(id, bandwidthBytesPerSecond, bufferBytes));
    }
  }

  /// A full copy with every default.
  public static MirrorOptions of(String id, Drive source, BlockNode target) {
    return new MirrorOptions(
        id,
        source,
        target,
        Optional.empty(),
        false,
        DirtyBitmap.DEFAULT_GRANULARITY,
        0,
        DEFAULT_BUFFER_BYTES,
        false,
        MirrorLimits.DEFAULT,
        JobClock.SYSTEM,
        List.of());
  }

  /// The same as a shallow copy over `node`.
  public MirrorOptions withBase(Optional<BlockNode> node) {
    return new MirrorOptions(
        id,
        source,
        target,
        node,
        targetIsZero,
        granularityBytes,
        bandwidthBytesPerSecond,
        bufferBytes,
        synchronousWrites,
        limits,
        clock,
        targetBitmaps);
  }

  public MirrorOptions withTargetIsZero(boolean value) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        value,
        granularityBytes,
        bandwidthBytesPerSecond,
        bufferBytes,
        synchronousWrites,
        limits,
        clock,
        targetBitmaps);
  }

  /// @param value 0: the default
  public MirrorOptions withGranularity(int value) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        value == 0 ? DirtyBitmap.DEFAULT_GRANULARITY : value,
        bandwidthBytesPerSecond,
        bufferBytes,
        synchronousWrites,
        limits,
        clock,
        targetBitmaps);
  }

  public MirrorOptions withBandwidth(long bytesPerSecond) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        granularityBytes,
        bytesPerSecond,
        bufferBytes,
        synchronousWrites,
        limits,
        clock,
        targetBitmaps);
  }

  /// @param bytes 0: the default
  public MirrorOptions withBuffer(long bytes) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        granularityBytes,
        bandwidthBytesPerSecond,
        bytes == 0 ? DEFAULT_BUFFER_BYTES : bytes,
        synchronousWrites,
        limits,
        clock,
        targetBitmaps);
  }

  public MirrorOptions withSynchronousWrites(boolean value) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        granularityBytes,
        bandwidthBytesPerSecond,
        bufferBytes,
        value,
        limits,
        clock,
        targetBitmaps);
  }

  public MirrorOptions withLimits(MirrorLimits value, JobClock time) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        granularityBytes,
        bandwidthBytesPerSecond,
        bufferBytes,
        synchronousWrites,
        value,
        time,
        targetBitmaps);
  }

  public MirrorOptions withTargetBitmaps(List<DirtyBitmap> bitmaps) {
    return new MirrorOptions(
        id,
        source,
        target,
        base,
        targetIsZero,
        granularityBytes,
        bandwidthBytesPerSecond,
        bufferBytes,
        synchronousWrites,
        limits,
        clock,
        bitmaps);
  }
}
