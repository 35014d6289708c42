// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.Optional;

/// A pull: what lies beneath a drive's active layer, down to a base, goes up into it
/// (`block-stream`). The job finishes by itself and waits in `PENDING`, the drive drained, so that
/// the domain room can write its record; finalized, the active layer's image names the base as its
/// backing file, and stands on it.
///
/// @param target the drive
/// @param baseNode stays; beneath the active layer; absent: everything is pulled, nothing stays
/// @param backingName how the image is to name the base; absent: by its absolute path
/// @param bandwidthBytesPerSecond 0: no limit
public record StreamSpec(
    String jobId,
    String target,
    Optional<String> baseNode,
    Optional<String> backingName,
    long bandwidthBytesPerSecond) {}
