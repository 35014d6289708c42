// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.Map;

/// Limits of a drive's guest requests (QEMU: `block_set_io_throttle`).
///
/// @param group drives of one group share the limits; empty: the drive alone
/// @param limits those that there are
/// @param operationBytes a request counts as one operation for each of so many bytes; 0: as one
public record ThrottleSpec(String group, Map<Kind, Limit> limits, long operationBytes) {
  /// What is limited.
  public enum Kind {
    TOTAL_BYTES,
    READ_BYTES,
    WRITE_BYTES,
    TOTAL_OPERATIONS,
    READ_OPERATIONS,
    WRITE_OPERATIONS
  }

  /// @param average a second
  /// @param max a second, for `lengthSeconds`; 0: no burst
  public record Limit(long average, long max, long lengthSeconds) {}

  public ThrottleSpec {
    limits = Map.copyOf(limits);
  }
}
