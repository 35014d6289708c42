// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.List;

/// A domain that a driver runs: QEMU behind a monitor, or the embedded engine.
///
/// Calls block and come from one thread at a time (the domain room holds the domain's lock). They
/// mirror QMP commands, so that a driver for QEMU is a translation. Notifications come through
/// [DriverListener], from other threads, never from within a call.
public interface RunningDomain {
  /// Adds an image and the chain beneath it (`blockdev-add`). Nodes of the chain whose names exist
  /// are used as they are.
  void addNode(NodeSpec node) throws DriverException;

  /// Closes a node and the nodes beneath it that nothing else uses (`blockdev-del`).
  void removeNode(String name) throws DriverException;

  /// All or none, at one instant of the guest (`transaction`). Actions take effect in their order:
  /// a bitmap added and merged by earlier ones can be the bitmap of a later
  /// [TransactionAction.StartBackup].
  void transaction(List<TransactionAction> actions) throws DriverException;

  /// Starts a live copy (`blockdev-mirror`, auto-finalize and auto-dismiss off).
  void startMirror(MirrorSpec mirror) throws DriverException;

  /// Asks a ready mirror to complete (`job-complete`): it catches up, drains the drive, flushes
  /// both sides and goes to `PENDING`. Kind `JOB_STATE` when it is not ready.
  void completeJob(String id) throws DriverException;

  /// Lets a pending job take effect (`job-finalize`): a mirror re-points the drive to its node and
  /// the guest goes on. The drive's bitmaps go with it: from then on they are stored in the new
  /// image when its format can hold them, and are dropped when it cannot. When the call fails, the
  /// job is still pending and the drive still drained.
  void finalizeJob(String id) throws DriverException;

  /// Ends a job without effect (`job-cancel`). A ready mirror stops at one instant of the guest,
  /// its node then holds a consistent copy of that instant, flushed.
  void cancelJob(String id) throws DriverException;

  /// Forgets a concluded job (`job-dismiss`).
  void dismissJob(String id) throws DriverException;

  /// Live; 0 for no limit.
  void setJobSpeed(String id, long bandwidthBytesPerSecond) throws DriverException;

  /// Every job not yet dismissed.
  List<JobState> jobs();

  /// The drive's bitmaps, inconsistent ones too.
  List<BitmapState> bitmaps(String target) throws DriverException;

  DriveStatistics statistics(String target) throws DriverException;

  /// Sizes of the active layer.
  ImageSizes sizes(String target) throws DriverException;

  /// Holds guest requests.
  void suspend() throws DriverException;

  void resume() throws DriverException;

  /// Ends guest access, cancels jobs, stores persistent bitmaps, flushes and closes every node.
  /// What could not be flushed is the exception; the domain is stopped in any case.
  void stop() throws DriverException;

  /// Lets go for a restart of the daemon: as [#stop], but the guest is not told goodbye: it
  /// reconnects.
  void detach() throws DriverException;
}
