// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// All that was read from an image's file at one opening, and the classes that work on it. An image
/// that is reopened, reorganised or repaired is read anew, and the new reading takes the place of
/// the old one ([Reopening]).
///
/// Says too what comes before the first change: a dirty image is rebuilt, the log of a dead process
/// is brought in, and [#prepare].
final class OpenImage {
  private static final Logger LOG = System.getLogger(OpenImage.class.getName());

  /// Clusters of an image that are looked at for what a dead process had counted ahead.
  private static final int MAX_RECLAIMED = 4 << 20;

  /// What all readings of one image share.
  ///
  /// @param options as opened; reopening changes readOnly only
  record Lasting(
      OpenOptions options,
      Durability durability,
      Optional<LogPlace> logPlace,
      InFlight<List<Freed>> inFlight,
      Backing backing) {
    Lasting(OpenOptions options, Durability durability, Optional<LogPlace> logPlace) {
      this(options, durability, logPlace, new InFlight<>(), new Backing());
    }

    Lasting withReadOnly(boolean readOnly) {
      return new Lasting(options.withReadOnly(readOnly), durability, logPlace, inFlight, backing);
    }
  }

  private final Lasting lasting;
  final boolean readOnly;
  final HostFile file;
  final HostFile data; // the same, or the external data file
  final Geometry geometry;
  final HeaderFields header;
  final SnapshotTable snapshots;
  final MetadataClusters metadata;
  final MappingTables tables;
  final Allocator allocator;
  final WriteBack writeBack;
  final CompressedReads compressedReads;
  final CompressedClusters compressed;
  final GuestReads reads;
  final GuestWrites writes;
  final QueuedPlaces queuedPlaces;
  final GuestZeroes zeroes;
  final Growth growth;
  private volatile PersistentBitmaps bitmaps;
  private volatile boolean prepared; // the next write may begin; else see prepare
  private volatile boolean changed; // a write began at some time
  private volatile boolean flushed; // since it was opened
  private boolean markedCorrupt; // guarded by this
  private boolean aheadOfFile; // set while it is opened
  private @Nullable BlockException snapshotsFailure; // set in the constructor; null: none

  /// Opens the image in `file`, as [Qcow2Image#open] says.
  static OpenImage open(BlockNode file, Optional<BlockNode> dataFile, Lasting lasting)
      throws BlockException {
    boolean readOnly = lasting.options().readOnly();
    if (!readOnly) {
      requireWritable(file);
      if (dataFile.isPresent()) {
        requireWritable(dataFile.get());
      }
      rebuildIfDirty(file);
    }
    OpenImage image = read(file, dataFile, lasting);
    try {
      image.bringInLog();
      return image;
    } catch (BlockException | RuntimeException e) {
      image.leaveLog();
      throw e;
    }
  }

  private static void requireWritable(BlockNode file) throws ReadOnlyNodeException {
    if (file.readOnly()) {
      throw new ReadOnlyNodeException(
          file.name() + ": file is open read-only, wanted to open the image for writing");
    }
  }

  /// Reads the image in `file`, and changes nothing.
  static OpenImage read(BlockNode file, Optional<BlockNode> dataFile, Lasting lasting)
      throws BlockException {
    HostFile external = dataFile.map(HostFile::ofData).orElse(null);
    HostFile host = external == null ? new HostFile(file) : new HostFile(file, external);
    return new OpenImage(host, external, lasting);
  }

  private OpenImage(HostFile file, @Nullable HostFile external, Lasting lasting)
      throws BlockException {
    this.lasting = lasting;
    this.readOnly = lasting.options().readOnly();
    this.file = file;
    this.data = external == null ? file : external;
    Header first = Header.parse(file);
    if (!lasting.options().judging()) {
      requireRefcountTable(file, first);
    }
    if (first.geometry().dataFile() != (external != null)) {
      throw new UnsupportedImageException(
          file.name() + ": image has its data in an external data file, which was not opened");
    }
    this.geometry = first.geometry();
    this.header = new HeaderFields(file, first);
    this.snapshots = readSnapshots(first);
    long[] l1 = L1Table.read(file, first.l1Offset(), first.l1Entries());
    this.metadata =
        readOnly ? MetadataClusters.NONE : MetadataClusters.named(file, first, l1, snapshots);
    var refcounts = new Refcounts(file, first, metadata);
    this.allocator = new Allocator(file, header, refcounts, metadata);
    this.tables = new MappingTables(file, first, l1, allocator, metadata, readOnly);
    this.bitmaps = new PersistentBitmaps(file, header, allocator, readOnly, this::unprepare);
    this.writeBack = new WriteBack(file, header, tables, allocator, lasting.inFlight());
    this.compressedReads = new CompressedReads(file, first);
    allocator.onRelease(compressedReads::forget);
    Backing backing = lasting.backing();
    this.reads = new GuestReads(file, data, first, tables, backing, compressedReads);
    this.writes = new GuestWrites(data, header, tables, allocator, reads, backing, writeBack);
    this.queuedPlaces = new QueuedPlaces(data, geometry, tables, writes);
    this.zeroes = new GuestZeroes(data, header, tables, backing, writes, writeBack);
    this.compressed = new CompressedClusters(file, geometry, allocator, compressedReads, writes);
    this.growth = new Growth(file, data, header, tables, allocator, writes, zeroes, writeBack);
    this.markedCorrupt = first.has(Feature.CORRUPT);
    if (markedCorrupt && !readOnly) {
      file.corrupt("image is marked corrupt; repair it");
    }
  }

