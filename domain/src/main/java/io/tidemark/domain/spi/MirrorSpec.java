// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// A live copy of a drive. The job waits in `PENDING` for `finalizeJob` when it was completed with
/// a pivot, so that the domain room can write its record first.
///
/// @param target drive to copy
/// @param mirrorNode node that receives the copy, added before
/// @param shallow copy only the active layer (QEMU: sync=top); else the whole guest view
///   (sync=full)
/// @param targetIsZero the target is new and reads as zeroes, so zeroes need not be written
/// @param granularityBytes 0: the driver's default (64 KiB)
/// @param bandwidthBytesPerSecond 0: no limit
/// @param bufferBytes most bytes in flight, 0: the driver's default
/// @param synchronousWrites mirror guest writes before acknowledging them from the start
public record MirrorSpec(
    String jobId,
    String target,
    String mirrorNode,
    boolean shallow,
    boolean targetIsZero,
    int granularityBytes,
    long bandwidthBytesPerSecond,
    long bufferBytes,
    boolean synchronousWrites) {}
