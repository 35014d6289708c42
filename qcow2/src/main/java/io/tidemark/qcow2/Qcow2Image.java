// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Gate;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.spi.NamedFiles;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// An open qcow2 image.
///
/// Any thread may read and write at any time. Reads, and writes to clusters that have their place,
/// take no lock. The classes that do the work: [GuestReads], [GuestWrites], [MappingTables],
/// [WriteBack], [Allocator], [ChangeLog]; each says what is on disk after its steps.
///
/// Opened read-only, nothing is ever written. Opened for writing, nothing is written before the
/// first guest write; that one first clears autoclear bits that are not ours to keep, marks bitmaps
/// that record writes as in use, and syncs.
public final class Qcow2Image implements FormatNode {
  /// Facts about the image that `tidemark image info` shows.
  ///
  /// @param compat `0.10` for version 2, `1.1` for version 3
  /// @param compressionType `zlib` or `zstd`
  /// @param dataFile the external data file, as it is recorded
  /// @param dataFileRaw whether that file by itself is a raw image of the disk
  public record Information(
      String compat,
      int clusterSize,
      int refcountBits,
      boolean lazyRefcounts,
      boolean dirty,
      boolean corrupt,
      boolean extendedL2,
      String compressionType,
      Optional<String> dataFile,
      boolean dataFileRaw,
      List<InternalSnapshot> snapshots) {
    public Information {
      snapshots = List.copyOf(snapshots);
    }
  }

  private static final Logger LOG = System.getLogger(Qcow2Image.class.getName());

  /// Where a log is, and what it must be bound to.
  record LogPlace(Path path, ChangeLog.Identity identity) {
    static Optional<LogPlace> of(BlockNode file, OpenOptions options) {
      if (options.runDir().isEmpty() || !(file instanceof FileNode node)) {
        return Optional.empty();
      }
      return ChangeLog.Identity.of(node.path())
          .map(identity -> new LogPlace(identity.logIn(options.runDir().get()), identity));
    }
  }

  private final Durability durability;
  private final OpenOptions options; // as opened; reopening changes readOnly only
  private final Optional<LogPlace> logPlace;
  private final Gate gate = new Gate(); // guest requests; shut while the image is reopened
  private final Object reopening = new Object();
  private final InFlight<List<MappingTables.Freed>> inFlight;

  // What follows is read from the file at opening and anew by `reopen`; see `become`. Requests use
  // it inside the gate.
  private volatile boolean readOnly;
  private volatile HeaderFields header;
  private volatile Backing backing;
  private volatile PersistentBitmaps bitmaps;
  private HostFile file;
  private HostFile data; // the same, or the external data file
  private Growth growth;
  private Geometry geometry;
  private SnapshotTable snapshots;
  private MetadataClusters metadata;
  private MappingTables tables;
  private Allocator allocator;
  private WriteBack writeBack;
  private CompressedReads compressedReads;
  private CompressedClusters compressed;
  private volatile GuestReads reads;
  private GuestWrites writes;
  private volatile Prepared prepared = new Prepared();
  private boolean closed; // guarded by this
  private boolean markedCorrupt; // guarded by this

  /// Whether the first write was prepared for. Written under the image's monitor, and by a store of
  /// bitmaps.
  private static final class Prepared {
    volatile boolean now; // the next write may begin
    volatile boolean ever; // a write began at some time
  }

  /// Opens the image in `file` with the durability of `options`. On success the result owns `file`.
  public static Qcow2Image open(BlockNode file, OpenOptions options) throws BlockException {
    return open(file, options, options.durability());
  }

