// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// A guest's request that failed (QEMU: BLOCK_IO_ERROR).
///
/// @param target the drive
/// @param action what was done
/// @param noSpace whether for want of space
public record RequestFailure(String target, Action action, boolean noSpace) {
  /// What was done about it.
  public enum Action {
    /// The guest was told that it was done.
    IGNORED,
    /// It is held, and made again after [RunningDomain#resume]. The domain should be suspended.
    HELD,
    /// The guest was told.
    REPORTED
  }
}