  /// qemu: 7.2 opens an image without one for a check or repair only, not even for reading.
  private static void requireRefcountTable(HostFile file, Header header)
      throws CorruptImageException {
    if (header.refcountTableClusters() == 0) {
      throw new CorruptImageException(
          file.name() + ": image does not contain a refcount table; a repair makes one");
    }
  }

  /// A damaged table costs a reader the snapshots only.
  private SnapshotTable readSnapshots(Header first) throws BlockException {
    try {
      return SnapshotTable.read(file, first);
    } catch (BlockException e) {
      if (!readOnly) {
        throw e;
      }
      LOG.log(Level.WARNING, "internal snapshots are not usable: " + e.getMessage());
      snapshotsFailure = e;
      return new SnapshotTable(List.of(), 0);
    }
  }

  /// The snapshots, for whoever is to be told of them.
  ///
  /// @throws BlockException what kept them from being read
  SnapshotTable readableSnapshots() throws BlockException {
    if (snapshotsFailure != null) {
      throw new CorruptImageException(
          String.valueOf(snapshotsFailure.getMessage()), snapshotsFailure);
    }
    return snapshots;
  }

  /// Makes the refcounts of an image anew that QEMU kept with lazy refcounts and did not close.
  private static void rebuildIfDirty(BlockNode node) throws BlockException {
    var file = new HostFile(node);
    Header header = Header.parse(file);
    if (header.has(Feature.CORRUPT)) {
      throw new CorruptImageException(
          file.name()
              + ": image is marked corrupt; it can be read, and written again after a repair");
    }
    if (!header.has(Feature.DIRTY)) {
      return;
    }
    requireRefcountTable(file, header);
    SnapshotTable.read(file, header); // which nobody asked to cut off
    LOG.log(Level.INFO, "{0}: was not closed; its refcounts are made anew", file.name());
    CheckResult after = new ImageRepair(file, Repair.ALL).run().after();
    if (!after.sound()) {
      throw new CorruptImageException(
          file.name()
              + ": was not closed, and its refcounts could not be made anew: "
              + after.corruptions()
              + " corruptions and "
              + after.checkErrors()
              + " errors are left");
    }
  }

  /// Replays what a killed process left in the log. A read-only image replays in memory only.
  private void bringInLog() throws BlockException {
    if (lasting.logPlace().isEmpty()) {
      return;
    }
    LogPlace place = lasting.logPlace().get();
    if (readOnly && ChangeLog.inUse(place.path())) {
      // What the file shows is all that a reader beside a living writer is promised: the log and
      // the file change under it, each for itself.
      LOG.log(
          Level.WARNING,
          file.name()
              + ": a process writes this image: what it has not flushed yet may be missing or torn"
              + " in what is read");
      return;
    }
    List<ChangeLog.Change> changes = ChangeLog.read(place.path(), place.identity(), geometry);
    var replay = new LogReplay(place.path(), file, geometry, tables, allocator, metadata);
    if (!changes.isEmpty()) {
      replay.run(changes);
      aheadOfFile = readOnly;
    }
    if (!readOnly) {
      if (!changes.isEmpty()) {
        writeBack.run(true);
        reclaimPool(replay);
      }
      ChangeLog.delete(place.path()); // all of it is durable, or it is of no use
    }
  }

  /// Gives back what the dead process had counted ahead and never used. Not worth more than one
  /// walk over the tables: a larger image keeps its few MiB of leaks until somebody repairs it.
  private void reclaimPool(LogReplay replay) throws BlockException {
    if (geometry.clusters(file.length()) > MAX_RECLAIMED) {
      return;
    }
    var leaked = new ArrayList<Long>(); // once for each reference too many
    CheckResult found =
        new ImageCheck(file)
            .run((cluster, count, references) -> {
              // At most two too many: of the pool, and of one more compressed cluster.
              if (count - references <= 2 && replay.wasPooled(cluster)) {
                for (long i = references; i < count; i++) {
                  leaked.add(cluster);
                }
              }
            });
    if (found.sound()) {
      for (long cluster : leaked) {
        allocator.release(cluster, 1);
      }
    }
  }

  /// See [Qcow2Image#isAheadOfFile].
  boolean aheadOfFile() {
    return aheadOfFile;
  }

  PersistentBitmaps bitmaps() {
    return bitmaps;
  }

