// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.TransactionAction;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.MergeBitmaps;
import io.tidemark.domain.spi.TransactionAction.RemoveBitmap;
import io.tidemark.domain.spi.TransactionAction.Snapshot;
import io.tidemark.domain.spi.TransactionAction.StartBackup;
import io.tidemark.domain.spi.TransactionAction.StartView;
import io.tidemark.job.BackupGroup;
import io.tidemark.job.BackupJob;
import io.tidemark.job.BackupOptions;
import io.tidemark.job.JobClock;
import io.tidemark.job.ViewGroup;
import io.tidemark.job.ViewOptions;
import io.tidemark.qcow2.Qcow2Image;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// One transaction over the drives of a domain: all of it at one instant of the guest, or nothing.
///
/// Whatever can fail happens before the instant, in this order, and is taken back in the reverse
/// when a later step fails:
///
/// 1. *Plan*: each action is held against what the ones before it leave. Nothing is changed.
/// 2. *Images*: names of new persistent bitmaps go into their images, in use; names of removed ones
///    leave them. A crash from here on leaves bitmaps that are inconsistent or missing: both make
///    an increment be refused.
/// 3. *Jobs* are made, with their scratch files.
/// 4. *The instant*: all drives concerned are drained; those that get an overlay are flushed, the
///    last step that may fail; the bitmaps in memory change as planned, overlays become the tops,
///    the backups begin to keep old bytes, the guest goes on.
final class Transaction {
  private static final Logger LOG = System.getLogger(Transaction.class.getName());

  /// Actions of one transaction.
  static final int MAX_ACTIONS = 4096;

  /// Bytes that a backup copies at once: a target whose clusters are larger would fill the rest of
  /// a cluster with what is not of this backup.
  static final int BACKUP_GRANULARITY = DirtyBitmap.DEFAULT_GRANULARITY;

  /// What the domain lends to a transaction.
  ///
  /// @param drives by target
  record Room(EngineConfig config, Map<String, GuestDrive> drives, NodeGraph graph, JobTable jobs) {
    GuestDrive drive(String target) throws DriverException {
      GuestDrive drive = drives.get(target);
      if (drive == null) {
        throw DriverErrors.notFound("drive", target);
      }
      return drive;
    }
  }

  /// A bitmap as the actions planned so far leave it.
  ///
  /// @param bitmap absent for an inconsistent one
  /// @param fresh made by this transaction
  private record Planned(Optional<DirtyBitmap> bitmap, boolean persistent, boolean fresh) {}

  /// A backup as planned.
  private record Backup(
      StartBackup action,
      GuestDrive drive,
      NodeGraph.Node node,
      Optional<DirtyBitmap> bitmap,
      boolean targetIsZero) {}

  /// A frozen view as planned.
  private record View(
      StartView action, GuestDrive drive, NodeGraph.Node node, Optional<DirtyBitmap> bitmap) {}

  private final Room room;
  private final Map<GuestDrive, Map<String, Planned>> plans = new HashMap<>();
  private final Set<GuestDrive> concerned = new HashSet<>();
  private final List<Backup> backups = new ArrayList<>();
  private final List<View> views = new ArrayList<>();
  private final Map<GuestDrive, NodeGraph.Node> overlays = new LinkedHashMap<>();
  private final List<Runnable> atTheInstant = new ArrayList<>();
  private final List<ImageChange> imageChanges = new ArrayList<>();
  private final List<Runnable> afterwards = new ArrayList<>();

  /// A durable change of an image's bitmaps, and what takes it back.
  private record ImageChange(Step make, Step undo) {}

  @FunctionalInterface
  private interface Step {
    void run() throws DriverException;
  }

  private Transaction(Room room) {
    this.room = room;
  }

