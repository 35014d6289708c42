// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.List;
import java.util.Optional;

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

  /// Starts the server at which clients read frozen views; one at a time. On failure nothing
  /// listens.
  void startViewServer(ViewServerSpec server) throws DriverException;

  /// Offers a view at that server.
  void exportView(ViewExportSpec export) throws DriverException;

  /// Ends the server: requests that it has received end, clients are disconnected, the socket's
  /// file goes. Does nothing when there is none.
  void stopViewServer();

  /// Starts a live copy (`blockdev-mirror`, auto-finalize and auto-dismiss off).
  void startMirror(MirrorSpec mirror) throws DriverException;

  /// Starts a pull (`block-stream`, auto-finalize and auto-dismiss off).
  void startStream(StreamSpec stream) throws DriverException;

  /// Starts a commit (`block-commit`, auto-finalize and auto-dismiss off).
  void startCommit(CommitSpec commit) throws DriverException;

  /// Records another backing file, or none, in a node's image (`change-backing-file`), durably. The
  /// graph stays as it is: what the image is opened over is the domain room's word.
  void changeBackingFile(String node, Optional<ImageService.Backing> backing)
      throws DriverException;

  /// Asks a ready mirror to complete (`job-complete`): it catches up, drains the drive, flushes
  /// both sides and goes to `PENDING`. Kind `JOB_STATE` when it is not ready.
  void completeJob(String id) throws DriverException;

  /// Lets a pending job take effect (`job-finalize`) and the guest go on: a mirror, or a commit of
  /// the active layer, re-points the drive to its node; a pull or another commit puts an image over
  /// its new backing file, in its header and in the graph. After a re-pointing the drive's bitmaps
  /// go with it: they are stored in the new image when its format can hold them, and are dropped
  /// when it cannot. When the call fails, nothing took effect: a re-pointing job is still pending
  /// and its drive drained; another one is over, and what the guest reads is the same over both
  /// chains.
  void finalizeJob(String id) throws DriverException;

  /// Ends a job without effect (`job-cancel`). A ready mirror stops at one instant of the guest,
  /// its node then holds a consistent copy of that instant, flushed.
  void cancelJob(String id) throws DriverException;

  /// Forgets a concluded job (`job-dismiss`).
  void dismissJob(String id) throws DriverException;

  /// Live; 0 for no limit.
  void setJobSpeed(String id, long bandwidthBytesPerSecond) throws DriverException;

  /// Plugs a disk in (`blockdev-add` and `device_add`): the guest reaches it when the call returns.
  /// On failure nothing of it is open.
  void addDrive(DriveSpec drive) throws DriverException;

  /// Takes a disk out: its guest is disconnected, its data is flushed, its persistent bitmaps are
  /// stored and its images closed. Kind `GENERIC` while a job uses it. What could not be flushed is
  /// the exception; the disk is out in any case.
  void removeDrive(String target) throws DriverException;

  /// Limits the guest's requests from now on (`block_set_io_throttle`); empty: not at all.
  void setThrottle(String target, Optional<ThrottleSpec> limits) throws DriverException;

  /// Has the listener told, once, when the guest writes beyond an offset of the active layer's file
  /// (`block-set-write-threshold`).
  ///
  /// @param bytes unsigned; 0: never
  void setWriteThreshold(String target, long bytes) throws DriverException;

  /// Every job not yet dismissed.
  List<JobState> jobs();

  /// The drive's bitmaps, inconsistent ones too.
  List<BitmapState> bitmaps(String target) throws DriverException;

  DriveStatistics statistics(String target) throws DriverException;

  /// Why requests of the drive are held that failed (QEMU: `io-status`): for want of space, or for
  /// something else; empty when none is.
  Optional<Trouble> trouble(String target) throws DriverException;

  /// What a drive has met.
  enum Trouble {
    NO_SPACE,
    OTHER
  }

  /// Sizes of the active layer.
  ImageSizes sizes(String target) throws DriverException;

  /// Sets the size of the active layer and of the drive (`block_resize`); its bitmaps follow. The
  /// guest sees it when it connects again. Refused while a job uses the drive.
  ///
  /// @param bytes a multiple of 512
  void resize(String target, long bytes) throws DriverException;

  /// Bytes that a guest would see of a node (`query-named-block-nodes`).
  long virtualSize(String node) throws DriverException;

  /// Holds guest requests.
  void suspend() throws DriverException;

  /// Lets them go on, and makes those again that failed and were held.
  void resume() throws DriverException;

  /// Ends guest access, cancels jobs, stores persistent bitmaps, flushes and closes every node.
  /// What could not be flushed is the exception; the domain is stopped in any case.
  void stop() throws DriverException;

  /// Lets go for a restart of the daemon: as [#stop], but the guest is not told goodbye: it
  /// reconnects.
  void detach() throws DriverException;
}