  /// The bitmaps of an earlier reading of the same file stay who they are.
  void keepBitmaps(OpenImage earlier) {
    PersistentBitmaps kept = earlier.bitmaps;
    kept.use(file, header, allocator, this::unprepare);
    bitmaps = kept;
  }

  Optional<BlockNode> dataNode() {
    return geometry.dataFile() ? Optional.of(data.node()) : Optional.empty();
  }

  /// What must be durable before the first guest write: autoclear bits that are not ours to keep
  /// are cleared, bitmaps that record writes marked as in use, and both synced; then the log
  /// begins.
  void prepare() throws BlockException {
    if (prepared) {
      return;
    }
    synchronized (this) {
      if (prepared) {
        return;
      }
      requireWritable();
      requireSound();
      clearForeignAutoclear();
      bitmaps.claimUntracked();
      if (lasting.durability() == Durability.ACKNOWLEDGED
          && lasting.logPlace().isPresent()
          && tables.log() == null) {
        startLog(lasting.logPlace().get());
      }
      changed = true;
      prepared = true;
    }
  }

  /// The next write prepares again: bitmaps came that nobody claimed.
  private void unprepare() {
    prepared = false;
  }

  void requireWritable() throws ReadOnlyNodeException {
    if (readOnly) {
      throw new ReadOnlyNodeException(file.name() + ": image is open read-only");
    }
  }

  /// Refuses changes once the image's own metadata was found corrupt.
  void requireSound() throws CorruptImageException {
    if (file.corruption().isPresent()) {
      throw new CorruptImageException(
          file.name() + ": image is corrupt and takes no more changes", file.corruption().get());
    }
  }

  /// Takes away the autoclear bits of what is not kept consistent here, and syncs.
  synchronized void clearForeignAutoclear() throws BlockException {
    boolean bitmapsKept =
        bitmaps.intact() && header.now().extension(Header.Extension.BITMAPS).isPresent();
    long known =
        (bitmapsKept ? Feature.BITMAPS.mask() : 0)
            | (geometry.dataFile() ? Feature.RAW_EXTERNAL_DATA.mask() : 0);
    long keep = header.now().autoclear() & known;
    if (keep != header.now().autoclear()) {
      header.writeAutoclear(keep);
      file.sync();
    }
  }

  /// Whether a change of bytes that have their place may be acknowledged as soon as it is made:
  /// [#prepare] has nothing to do, and no change of the mapping waits to be durable.
  boolean takesWrites() {
    return prepared && (lasting.durability() != Durability.ACKNOWLEDGED || tables.logged());
  }

  private void startLog(LogPlace place) throws BlockException {
    try {
      tables.useLog(place.create(geometry));
    } catch (TransportException | UnsupportedImageException e) {
      // A run dir that is full makes writes slow, not impossible.
      LOG.log(
          Level.WARNING,
          file.name() + ": goes on without a log, with a sync a write: " + e.getMessage());
    }
  }

  /// Where the image's own metadata was found corrupt on the way, no further change is begun, and
  /// the image says so to whoever opens it next. What was acknowledged before is still flushed.
  ///
  /// qemu: `qcow2_signal_corruption`.
  synchronized void markCorrupt(CorruptImageException found) {
    if (readOnly || markedCorrupt || file.corruption().isEmpty()) {
      return;
    }
    markedCorrupt = true;
    prepared = false;
    LOG.log(Level.ERROR, "marking the image as corrupt: " + file.corruption().get().getMessage());
    try {
      header.markCorrupt();
    } catch (BlockException e) {
      found.addSuppressed(e);
    }
  }

  /// The first flush syncs though nothing was written here: a process that was killed may have
  /// acknowledged writes that lie in the page cache only, to the guest that flushes now.
  void flush() throws BlockException {
    if (changed || !(flushed || readOnly)) {
      writeBack.run(true);
      flushed = true;
    }
  }

  /// All metadata is in the file, and nothing is counted ahead.
  void settle() throws BlockException {
    writeBack.quiesce();
    if (changed || (!readOnly && (tables.dirty() || lasting.inFlight().waiting()))) {
      writeBack.run(true); // all is durable
      writeBack.run(false); // clusters freed just now are given back
    }
    if (!readOnly) {
      compressed.close();
      allocator.close();
    }
  }

  /// Settles the image, and the log goes.
  void finish() throws BlockException {
    settle();
    ChangeLog log = tables.log();
    if (log != null) {
      log.remove();
    }
  }

  /// The log goes, because all of it is in the file; beside a later writer it would mislead.
  void deleteLog() throws BlockException {
    ChangeLog log = tables.log();
    if (log != null) {
      ChangeLog.delete(log.path());
    }
  }

  /// Lets go of the log, which stays where it is.
  void leaveLog() {
    writeBack.quiesce();
    ChangeLog log = tables.log();
    if (log != null) {
      log.close();
    }
  }
}
