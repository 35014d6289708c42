// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// How a drive takes what its guest asks for, beside doing it.
///
/// @param onReadError what becomes of reads that fail; not [OnError#STOP_WITHOUT_SPACE]
/// @param onWriteError of everything else that fails
/// @param discard whether discards, and zeroing that may unmap, give space back
/// @param zeroes how zeroes that the guest writes as data are taken
public record DriveManners(
    OnError onReadError, OnError onWriteError, boolean discard, WrittenZeroes zeroes) {
  /// What becomes of a request that fails (QEMU: `rerror`, `werror`).
  public enum OnError {
    /// The guest is told.
    REPORT,
    /// The guest is told that it was done.
    IGNORE,
    /// It is held, and the listener told that the domain should stop, until [RunningDomain#resume].
    STOP,
    /// As `STOP` when there is no space, else as `REPORT`.
    STOP_WITHOUT_SPACE
  }

  /// Of a block of zeroes that comes as data (QEMU: `detect-zeroes`).
  public enum WrittenZeroes {
    DATA,
    /// A cheap form of zeroes that keeps its space.
    ZEROES,
    /// As `ZEROES`, its space may be given back.
    UNMAP
  }

  /// Unless a definition says otherwise.
  public static final DriveManners USUAL =
      new DriveManners(OnError.REPORT, OnError.STOP_WITHOUT_SPACE, true, WrittenZeroes.DATA);
}