  static void run(Room room, List<TransactionAction> actions) throws DriverException {
    if (actions.size() > MAX_ACTIONS) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          "a transaction of " + actions.size() + " actions, at most " + MAX_ACTIONS);
    }
    var transaction = new Transaction(room);
    for (TransactionAction action : actions) {
      transaction.plan(action);
    }
    transaction.requireSnapshotsAlone(actions);
    transaction.requireOneGroup();
    transaction.commit();
  }

  private void plan(TransactionAction action) throws DriverException {
    GuestDrive drive = room.drive(action.target());
    concerned.add(drive);
    switch (action) {
      case AddBitmap add -> planAdd(drive, add);
      case RemoveBitmap remove -> planRemove(drive, remove);
      case MergeBitmaps merge -> planMerge(drive, merge);
      case StartBackup backup -> planBackup(drive, backup);
      case StartView view -> planView(drive, view);
      case Snapshot snapshot -> planSnapshot(drive, snapshot);
    }
  }

  private void planSnapshot(GuestDrive drive, Snapshot snapshot) throws DriverException {
    NodeGraph.Node overlay = room.graph().get(snapshot.overlayNode());
    room.jobs().requireIdle(drive);
    room.jobs().requireUnused(overlay);
    if (overlay.used() || overlay.backing().isPresent() || overlays.containsValue(overlay)) {
      throw DriverErrors.generic("node " + overlay.name() + " is in use");
    }
    if (overlay.format().virtualSize() != drive.drive().virtualSize()) {
      throw DriverErrors.generic(
          overlay.spec().storage().location()
              + ": an overlay of "
              + overlay.format().virtualSize()
              + " bytes over a disk of "
              + drive.drive().virtualSize());
    }
    if (overlay.format().readOnly() != drive.drive().readOnly()) {
      throw DriverErrors.generic(
          "node " + overlay.name() + ": read-only and writable do not go together");
    }
    if (overlays.put(drive, overlay) != null) {
      throw DriverErrors.generic("drive " + drive.target() + ": two snapshots at one instant");
    }
    imageChanges.add(
        new ImageChange(
            () -> {
              List<DirtyBitmap> _ = overlay.followBitmaps(overlay.format().virtualSize());
              drive.beforePivot(overlay);
            },
            () -> drive.takeBackBeforePivot(overlay)));
    atTheInstant.add(() -> {
      overlay.stackOn(drive.top());
      drive.atPivot(overlay);
      drive.drive().repoint(overlay.format());
    });
  }

  private void requireSnapshotsAlone(List<TransactionAction> actions) throws DriverException {
    for (TransactionAction action : actions) {
      if (!(action instanceof Snapshot) && overlays.containsKey(room.drive(action.target()))) {
        throw DriverErrors.generic(
            "drive " + action.target() + ": a snapshot goes with no other action on its drive");
      }
    }
  }

  private void requireOneGroup() throws DriverException {
    if (!backups.isEmpty() && !views.isEmpty()) {
      throw DriverErrors.generic("backups and views do not go into one transaction");
    }
  }

  private void planAdd(GuestDrive drive, AddBitmap add) throws DriverException {
    Map<String, Planned> plan = planOf(drive);
    if (plan.containsKey(add.bitmap())) {
      throw DriverErrors.generic("Bitmap already exists: " + add.bitmap());
    }
    if (plan.size() >= DriveBitmaps.MAX_BITMAPS) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          "bitmap "
              + add.bitmap()
              + ": drive "
              + drive.target()
              + " has "
              + DriveBitmaps.MAX_BITMAPS
              + ", that is the most");
    }
    DirtyBitmap bitmap = drive.bitmaps().create(add.bitmap(), add.granularityBytes());
    plan.put(add.bitmap(), new Planned(Optional.of(bitmap), add.persistent(), true));
    if (add.persistent()) {
      drive.bitmaps().requireKept(add.bitmap());
      imageChanges.add(
          new ImageChange(
              () -> drive.bitmaps().addToImage(bitmap),
              () -> drive.bitmaps().removeFromImage(bitmap.name())));
    }
    atTheInstant.add(() -> drive.bitmaps().join(bitmap, add.persistent()));
  }

  private void planRemove(GuestDrive drive, RemoveBitmap remove) throws DriverException {
    Planned gone = planOf(drive).remove(remove.bitmap());
    if (gone == null) {
      throw DriverErrors.notFound("bitmap", remove.bitmap() + " of " + drive.target());
    }
    if (gone.persistent()) {
      afterwards.add(() -> drive.removeBeneath(remove.bitmap()));
      imageChanges.add(
          new ImageChange(
              () -> drive.bitmaps().removeFromImage(remove.bitmap()),
              () -> {
                if (gone.bitmap().isPresent()) {
                  drive.bitmaps().addToImage(gone.bitmap().get());
                }
              }));
    }
    atTheInstant.add(() -> drive.bitmaps().leave(remove.bitmap()));
  }

  private void planMerge(GuestDrive drive, MergeBitmaps merge) throws DriverException {
    DirtyBitmap into = usable(drive, merge.bitmap());
    var sources = new ArrayList<DirtyBitmap>();
    for (String name : merge.sources()) {
      sources.add(usable(drive, name));
    }
    atTheInstant.add(() -> sources.forEach(into::merge));
  }

  private void planBackup(GuestDrive drive, StartBackup backup) throws DriverException {
    NodeGraph.Node node = room.graph().get(backup.backupNode());
    room.jobs().requireFree(backup.jobId(), drive, node);
    for (Backup other : backups) {
      if (other.drive() == drive
          || other.node() == node
          || other.action().jobId().equals(backup.jobId())) {
        throw DriverErrors.generic(
            "job "
                + backup.jobId()
                + ": its name, drive or node is in use by another of the group");
      }
    }
    requireTarget(drive, node);
    Optional<DirtyBitmap> bitmap = Optional.empty();
    if (backup.bitmap().isPresent()) {
      bitmap = Optional.of(usable(drive, backup.bitmap().get()));
      requireFineClusters(node);
    }
    if (backup.bandwidthBytesPerSecond() < 0) {
      throw DriverErrors.generic(
          "job " + backup.jobId() + ": bandwidth " + backup.bandwidthBytesPerSecond());
    }
    backups.add(
        new Backup(backup, drive, node, bitmap, bitmap.isEmpty() && readsAsZeroes(node.format())));
  }

  private void planView(GuestDrive drive, StartView view) throws DriverException {
    NodeGraph.Node node = room.graph().get(view.scratchNode());
    room.jobs().requireFree(view.jobId(), drive, node);
    for (View other : views) {
      if (other.drive() == drive
          || other.node() == node
          || other.action().jobId().equals(view.jobId())) {
        throw DriverErrors.generic(
            "job " + view.jobId() + ": its name, drive or node is in use by another of the group");
      }
    }
    requireTarget(drive, node);
    Optional<DirtyBitmap> bitmap = Optional.empty();
    if (view.bitmap().isPresent()) {
      bitmap = Optional.of(usable(drive, view.bitmap().get()));
    }
    views.add(new View(view, drive, node, bitmap));
  }

  /// Refuses a node that cannot receive a copy of the drive.
  static void requireTarget(GuestDrive drive, NodeGraph.Node node) throws DriverException {
    if (node.used()) {
      throw DriverErrors.generic("node " + node.name() + " is in use");
    }
    if (node.format().readOnly()) {
      throw DriverErrors.generic("node " + node.name() + " is read-only");
    }
    if (node.format().virtualSize() != drive.drive().virtualSize()) {
      throw DriverErrors.generic("Source and target image have different sizes");
    }
  }

  private static void requireFineClusters(NodeGraph.Node node) throws DriverException {
    if (node.format() instanceof Qcow2Image image
        && image.information().clusterSize() > BACKUP_GRANULARITY) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          node.spec().storage().location()
              + ": clusters of "
              + image.information().clusterSize()
              + " bytes, an incremental backup needs at most "
              + BACKUP_GRANULARITY);
    }
  }

  /// Whether zeroes need not be written. A backing file that the image records and that is not
  /// attached here would answer once the image is opened by its header.
  private static boolean readsAsZeroes(FormatNode node) throws DriverException {
    if (node.backing().isPresent() || node.backingReference().isPresent()) {
      return false;
    }
    var data = new boolean[1];
    try {
      node.extents(
          0,
          node.virtualSize(),
          extent -> {
            data[0] |= extent.state() == Extent.State.DATA;
            return !data[0];
          });
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
    return !data[0];
  }

  private Map<String, Planned> planOf(GuestDrive drive) {
    return plans.computeIfAbsent(
        drive,
        _ -> {
          var plan = new HashMap<String, Planned>();
          drive
              .bitmaps()
              .states()
              .forEach(state ->
                  plan.put(
                      state.name(),
                      new Planned(drive.bitmaps().find(state.name()), state.persistent(), false)));
          return plan;
        });
  }

  private DirtyBitmap usable(GuestDrive drive, String name) throws DriverException {
    Planned planned = planOf(drive).get(name);
    if (planned == null) {
      throw DriverErrors.notFound("bitmap", name + " of " + drive.target());
    }
    return planned
        .bitmap()
        .orElseThrow(() ->
            new DriverException(
                Kind.INCONSISTENT_BITMAP,
                "bitmap " + name + " of " + drive.target() + " was in use when its writer ended"));
  }

  private void commit() throws DriverException {
    var made = new ArrayList<ImageChange>();
    try {
      for (ImageChange change : imageChanges) {
        made.add(change);
        change.make().run();
      }
      for (GuestDrive drive : overlays.keySet()) {
        drive.flush(); // most of it while the guest still runs
      }
      if (!views.isEmpty()) {
        startViews();
      } else if (backups.isEmpty()) {
        instant(() -> atTheInstant.forEach(Runnable::run));
      } else {
        startBackups();
      }
    } catch (DriverException | RuntimeException | Error e) {
      for (ImageChange change : made.reversed()) {
        undo(change, e);
      }
      throw e;
    }
    overlays.forEach(GuestDrive::afterPivot);
    afterwards.forEach(Runnable::run);
    // Nobody writes the old tops any more: other programs may read them now.
    for (NodeGraph.Node overlay : overlays.values()) {
      overlay.backing().ifPresent(BlockJobs::readOnlyAgain);
    }
  }

  private static void undo(ImageChange change, Throwable because) {
    try {
      change.undo().run();
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "while a transaction is taken back: {0}", e.getMessage());
      because.addSuppressed(e);
    }
  }

  private void startBackups() throws DriverException {
    var scratches = new ArrayList<FileNode>();
    var entries = new ArrayList<JobTable.Entry>();
    try {
      var members = new ArrayList<BackupOptions>();
      for (Backup backup : backups) {
        Drive source = backup.drive().drive();
        FileNode scratch = Scratch.create(room.config(), source.virtualSize());
        scratches.add(scratch);
        members.add(options(backup, scratch));
      }
      var group = new BackupGroup(members);
      for (int i = 0; i < backups.size(); i++) {
        entries.add(enter(group.jobs().get(i), backups.get(i), scratches.get(i)));
      }
      instant(() -> group.start(() -> atTheInstant.forEach(Runnable::run)));
    } catch (DriverException | RuntimeException | Error e) {
      entries.forEach(room.jobs()::drop);
      scratches.forEach(Scratch::close);
      throw e;
    }
  }

  private void startViews() throws DriverException {
    var entries = new ArrayList<JobTable.Entry>();
    try {
      var group =
          new ViewGroup(
              views.stream()
                  .map(view ->
                      new ViewOptions(
                          view.action().jobId(),
                          view.drive().drive(),
                          view.bitmap(),
                          view.node().format(),
                          room.config().scratchLimitBytes(),
                          JobClock.SYSTEM))
                  .toList());
      for (int i = 0; i < views.size(); i++) {
        var entry =
            new JobTable.Entry(
                group.jobs().get(i),
                JobState.Kind.BACKUP,
                views.get(i).drive(),
                views.get(i).node(),
                Optional.empty(),
                JobTable.Effect.NONE);
        room.jobs().add(entry);
        entries.add(entry);
      }
      instant(() -> group.start(() -> atTheInstant.forEach(Runnable::run)));
    } catch (DriverException | RuntimeException | Error e) {
      entries.forEach(room.jobs()::drop);
      throw e;
    }
  }

  private BackupOptions options(Backup backup, FileNode scratch) {
    return BackupOptions.of(
            backup.action().jobId(),
            backup.drive().drive(),
            backup.node().format(),
            scratch,
            room.config().scratchLimitBytes())
        .withBitmap(backup.bitmap())
        .withTargetIsZero(backup.targetIsZero())
        .withBandwidth(backup.action().bandwidthBytesPerSecond());
  }

  private JobTable.Entry enter(BackupJob job, Backup backup, FileNode scratch) {
    var entry =
        new JobTable.Entry(
            job,
            JobState.Kind.BACKUP,
            backup.drive(),
            backup.node(),
            Optional.of(scratch),
            JobTable.Effect.NONE);
    room.jobs().add(entry);
    return entry;
  }

  /// Runs `action` with every drive concerned drained.
  private void instant(JobTable.Verb action) throws DriverException {
    var held = new ArrayList<Drive.Drained>();
    try {
      for (GuestDrive drive : inOrder(concerned)) {
        held.add(drive.drive().drain());
      }
      for (GuestDrive drive : overlays.keySet()) {
        drive.flush();
      }
      JobTable.verb(action);
    } finally {
      held.forEach(Drive.Drained::close);
    }
  }

  private static List<GuestDrive> inOrder(Collection<GuestDrive> drives) {
    return drives.stream().sorted(Comparator.comparing(GuestDrive::target)).toList();
  }
}
