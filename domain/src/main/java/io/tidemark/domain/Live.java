// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.LaunchSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// What a domain is while it runs, and what its live record says. Guarded by the domain's lock.
final class Live {
  /// Most jobs that a restart ended which are remembered; the oldest are forgotten.
  static final int MAX_LOST = 100;

  private final int id;
  private final Definition definition;
  private final List<LiveDisk> disks;
  private final boolean autodestroy;
  private final List<String> lost = new ArrayList<>();
  private int nextIndex;
  private DomainState state;
  // Null while no backup runs.
  private @Nullable BackupJob backup;
  // Null but between the intent to make a checkpoint and its document.
  private @Nullable PendingCheckpoint pendingCheckpoint;

  // Null but between the commit of a snapshot and the end of its making.
  private @Nullable PendingSnapshot pendingSnapshot;

  /// A snapshot that the chains hold and whose document and definition may not be written yet.
  ///
  /// @param metadata whether it is to be remembered
  record PendingSnapshot(SnapshotDocument snapshot, boolean metadata) {}

  /// A checkpoint whose bitmaps may be there while its document is not yet.
  ///
  /// @param targets disks that get the bitmap
  record PendingCheckpoint(String name, List<String> targets) {}

  Live(
      int id,
      Definition definition,
      List<LiveDisk> disks,
      boolean autodestroy,
      int nextIndex,
      DomainState state) {
    this.id = id;
    this.definition = definition;
    this.disks = new ArrayList<>(disks);
    this.autodestroy = autodestroy;
    this.nextIndex = nextIndex;
    this.state = state;
  }

  int id() {
    return id;
  }

  Definition definition() {
    return definition;
  }

  List<LiveDisk> disks() {
    return List.copyOf(disks);
  }

  /// Of a disk that is plugged in; its document is in the definition.
  void addDisk(LiveDisk disk) {
    disks.add(disk);
  }

  void removeDisk(LiveDisk disk) {
    disks.remove(disk);
  }

  boolean autodestroy() {
    return autodestroy;
  }

  /// Takes the next number for an image.
  int takeIndex() {
    return nextIndex++;
  }

  int nextIndex() {
    return nextIndex;
  }

  DomainState state() {
    return state;
  }

  void state(DomainState next) {
    state = next;
  }

  @Nullable BackupJob backup() {
    return backup;
  }

  void backup(@Nullable BackupJob job) {
    backup = job;
  }

  @Nullable PendingCheckpoint pendingCheckpoint() {
    return pendingCheckpoint;
  }

  void pendingCheckpoint(@Nullable PendingCheckpoint pending) {
    pendingCheckpoint = pending;
  }

  @Nullable PendingSnapshot pendingSnapshot() {
    return pendingSnapshot;
  }

  void pendingSnapshot(@Nullable PendingSnapshot pending) {
    pendingSnapshot = pending;
  }

  /// Jobs that a restart of the daemon ended in this run, oldest first, each with the reason:
  /// nobody hears an event while there is no daemon.
  List<String> lost() {
    return List.copyOf(lost);
  }

  void remember(String lostJob) {
    if (lost.size() == MAX_LOST) {
      lost.removeFirst();
    }
    lost.add(lostJob);
  }

  /// Whether a job runs on one of the disks.
  boolean hasBlockJob() {
    return backup != null || disks.stream().anyMatch(disk -> disk.job() != null);
  }

  /// The disk that a client calls so.
  LiveDisk disk(String name) throws LibvirtException {
    return find(name)
        .orElseThrow(
            () -> ErrorCode.INVALID_ARG.because("disk '%s' not found in domain".formatted(name)));
  }

  Optional<LiveDisk> find(String name) {
    return disks.stream().filter(disk -> disk.isCalled(name)).findFirst();
  }

  /// What a driver needs to run it as it is now.
  LaunchSpec launchSpec() {
    List<DriveSpec> drives = new ArrayList<>();
    for (LiveDisk disk : disks) {
      if (disk.hasMedium()) {
        drives.add(disk.driveSpec());
      }
    }
    return new LaunchSpec(definition.name(), definition.uuid(), id, drives, state.isPaused());
  }
}
