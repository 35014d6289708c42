// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
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
  public record Information(
      String compat,
      int clusterSize,
      int refcountBits,
      boolean lazyRefcounts,
      boolean dirty,
      boolean corrupt,
      boolean extendedL2,
      String compressionType,
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

  private final HostFile file;
  private final HeaderFields header;
  private final Geometry geometry;
  private final SnapshotTable snapshots;
  private final Backing backing;
  private final Durability durability;
  private final Optional<LogPlace> logPlace;
  private final boolean readOnly;
  private final MetadataClusters metadata;
  private final MappingTables tables;
  private final Allocator allocator;
  private final PersistentBitmaps bitmaps;
  private final WriteBack writeBack;
  private final GuestReads reads;
  private final GuestWrites writes;
  private final InFlight<List<MappingTables.Freed>> inFlight = new InFlight<>();
  private volatile boolean prepared; // the next write may begin; written under this, and by a store
  private volatile boolean touched; // written under this: whether a write ever began
  private boolean closed; // guarded by this

  /// Opens the image in `file` with the durability of `options`. On success the result owns `file`.
  public static Qcow2Image open(BlockNode file, OpenOptions options) throws BlockException {
    return open(file, options, options.durability());
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
    if (file.readOnly() && !options.readOnly()) {
      throw new ReadOnlyNodeException(
          file.name() + ": file is open read-only, wanted to open the image for writing");
    }
    var image = new Qcow2Image(file, options, durability, logPlace);
    try {
      image.bringInLog();
      return image;
    } catch (BlockException | RuntimeException e) {
      image.leaveLog();
      throw e;
    }
  }

  /// Writes an empty image into `file`, which is empty, and syncs it.
  ///
  /// @throws UnsupportedImageException when an option or its value is not handled; named in the
  ///   text
  public static void create(BlockNode file, CreateOptions options) throws BlockException {
    NewImage.of(file.name(), options).write(file);
  }

  private Qcow2Image(
      BlockNode node, OpenOptions options, Durability durability, Optional<LogPlace> logPlace)
      throws BlockException {
    this.readOnly = options.readOnly();
    this.durability = durability;
    this.logPlace = logPlace;
    this.file = new HostFile(node);
    Header first = Header.parse(file);
    if (!readOnly) {
      refuseUnclean(file.name(), first);
    }
    this.geometry = first.geometry();
    this.header = new HeaderFields(file, first);
    this.snapshots = SnapshotTable.read(file, first);
    this.backing = new Backing(first.backing().isPresent());
    long[] l1 = MappingTables.readL1(file, first.l1Offset(), first.l1Entries());
    this.metadata = new MetadataClusters(readOnly ? new long[0] : metadata(first, l1));
    var refcounts = new Refcounts(file, first, metadata);
    this.allocator = new Allocator(file, header, refcounts, metadata);
    this.tables = new MappingTables(file, first, l1, allocator, metadata, readOnly);
    this.bitmaps = new PersistentBitmaps(file, header, allocator, readOnly, () -> prepared = false);
    this.writeBack = new WriteBack(file, header, tables, allocator, inFlight);
    this.reads = new GuestReads(file, first, tables, backing);
    this.writes = new GuestWrites(file, header, tables, allocator, reads, backing, writeBack);
  }

  private static void refuseUnclean(String name, Header header) throws BlockException {
    if (header.has(Feature.CORRUPT)) {
      throw new CorruptImageException(
          name + ": image is marked corrupt; it can be read, and written again after a repair");
    }
    if (header.has(Feature.DIRTY)) {
      throw new UnsupportedImageException(
          name
              + ": image was not closed cleanly and its refcounts may be wrong (dirty bit); it can be read,"
              + " and written again after 'qemu-img check -r all'");
    }
  }

  /// Clusters of the header, and of every table that the image names now.
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
    return clusters.build().distinct().toArray();
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
    List<ChangeLog.Change> changes =
        ChangeLog.read(path, logPlace.get().identity(), geometry.clusterBits());
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

  /// Gives back what the dead process had counted ahead and never used. Not worth more than one
  /// walk over the tables: a larger image keeps its few MiB of leaks until somebody repairs it.
  private void reclaimPool(LogReplay replay) throws BlockException {
    if (geometry.clusters(file.length()) > ImageCheck.WINDOW) {
      return;
    }
    var leaked = new java.util.ArrayList<Long>();
    CheckResult found =
        new ImageCheck(file, snapshots)
            .run((cluster, count, references) -> {
              if (count == 1 && replay.wasPooled(cluster)) {
                leaked.add(cluster);
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
    if (prepared) {
      return;
    }
    synchronized (this) {
      if (prepared) {
        return;
      }
      if (readOnly) {
        throw new ReadOnlyNodeException(name() + ": image is open read-only");
      }
      clearForeignAutoclear();
      bitmaps.claimUntracked();
      if (durability == Durability.ACKNOWLEDGED && logPlace.isPresent() && tables.log() == null) {
        startLog(logPlace.get());
      }
      touched = true;
      prepared = true;
    }
  }

  /// Takes away the autoclear bits of what is not kept consistent here, and syncs.
  private void clearForeignAutoclear() throws BlockException {
    boolean bitmapsKept =
        bitmaps.intact() && header.now().extension(Header.Extension.BITMAPS).isPresent();
    long keep = header.now().autoclear() & (bitmapsKept ? Feature.AUTOCLEAR_KEPT : 0);
    if (keep != header.now().autoclear()) {
      header.writeAutoclear(keep);
      file.sync();
    }
  }

  private void startLog(LogPlace place) throws BlockException {
    try {
      tables.useLog(ChangeLog.create(place.path(), place.identity(), geometry.clusterBits()));
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
        GuestReads.compressionName(now.compressionType()),
        snapshots.entries().stream().map(SnapshotTable.Entry::snapshot).toList());
  }

  /// Holds every reference against every refcount, as `qemu-img check` does. Flushes metadata first
  /// when the image is writable; no guest write may run meanwhile. Memory is bounded whatever the
  /// image's size.
  public CheckResult check() throws BlockException {
    settle();
    return new ImageCheck(file, snapshots).run((_, _, _) -> {});
  }

  /// Puts right what a check finds, as far as `what` goes, and syncs; no guest request may run
  /// meanwhile. The guest's data is never touched. Crash-safe: after a power cut the image is no
  /// worse than before.
  public RepairResult repair(Repair what) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name() + ": image is open read-only");
    }
    CheckResult found = check();
    if (!found.sound()) {
      throw new CorruptImageException(
          name()
              + ": "
              + found.corruptions()
              + " corruptions and "
              + found.checkErrors()
              + " errors, wanted none to give leaked clusters back");
    }
    if (found.leaks() > 0) {
      new ImageCheck(file, snapshots)
          .run((cluster, count, references) -> {
            for (long i = references; i < count; i++) {
              allocator.release(cluster, 1);
            }
          });
      file.sync();
    }
    return new RepairResult(found.leaks(), 0, found.findings(), check());
  }

  /// All metadata is in the file, and nothing is counted ahead.
  private void settle() throws BlockException {
    if (touched || (!readOnly && tables.dirty())) {
      writeBack.run(true); // all is durable
      writeBack.run(false); // clusters freed just now are given back
    }
    if (!readOnly) {
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
    clearForeignAutoclear();
    header.writeBacking(newBacking);
    backing.record(newBacking.isPresent());
  }

  @Override
  public Optional<SnapshotStore> snapshots() {
    return Optional.empty();
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
    int ticket = inFlight.enter();
    try {
      reads.read(offset, into);
    } finally {
      inFlight.exit(ticket);
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

  @FunctionalInterface
  private interface GuestChange {
    void run() throws BlockException;
  }

  /// One guest request that changes the disk, up to the point where it may be acknowledged.
  private void change(GuestChange request) throws BlockException {
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
  }

  private void checkRange(long offset, long length) {
    if (offset < 0 || length < 0 || offset > virtualSize() - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + ", the disk has " + virtualSize());
    }
  }

  @Override
  public void flush() throws BlockException {
    if (touched) {
      writeBack.run(true);
    }
  }

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
    if (allocated < 0) {
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

  /// Makes the disk larger: shrinking is not supported.
  ///
  /// On disk, in this order, synced between: zero entries for what a longer backing node would
  /// otherwise show; a longer L1 table in new clusters; the header's L1 place and size; the virtual
  /// size; then the old L1 table is given back.
  @Override
  public void resize(long newSize) throws BlockException {
    long oldSize = virtualSize();
    if (newSize < oldSize) {
      throw new UnsupportedImageException(
          name() + ": shrinking from " + oldSize + " to " + newSize + " bytes is not supported");
    }
    if (newSize == oldSize) {
      return;
    }
    if (header.now().extension(Header.Extension.BITMAPS).isPresent()) {
      throw new UnsupportedImageException(
          name() + ": cannot resize an image with persistent bitmaps; remove them first");
    }
    long entries = geometry.l1EntriesFor(newSize);
    if (entries > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          name() + ": virtual size " + newSize + " is too large for its clusters");
    }
    prepare();
    if (entries > tables.l1Length()) {
      growL1((int) entries);
    }
    int ticket = inFlight.enter();
    try {
      writes.zeroBeyondEnd(oldSize, newSize);
    } finally {
      inFlight.exit(ticket);
    }
    writeBack.run(true);
    header.writeVirtualSize(newSize);
    file.sync();
  }

  private void growL1(int entries) throws BlockException {
    ClusterLocks.Held held = writes.keepOut();
    try {
      writeBack.run(true);
      long oldOffset = header.now().l1Offset();
      long oldBytes = 8L * header.now().l1Entries();
      long clusters = geometry.clusters(8L * entries);
      long offset = allocator.takeTable(clusters);
      ByteBuffer raw = Header.bigEndian(Math.toIntExact(clusters << geometry.clusterBits()));
      raw.asLongBuffer().put(tables.l1());
      file.write(offset, raw);
      file.sync();
      header.writeL1(offset, entries);
      file.sync();
      tables.growL1(entries);
      if (oldBytes > 0) {
        allocator.release(oldOffset >>> geometry.clusterBits(), geometry.clusters(oldBytes));
      }
    } finally {
      writes.letIn(held);
    }
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
      try {
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