  /// As above, for an image that may have its data in an external data file: that one is opened by
  /// `others`, and owned by the result too.
  public static Qcow2Image open(BlockNode file, OpenOptions options, NamedFiles others)
      throws BlockException {
    Header header = Header.parse(new HostFile(file));
    if (!header.geometry().dataFile()) {
      return open(file, options);
    }
    String name =
        header
            .dataFile()
            .orElseThrow(() ->
                new CorruptImageException(
                    file.name() + ": header names no external data file, wanted one"));
    BlockNode data = dataFile(file.name(), () -> others.open(name));
    try {
      return open(
          file,
          Optional.of(data),
          options,
          options.durability(),
          LogPlace.of(file, options),
          new InFlight<>());
    } catch (BlockException | RuntimeException e) {
      try {
        data.close();
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  @FunctionalInterface
  private interface Opening {
    BlockNode run() throws BlockException;
  }

  /// Says which image wanted the file when there is none.
  private static BlockNode dataFile(String image, Opening opening) throws BlockException {
    try {
      return opening.run();
    } catch (TransportException e) {
      throw new TransportException(image + ": external data file " + e.getMessage(), e);
    }
  }

  /// Opens the image in `file`. On success the result owns `file`.
  ///
  /// @throws CorruptImageException when bytes contradict the specification, the image is marked
  ///   corrupt and writing is asked for, or a log in the run dir cannot be brought in
  /// @throws UnsupportedImageException when it uses a feature that is not handled; named in the
  ///   text
  public static Qcow2Image open(BlockNode file, OpenOptions options, Durability durability)
      throws BlockException {
    return open(file, options, durability, LogPlace.of(file, options));
  }

  static Qcow2Image open(
      BlockNode file, OpenOptions options, Durability durability, Optional<LogPlace> logPlace)
      throws BlockException {
    return open(file, Optional.empty(), options, durability, logPlace, new InFlight<>());
  }

  static Qcow2Image open(
      BlockNode file,
      Optional<BlockNode> dataFile,
      OpenOptions options,
      Durability durability,
      Optional<LogPlace> logPlace,
      InFlight<List<MappingTables.Freed>> inFlight)
      throws BlockException {
    if (file.readOnly() && !options.readOnly()) {
      throw new ReadOnlyNodeException(
          file.name() + ": file is open read-only, wanted to open the image for writing");
    }
    if (dataFile.isPresent() && dataFile.get().readOnly() && !options.readOnly()) {
      throw new ReadOnlyNodeException(
          dataFile.get().name() + ": file is open read-only, wanted to open the image for writing");
    }
    if (!options.readOnly()) {
      rebuildIfDirty(file);
    }
    var image = new Qcow2Image(file, dataFile, options, durability, logPlace, inFlight);
    try {
      image.bringInLog();
      return image;
    } catch (BlockException | RuntimeException e) {
      image.leaveLog();
      throw e;
    }
  }

  /// Removes the log that a killed writer of this file may have left in `runDir`: what it says is
  /// of no use once another image was made in the file, which nobody has open.
  public static void forgetLog(Path file, Path runDir) throws BlockException {
    Optional<ChangeLog.Identity> identity = ChangeLog.Identity.of(file);
    if (identity.isPresent()) {
      ChangeLog.delete(identity.get().logIn(runDir));
    }
  }

  /// Writes an empty image into `file`, which is empty, and syncs it.
  ///
  /// @throws UnsupportedImageException when an option or its value is not handled; named in the
  ///   text
  public static void create(BlockNode file, CreateOptions options) throws BlockException {
    create(file, options, NamedFiles.NONE);
  }

  /// As above; an external data file is made, or emptied, by `others`.
  ///
  /// On disk: the data file; the image without preallocation, its header last; then places for the
  /// clusters of the disk, as growing gives them.
  public static void create(BlockNode file, CreateOptions options, NamedFiles others)
      throws BlockException {
    NewImage made = NewImage.of(file.name(), options);
    Optional<BlockNode> data = Optional.empty();
    if (made.options().dataFile().isPresent()) {
      data = Optional.of(others.create(made.options().dataFile().get()));
    }
    try {
      if (data.isPresent()) {
        HostFile.ofData(data.get()).resize(made.virtualSize());
      }
      made.write(file);
      if (made.options().preallocation() != Preallocation.OFF) {
        preallocate(file, data, made.options().preallocation());
      }
      if (data.isPresent()) {
        data.get().flush();
      }
    } finally {
      if (data.isPresent()) {
        data.get().close();
      }
    }
  }

  private static void preallocate(
      BlockNode file, Optional<BlockNode> data, Preallocation preallocation) throws BlockException {
    OpenOptions options = OpenOptions.readWrite();
    Qcow2Image image =
        open(file, data, options, Durability.FLUSHED, Optional.empty(), new InFlight<>());
    image.prepare();
    image.growth.preallocate(0, image.virtualSize(), preallocation);
    image.finish();
  }

  private Qcow2Image(
      BlockNode node,
      Optional<BlockNode> dataNode,
      OpenOptions options,
      Durability durability,
      Optional<LogPlace> logPlace,
      InFlight<List<MappingTables.Freed>> inFlight)
      throws BlockException {
    this.inFlight = inFlight;
    this.options = options;
    this.readOnly = options.readOnly();
    this.durability = durability;
    this.logPlace = logPlace;
    HostFile external = dataNode.map(HostFile::ofData).orElse(null);
    this.file = external == null ? new HostFile(node) : new HostFile(node, external);
    this.data = external == null ? file : external;
    Header first = Header.parse(file);
    if (first.geometry().dataFile() != (external != null)) {
      throw new UnsupportedImageException(
          file.name() + ": image has its data in an external data file, which was not opened");
    }
    this.geometry = first.geometry();
    this.header = new HeaderFields(file, first);
    this.snapshots = readSnapshots(first);
    this.backing = new Backing(first.backing().isPresent());
    long[] l1 = MappingTables.readL1(file, first.l1Offset(), first.l1Entries());
    this.metadata = new MetadataClusters(readOnly ? new long[0] : metadata(first, l1));
    var refcounts = new Refcounts(file, first, metadata);
    this.allocator = new Allocator(file, header, refcounts, metadata);
    this.tables = new MappingTables(file, first, l1, allocator, metadata, readOnly);
    Prepared mine = prepared;
    this.bitmaps = new PersistentBitmaps(file, header, allocator, readOnly, () -> mine.now = false);
    this.writeBack = new WriteBack(file, header, tables, allocator, inFlight);
    this.compressedReads = new CompressedReads(file, first);
    allocator.onRelease(compressedReads::forget);
    this.reads = new GuestReads(file, data, first, tables, backing, compressedReads);
    this.writes = new GuestWrites(data, header, tables, allocator, reads, backing, writeBack);
    this.compressed = new CompressedClusters(file, geometry, allocator, compressedReads, writes);
    this.growth = new Growth(file, data, header, tables, allocator, writes, writeBack);
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
      return new SnapshotTable(List.of(), 0);
    }
  }

  private static void refuseUnclean(String name, Header header) throws BlockException {
    if (header.has(Feature.CORRUPT)) {
      throw new CorruptImageException(
          name + ": image is marked corrupt; it can be read, and written again after a repair");
    }
  }

  /// Makes the refcounts of an image anew that QEMU kept with lazy refcounts and did not close.
  private static void rebuildIfDirty(BlockNode node) throws BlockException {
    var file = new HostFile(node);
    Header header = Header.parse(file);
    refuseUnclean(file.name(), header);
    if (!header.has(Feature.DIRTY)) {
      return;
    }
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

  /// Clusters of the header, and of every table that the image names now. Where two of them are
  /// one, the image is corrupt, and what is written next will say so.
  private long[] metadata(Header first, long[] l1) throws BlockException {
    var clusters = java.util.stream.LongStream.builder();
    clusters.add(0);
    addTable(clusters, first.l1Offset(), 8L * first.l1Entries());
    addTable(
        clusters,
        first.refcountTableOffset(),
        (long) first.refcountTableClusters() << geometry.clusterBits());
    addTable(clusters, first.snapshotsOffset(), snapshots.bytes());
    for (SnapshotTable.Entry snapshot : snapshots.entries()) {
      addTable(clusters, snapshot.l1Offset(), 8L * snapshot.l1Entries());
    }
    addBitmapDirectory(clusters, first);
    for (long block : Refcounts.readTable(file, first)) {
      if (block != 0) {
        clusters.add(block >>> geometry.clusterBits());
      }
    }
    for (long entry : l1) {
      if (L2Entry.host(entry) != 0) {
        clusters.add(L2Entry.host(entry) >>> geometry.clusterBits());
      }
    }
    long[] all = clusters.build().sorted().toArray();
    for (int i = 1; i < all.length; i++) {
      if (all[i] == all[i - 1]) {
        file.corrupt(
            "two tables lie in the cluster at 0x"
                + Long.toHexString(all[i] << geometry.clusterBits())
                + "; check the image");
        break;
      }
    }
    return java.util.Arrays.stream(all).distinct().toArray();
  }

  private void addBitmapDirectory(java.util.stream.LongStream.Builder into, Header first) {
    try {
      BitmapDirectory directory = BitmapDirectory.read(file, first);
      addTable(into, directory.offset(), directory.bytes());
    } catch (BlockException _) {
      // Safe because bitmaps that cannot be read are given up, and so is their directory.
    }
  }

  private void addTable(java.util.stream.LongStream.Builder into, long offset, long bytes) {
    long first = offset >>> geometry.clusterBits();
    for (long c = 0; c < geometry.clusters(bytes); c++) {
      into.add(first + c);
    }
  }

  /// Replays what a killed process left in the log. A read-only image replays in memory only.
  private void bringInLog() throws BlockException {
    if (logPlace.isEmpty()) {
      return;
    }
    Path path = logPlace.get().path();
    if (readOnly && ChangeLog.inUse(path)) {
      return; // beside a living writer: what the file shows is all that a reader is promised
    }
    List<ChangeLog.Change> changes = ChangeLog.read(path, logPlace.get().identity(), geometry);
    var replay = new LogReplay(path, file, geometry, tables, allocator, metadata);
    if (!changes.isEmpty()) {
      replay.run(changes);
    }
    if (!readOnly) {
      if (!changes.isEmpty()) {
        writeBack.run(true);
        reclaimPool(replay);
      }
      ChangeLog.delete(path); // all of it is durable, or it is of no use
    }
  }

  /// Clusters of an image that are looked at for it.
  private static final int MAX_RECLAIMED = 4 << 20;

  /// Gives back what the dead process had counted ahead and never used. Not worth more than one
  /// walk over the tables: a larger image keeps its few MiB of leaks until somebody repairs it.
  private void reclaimPool(LogReplay replay) throws BlockException {
    if (geometry.clusters(file.length()) > MAX_RECLAIMED) {
      return;
    }
    var leaked = new java.util.ArrayList<Long>(); // once for each reference too many
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

  /// The log in use, null when there is none.
  @Nullable ChangeLog log() {
    return tables.log();
  }

  private void leaveLog() {
    ChangeLog log = log();
    if (log != null) {
      log.close();
    }
  }

  /// What must be durable before the first guest write. See the class comment.
  private void prepare() throws BlockException {
    if (prepared.now) {
      return;
    }
    synchronized (this) {
      if (prepared.now) {
        return;
      }
      if (readOnly) {
        throw new ReadOnlyNodeException(name() + ": image is open read-only");
      }
      requireSound();
      clearForeignAutoclear();
      bitmaps.claimUntracked();
      if (durability == Durability.ACKNOWLEDGED && logPlace.isPresent() && tables.log() == null) {
        startLog(logPlace.get());
      }
      prepared.ever = true;
      prepared.now = true;
    }
  }

  /// Refuses changes once the image's own metadata was found corrupt.
  void requireSound() throws CorruptImageException {
    if (file.corruption().isPresent()) {
      throw new CorruptImageException(
          name() + ": image is corrupt and takes no more changes", file.corruption().get());
    }
  }

  /// Takes away the autoclear bits of what is not kept consistent here, and syncs.
  private void clearForeignAutoclear() throws BlockException {
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

  private void startLog(LogPlace place) throws BlockException {
    try {
      tables.useLog(ChangeLog.create(place.path(), place.identity(), geometry));
    } catch (TransportException e) {
      // A run dir that is full makes writes slow, not impossible.
      LOG.log(
          Level.WARNING,
          name() + ": goes on without a log, with a sync a write: " + e.getMessage());
    }
  }

  public Information information() {
    Header now = header.now();
    return new Information(
        geometry.version() == 2 ? "0.10" : "1.1",
        geometry.clusterSize(),
        1 << geometry.refcountOrder(),
        Feature.LAZY_REFCOUNTS.in(now.compatible()),
        now.has(Feature.DIRTY),
        now.has(Feature.CORRUPT),
        now.has(Feature.EXTENDED_L2),
        Codec.name(now.compressionType()),
        now.dataFile(),
        now.dataFile().isPresent() && Feature.RAW_EXTERNAL_DATA.in(now.autoclear()),
        snapshots.entries().stream().map(SnapshotTable.Entry::snapshot).toList());
  }

  /// Holds every reference against every refcount, as `qemu-img check` does. Flushes metadata first
  /// when the image is writable; no guest write may run meanwhile. Memory is bounded whatever the
  /// image's size.
  public CheckResult check() throws BlockException {
    settle();
    return new ImageCheck(file).run();
  }

  /// Puts right what a check finds, as far as `what` goes, and syncs; guest requests wait. The
  /// guest's data is never touched. Crash-safe: after a power cut the image is no worse than
  /// before. An image that is open read-only, as one with the dirty or corrupt bit may be, is open
  /// for writing meanwhile.
  public RepairResult repair(Repair what) throws BlockException {
    if (readOnly) {
      return repairReadOnly(what);
    }
    var results = new java.util.ArrayList<RepairResult>();
    reorganise(
        false,
        parts -> {
          results.add(new ImageRepair(parts.file(), what).run());
          return List.of();
        });
    return results.getFirst();
  }

  private RepairResult repairReadOnly(Repair what) throws BlockException {
    synchronized (reopening) {
      gate.shut();
      try {
        if (tables.dirty()) {
          throw new UnsupportedImageException(
              name() + ": a log holds changes of it: open it for writing before it is repaired");
        }
        BlockNode node = file.node();
        node.reopen(false);
        try {
          clearForeignAutoclear(); // as whoever opens it for writing; qemu: check -r, too
          RepairResult result = new ImageRepair(new HostFile(node), what).run();
          become(
              new Qcow2Image(
                  node, dataNode(), options.withReadOnly(true), durability, logPlace, inFlight));
          return result;
        } finally {
          node.reopen(true);
        }
      } finally {
        gate.open();
      }
    }
  }

  /// All metadata is in the file, and nothing is counted ahead.
  private void settle() throws BlockException {
    if (prepared.ever || (!readOnly && (tables.dirty() || inFlight.waiting()))) {
      writeBack.run(true); // all is durable
      writeBack.run(false); // clusters freed just now are given back
    }
    if (!readOnly) {
      compressed.close();
      allocator.close();
    }
  }

  @Override
  public String format() {
    return "qcow2";
  }

  @Override
  public BlockNode file() {
    return file.node();
  }

  @Override
  public Optional<BackingReference> backingReference() {
    return header.now().backing();
  }

  @Override
  public void changeBacking(Optional<BackingReference> newBacking) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name() + ": image is open read-only");
    }
    if (newBacking.isPresent() && information().dataFileRaw()) {
      throw new UnsupportedImageException(
          name() + ": an image whose data file is raw cannot have a backing file");
    }
    clearForeignAutoclear();
    header.writeBacking(newBacking);
    backing.record(newBacking.isPresent());
  }

  @Override
  public void empty() throws BlockException {
    change(writes::empty);
  }

  @Override
  public Optional<SnapshotStore> snapshots() {
    return Optional.of(new Snapshots(this));
  }

  /// What a reorganisation works on, while nobody else does anything with the image.
  record Parts(HostFile file, HeaderFields header, Allocator allocator, SnapshotTable snapshots) {}

  /// Changes the tables of an image.
  @FunctionalInterface
  interface Reorganisation {
    /// @return clusters that nothing names any more, counted once each
    List<MappingTables.Freed> run(Parts parts) throws BlockException;
  }

  /// Runs `work` on the image's file: guest requests wait, all metadata is in the file and synced,
  /// and nothing is counted ahead. Afterwards the image is read again, whether `work` succeeded or
  /// not; the bitmaps stay who they are.
  ///
  /// @param changesGuestData whether bitmaps that record writes and that nobody claimed are to be
  ///   given up first
  void reorganise(boolean changesGuestData, Reorganisation work) throws BlockException {
    synchronized (reopening) {
      gate.shut();
      try {
        synchronized (this) {
          if (closed) {
            throw new TransportException(name() + ": image is closed");
          }
          if (readOnly) {
            throw new ReadOnlyNodeException(name() + ": image is open read-only");
          }
          clearForeignAutoclear();
          if (changesGuestData) {
            bitmaps.claimUntracked();
          }
        }
        PersistentBitmaps kept = bitmaps; // who stays, see readAgain
        synchronized (kept) {
          settle();
          file.sync();
          reorganiseSettled(work);
        }
        writeBack.run(false); // what nothing names any more is given back
      } finally {
        gate.open();
      }
    }
  }

  private void reorganiseSettled(Reorganisation work) throws BlockException {
    List<MappingTables.Freed> free;
    try {
      free = work.run(new Parts(file, header, allocator, snapshots));
    } catch (BlockException | RuntimeException e) {
      try {
        file.check(); // else nobody knows what the file says
        readAgain();
      } catch (BlockException left) {
        file.fail(left);
        e.addSuppressed(left);
      }
      throw e;
    }
    try {
      readAgain();
    } catch (BlockException e) {
      file.fail(e);
      throw e;
    }
    inFlight.retire(free);
  }

  private void readAgain() throws BlockException {
    var fresh = new Qcow2Image(file.node(), dataNode(), options, durability, logPlace, inFlight);
    ChangeLog log = tables.log();
    if (log != null) {
      ChangeLog.delete(log.path()); // all of it is in the file
    }
    leaveLog();
    PersistentBitmaps kept = bitmaps;
    become(fresh);
    Prepared now = prepared;
    kept.use(file, header, allocator, () -> now.now = false);
    bitmaps = kept;
    synchronized (this) {
      markedCorrupt = header.now().has(Feature.CORRUPT);
      if (markedCorrupt) {
        file.corrupt("image is marked corrupt; repair it");
      }
    }
  }

  /// A read-only node over the disk of a snapshot. It lives no longer than the image.
  BlockNode view(SnapshotTable.Entry entry) throws BlockException {
    return new SnapshotView(this, gate, inFlight, file, header.now(), entry, allocator, backing);
  }

  SnapshotTable snapshotTable() {
    return snapshots;
  }

  @Override
  public void attachBacking(BlockNode node) {
    backing.attach(node);
  }

  @Override
  public Optional<BlockNode> detachBacking() {
    return backing.detach();
  }

  @Override
  public Optional<BlockNode> backing() {
    return backing.node();
  }

  @Override
  public Optional<BitmapStore> bitmapStore() {
    return geometry.version() < 3 ? Optional.empty() : Optional.of(bitmaps);
  }

  @Override
  public String name() {
    return file.name();
  }

  @Override
  public long virtualSize() {
    return header.now().virtualSize();
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    checkRange(offset, into.remaining());
    int inside = gate.enter();
    int ticket = inFlight.enter();
    try {
      reads.read(offset, into);
    } finally {
      inFlight.exit(ticket);
      gate.leave(inside);
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    checkRange(offset, from.remaining());
    change(() -> writes.write(offset, from));
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    checkRange(offset, length);
    change(() -> writes.writeZeroes(offset, length, mode));
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    checkRange(offset, length);
    change(() -> writes.discard(offset, length));
  }

  @Override
  public boolean canWriteCompressed() {
    return !readOnly && !geometry.dataFile();
  }

  /// qemu: an image with an external data file holds no compressed clusters.
  @Override
  public void writeCompressed(long offset, ByteBuffer from) throws BlockException {
    if (geometry.dataFile()) {
      throw new UnsupportedImageException(
          name() + ": an image with an external data file cannot be written compressed");
    }
    int length = from.remaining();
    checkRange(offset, length);
    if (length > geometry.clusterSize()
        || geometry.within(offset) != 0
        || (length < geometry.clusterSize() && offset + length != virtualSize())) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + ", wanted one whole cluster");
    }
    if (length > 0) {
      change(() -> compressed.write(offset, from));
    }
  }

  @FunctionalInterface
  private interface GuestChange {
    void run() throws BlockException;
  }

  /// One guest request that changes the disk, up to the point where it may be acknowledged.
  private void change(GuestChange request) throws BlockException {
    int inside = gate.enter();
    try {
      prepare();
      int ticket = inFlight.enter();
      try {
        request.run();
      } finally {
        inFlight.exit(ticket);
      }
      if (durability == Durability.ACKNOWLEDGED && !tables.logged()) {
        writeBack.acknowledge();
      }
      writes.relieve();
    } catch (CorruptImageException e) {
      markCorrupt(e);
      throw e;
    } finally {
      gate.leave(inside);
    }
  }

  /// Where the image's own metadata was found corrupt on the way, no further change is begun, and
  /// the image says so to whoever opens it next. What was acknowledged before is still flushed.
  ///
  /// qemu: `qcow2_signal_corruption`.
  private synchronized void markCorrupt(CorruptImageException found) {
    if (readOnly || markedCorrupt || file.corruption().isEmpty()) {
      return;
    }
    markedCorrupt = true;
    prepared.now = false;
    LOG.log(Level.ERROR, "marking the image as corrupt: " + file.corruption().get().getMessage());
    try {
      header.markCorrupt();
    } catch (BlockException e) {
      found.addSuppressed(e);
    }
  }

  private void checkRange(long offset, long length) {
    if (offset < 0 || length < 0 || offset > virtualSize() - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + ", the disk has " + virtualSize());
    }
  }

