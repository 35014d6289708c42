// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.Optional;

/// A commit: what the layers from `topNode` down to above `baseNode` hold goes down into the base
/// (`block-commit`). The base is writable meanwhile.
///
/// When `topNode` is the drive's active layer the job is a mirror onto the base: it becomes `READY`
/// and follows the guest until it is completed, and finalizing makes the base the drive's image.
/// Else it finishes by itself, waits in `PENDING`, the drive drained, and finalizing makes the
/// layer above `topNode` name the base as its backing file, and stand on it.
///
/// @param target the drive
/// @param backingName how the image above is to name the base; absent: by its absolute path. Means
///   nothing for the active layer
/// @param bandwidthBytesPerSecond 0: no limit
public record CommitSpec(
    String jobId,
    String target,
    String topNode,
    String baseNode,
    Optional<String> backingName,
    long bandwidthBytesPerSecond) {}
