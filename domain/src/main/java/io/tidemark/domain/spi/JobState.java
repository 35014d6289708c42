// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.Optional;

/// A job as the driver reports it.
///
/// @param id chosen by the domain room: `copy-vda-libvirt-3-format`
/// @param current bytes done; never decreases
/// @param total bytes to do as known now; grows while the guest writes
/// @param bandwidthBytesPerSecond limit, 0 for none
/// @param error why it failed; absent when it did not, or was cancelled
/// @param cancelled whether it ended, or is ending, because someone asked
public record JobState(
    String id,
    Kind kind,
    DriverJobStatus status,
    long current,
    long total,
    long bandwidthBytesPerSecond,
    Optional<DriverException> error,
    boolean cancelled) {
  public enum Kind {
    MIRROR,
    BACKUP,
    STREAM,
    COMMIT
  }
}