  @Override
  public void flush() throws BlockException {
    int inside = gate.enter();
    try {
      if (prepared.ever) {
        writeBack.run(true);
      }
    } finally {
      gate.leave(inside);
    }
  }

  /// Not inside the gate, because the visitor may read. What it walks over while the image becomes
  /// writable is as it was before.
  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    checkRange(offset, length);
    int ticket = inFlight.enter();
    try {
      reads.extents(offset, length, visitor);
    } finally {
      inFlight.exit(ticket);
    }
  }

  @Override
  public long allocatedBytes() throws BlockException {
    return file.node().allocatedBytes();
  }

  /// Whether the file takes clearly less space than its clusters in use: then its metadata was
  /// preallocated, and clusters of data may lie in holes of the file.
  ///
  /// qemu: 7.2 looks for holes in such images only, by this measure.
  public boolean dataMayLieInHoles() throws BlockException {
    long allocated = allocatedBytes();
    if (allocated < 0 || geometry.dataFile()) {
      return false;
    }
    long clusterSize = geometry.clusterSize();
    long stored = allocated / clusterSize;
    long clearlyMore = Math.max(stored * 10 / 9, stored + 2);
    return allocator.inUse(clearlyMore, (file.length() + clusterSize - 1) / clusterSize);
  }

  @Override
  public long clusterSize() {
    return geometry.clusterSize();
  }

  @Override
  public void resize(long newSize) throws BlockException {
    resize(newSize, ResizeOptions.GROW);
  }

  /// Bitmaps get the new size too. [Growth] says what is on disk meanwhile.
  @Override
  public void resize(long newSize, ResizeOptions how) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name() + ": image is open read-only");
    }
    growth.check(newSize, how);
    long oldSize = virtualSize();
    if (newSize == oldSize) {
      return;
    }
    List<DirtyBitmap> kept = bitmaps.intact() ? bitmaps.beginResize() : List.of();
    try {
      prepare();
      int ticket = inFlight.enter();
      try {
        if (newSize > oldSize) {
          growth.grow(newSize, how.preallocation());
        } else {
          growth.shrink(newSize);
        }
      } finally {
        inFlight.exit(ticket);
      }
    } finally {
      bitmaps.endResize(kept); // of the size that the disk has now
    }
    if (newSize < oldSize) {
      settle();
      allocator.trim();
    }
  }

  /// What has changed since the image was opened is read again, as if it were opened now: header,
  /// tables, and a log that a process left. [#bitmapStore] and [#snapshots] are to be asked for
  /// again. No call other than guest requests may run meanwhile; those wait.
  ///
  /// On disk: to become read-only, what a close does, a sync, the log goes, then the locks of a
  /// writer end. To become writable, the locks of a writer, then what an opening for writing does.
  @Override
  public void reopen(boolean wantReadOnly) throws BlockException {
    synchronized (reopening) {
      gate.shut();
      try {
        synchronized (this) {
          if (closed) {
            throw new TransportException(name() + ": image is closed");
          }
        }
        if (wantReadOnly && !readOnly) {
          endWriting();
        } else if (!wantReadOnly && readOnly) {
          beginWriting();
        }
      } finally {
        gate.open();
      }
    }
  }

  private void beginWriting() throws BlockException {
    BlockNode node = file.node();
    Optional<BlockNode> dataNode = dataNode();
    node.reopen(false);
    try {
      if (dataNode.isPresent()) {
        dataNode.get().reopen(false);
      }
      become(open(node, dataNode, options.withReadOnly(false), durability, logPlace, inFlight));
    } catch (BlockException | RuntimeException e) {
      try {
        if (dataNode.isPresent()) {
          dataNode.get().reopen(true);
        }
        node.reopen(true);
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  private Optional<BlockNode> dataNode() {
    return geometry.dataFile() ? Optional.of(data.node()) : Optional.empty();
  }

  private void endWriting() throws BlockException {
    settle();
    file.sync();
    BlockNode node = file.node();
    Optional<BlockNode> dataNode = dataNode();
    var fresh =
        new Qcow2Image(node, dataNode, options.withReadOnly(true), durability, logPlace, inFlight);
    ChangeLog log = tables.log();
    if (log != null) {
      ChangeLog.delete(log.path()); // of no use now; beside a later writer it would mislead
    }
    try {
      if (dataNode.isPresent()) {
        dataNode.get().reopen(true);
      }
      node.reopen(true);
    } catch (BlockException | RuntimeException e) {
      file.fail(new TransportException(name() + ": could not be reopened read-only", e));
      throw e;
    }
    leaveLog();
    become(fresh);
  }

  /// Takes over all that `fresh`, which nobody else has seen, read from the file. Every field that
  /// is not final and depends on the file is here.
  private void become(Qcow2Image fresh) {
    backing.detach().ifPresent(fresh.backing::attach);
    backing = fresh.backing;
    file = fresh.file;
    data = fresh.data;
    growth = fresh.growth;
    geometry = fresh.geometry;
    snapshots = fresh.snapshots;
    metadata = fresh.metadata;
    tables = fresh.tables;
    allocator = fresh.allocator;
    bitmaps = fresh.bitmaps;
    writeBack = fresh.writeBack;
    compressedReads.close();
    compressedReads = fresh.compressedReads;
    compressed = fresh.compressed;
    reads = fresh.reads;
    writes = fresh.writes;
    prepared = fresh.prepared;
    header = fresh.header;
    readOnly = fresh.readOnly;
  }

  @Override
  public void close() throws BlockException {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
    }
    try {
      finish();
    } finally {
      leaveLog();
      compressedReads.close();
      try (BlockNode _ = data.node()) { // closed twice where it is the image's file
        file.node().close();
      } finally {
        backing.close();
      }
    }
  }

  private void finish() throws BlockException {
    settle();
    ChangeLog log = tables.log();
    if (log != null) {
      log.remove();
    }
  }
}
