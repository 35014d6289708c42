// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.List;
import java.util.Optional;

/// One part of a transaction: all parts happen at one instant of the guest, over all drives, or
/// none does.
///
/// Bitmaps are named per drive. Spec: QEMU qapi/transaction.json.
public sealed interface TransactionAction {
  /// The drive it concerns.
  String target();

  /// A new, empty, recording bitmap, kept in the image on a clean stop when `persistent`.
  record AddBitmap(String target, String bitmap, long granularityBytes, boolean persistent)
      implements TransactionAction {}

  record RemoveBitmap(String target, String bitmap) implements TransactionAction {}

  /// Ors `sources` into `bitmap`.
  record MergeBitmaps(String target, String bitmap, List<String> sources)
      implements TransactionAction {}

  /// Starts a backup of the drive's content at this instant. In one transaction several are one
  /// group: when one fails or is cancelled, all end (QEMU: completion-mode grouped). It finalizes
  /// by itself; it is concluded when its target is complete and flushed.
  ///
  /// @param backupNode node that receives it, added before
  /// @param bitmap copy only what it marks now (the bitmap itself is not changed); absent:
  ///   everything
  record StartBackup(
      String target,
      String jobId,
      String backupNode,
      Optional<String> bitmap,
      long bandwidthBytesPerSecond)
      implements TransactionAction {}

  /// Keeps the drive's content at this instant readable (QEMU: a backup with sync mode "none"),
  /// until the job is cancelled or its scratch fails. In one transaction several are one group, as
  /// with [StartBackup]; the two do not go together. [RunningDomain#exportView] offers it.
  ///
  /// @param scratchNode node that takes what the guest overwrites, added before
  /// @param bitmap goes with the view as it is now (the bitmap itself is not changed)
  record StartView(String target, String jobId, String scratchNode, Optional<String> bitmap)
      implements TransactionAction {}

  /// Puts an overlay over the drive's top (`blockdev-snapshot`): from this instant on the guest
  /// writes to the overlay, and what was the top lies beneath, flushed. The drive's bitmaps record
  /// on and go with it. No other action of the transaction may concern the drive.
  ///
  /// @param overlayNode added before, of the drive's size, with nothing beneath
  record Snapshot(String target, String overlayNode) implements TransactionAction {}
}
