// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Borrower;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Gate;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.spi.NamedFiles;
import java.lang.System.Logger;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// An open qcow2 image.
///
/// Any thread may read and write at any time. Reads, and writes to clusters that have their place,
/// take no lock. The classes that do the work: [GuestReads], [GuestWrites], [GuestZeroes],
/// [MappingTables], [WriteBack], [Allocator], [ChangeLog]; each says what is on disk after its
/// steps.
///
/// Opened read-only, nothing is ever written. Opened for writing, nothing is written before the
/// first guest write; that one first clears autoclear bits that are not ours to keep, marks bitmaps
/// that record writes as in use, and syncs.
public final class Qcow2Image implements FormatNode {
  private static final Logger LOG = System.getLogger(Qcow2Image.class.getName());

  private final Gate gate = new Gate(); // guest requests; shut while the image is reopened
  private final Durability durability;
  private final InFlight<List<Freed>> inFlight;
  private final Backing backing;
  private final Reopening reopening;
  private final GuestQueue queue;
  private volatile OpenImage now; // requests use it inside the gate
  private boolean closed; // guarded by this

  private Qcow2Image(BlockNode file, Optional<BlockNode> dataFile, OpenImage.Lasting lasting)
      throws BlockException {
    this.durability = lasting.durability();
    this.inFlight = lasting.inFlight();
    this.backing = lasting.backing();
    this.reopening = new Reopening(this, gate, lasting);
    this.queue = new GuestQueue(this, gate, inFlight, backing);
    this.now = OpenImage.open(file, dataFile, lasting);
    backing.record(now.header.now().backing().isPresent());
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
          file, Optional.of(data), options, options.durability(), LogPlace.of(file, options));
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
    return open(file, Optional.empty(), options, durability, logPlace);
  }

  static Qcow2Image open(
      BlockNode file,
      Optional<BlockNode> dataFile,
      OpenOptions options,
      Durability durability,
      Optional<LogPlace> logPlace)
      throws BlockException {
    return new Qcow2Image(file, dataFile, new OpenImage.Lasting(options, durability, logPlace));
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
    NewImage.of(file.name(), options).create(file, others);
  }

  /// What was read from the file last.
  OpenImage now() {
    return now;
  }

  /// `fresh`, which nobody else has seen, takes the place of what was read before. No request runs.
  void become(OpenImage fresh) {
    now.compressedReads.close();
    backing.record(fresh.header.now().backing().isPresent());
    now = fresh;
  }

  synchronized void requireOpen() throws TransportException {
    if (closed) {
      throw new TransportException(name() + ": image is closed");
    }
  }

  /// The log in use, null when there is none.
  @Nullable ChangeLog log() {
    return now.tables.log();
  }

  public ImageInformation information() {
    return ImageInformation.of(now);
  }

  /// Holds every reference against every refcount, as `qemu-img check` does. Flushes metadata first
  /// when the image is writable; no guest write may run meanwhile. Memory is bounded whatever the
  /// image's size.
  public CheckResult check() throws BlockException {
    now.settle();
    return new ImageCheck(now.file).run();
  }

  /// Puts right what a check finds, as far as `what` goes, and syncs; guest requests wait. The
  /// guest's data is never touched. Crash-safe: after a power cut the image is no worse than
  /// before. An image that is open read-only, as one with the dirty or corrupt bit may be, is open
  /// for writing meanwhile.
  public RepairResult repair(Repair what) throws BlockException {
    return reopening.repair(what);
  }

  @Override
  public String format() {
    return "qcow2";
  }

  @Override
  public BlockNode file() {
    return now.file.node();
  }

  @Override
  public Optional<BackingReference> backingReference() {
    return now.header.now().backing();
  }

  @Override
  public void changeBacking(Optional<BackingReference> newBacking) throws BlockException {
    OpenImage image = now;
    image.requireWritable();
    if (newBacking.isPresent() && information().dataFileRaw()) {
      throw new UnsupportedImageException(
          name() + ": an image whose data file is raw cannot have a backing file");
    }
    image.clearForeignAutoclear();
    image.header.writeBacking(newBacking);
    backing.record(newBacking.isPresent());
  }

  @Override
  public void amend(Map<String, String> options) throws BlockException {
    now.requireWritable();
    now.requireSound();
    new Amendment(this, reopening, options).run();
  }

  @Override
  public void empty() throws BlockException {
    change(image -> image.zeroes.empty());
  }

  @Override
  public Optional<SnapshotStore> snapshots() {
    return Optional.of(new Snapshots(this));
  }

  /// See [Reopening#reorganise]. Refused for an image that was found corrupt.
  void reorganise(boolean changesGuestData, Reopening.Reorganisation work) throws BlockException {
    now.requireSound();
    reopening.reorganise(changesGuestData, work);
  }

  /// A read-only node over the disk of a snapshot. It lives no longer than the image.
  BlockNode view(SnapshotTable.Entry entry) throws BlockException {
    return new SnapshotView(this, gate, inFlight, now, entry, backing);
  }

  /// @throws BlockException what kept the table from being read, in an image open for reading
  SnapshotTable snapshotTable() throws BlockException {
    return now.readableSnapshots();
  }

  /// Internal snapshots as [#information] and [#snapshots] list them are all there are.
  ///
  /// @throws BlockException what kept their table from being read: an image that is open for
  ///   reading only is read without them, and lists none
  public void requireSnapshots() throws BlockException {
    now.readableSnapshots();
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
    return now.geometry.version() < 3 ? Optional.empty() : Optional.of(now.bitmaps());
  }

  @Override
  public String name() {
    return now.file.name();
  }

  @Override
  public long virtualSize() {
    return now.header.now().virtualSize();
  }

  @Override
  public boolean isAheadOfFile() {
    return now.aheadOfFile();
  }

  @Override
  public boolean readOnly() {
    return now.readOnly;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    checkRange(offset, into.remaining());
    int inside = gate.enter();
    int ticket = inFlight.enter();
    try {
      now.reads.read(offset, into);
    } finally {
      inFlight.exit(ticket);
      gate.leave(inside);
    }
  }

  @Override
  public int lend(long offset, int length, Borrower borrower) {
    int inside = gate.tryEnter();
    if (inside < 0) {
      return 0;
    }
    int ticket = inFlight.enter();
    try {
      return now.reads.lend(offset, length, borrower);
    } finally {
      inFlight.exit(ticket);
      gate.leave(inside);
    }
  }

  /// What is allocated at once, and filled up from the backing image where a write leaves some of
  /// it.
  @Override
  public int writeUnit() {
    return Math.max(now.geometry.unitSize(), now.file.node().writeUnit());
  }

  @Override
  public boolean queues() {
    return now.data.node().queues();
  }

  /// What needs no change of the mapping. See [GuestQueue].
  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    return queue.begin(request);
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    checkRange(offset, from.remaining());
    // As `change` does, and spelled out here: what is captured would be an object for each request.
    int inside = gate.enter();
    OpenImage image = now;
    try {
      image.prepare();
      int ticket = inFlight.enter();
      try {
        image.writes.write(offset, from);
      } finally {
        inFlight.exit(ticket);
      }
      settle(image);
    } catch (CorruptImageException e) {
      image.markCorrupt(e);
      throw e;
    } finally {
      gate.leave(inside);
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    checkRange(offset, length);
    change(image -> image.zeroes.writeZeroes(offset, length, mode));
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    checkRange(offset, length);
    change(image -> image.zeroes.discard(offset, length));
  }

  @Override
  public boolean canWriteCompressed() {
    return !now.readOnly && !now.geometry.dataFile();
  }

  /// qemu: an image with an external data file holds no compressed clusters.
  @Override
  public void writeCompressed(long offset, ByteBuffer from) throws BlockException {
    Geometry geometry = now.geometry;
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
      change(image -> image.compressed.write(offset, from));
    }
  }

  @FunctionalInterface
  private interface GuestChange {
    void run(OpenImage image) throws BlockException;
  }

  /// One guest request that changes the disk, up to the point where it may be acknowledged.
  private void change(GuestChange request) throws BlockException {
    int inside = gate.enter();
    OpenImage image = now;
    try {
      image.prepare();
      int ticket = inFlight.enter();
      try {
        request.run(image);
      } finally {
        inFlight.exit(ticket);
      }
      settle(image);
    } catch (CorruptImageException e) {
      image.markCorrupt(e);
      throw e;
    } finally {
      gate.leave(inside);
    }
  }

  /// What is left to do between a change and its acknowledgement.
  private void settle(OpenImage image) throws BlockException {
    if (durability == Durability.ACKNOWLEDGED && !image.tables.logged()) {
      image.writeBack.acknowledge();
    }
    image.writes.relieve();
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
      now.flush();
    } finally {
      gate.leave(inside);
    }
  }

  /// Data, and tables as far as they were written back already.
  @Override
  public void startWriteBack() throws BlockException {
    int inside = gate.enter();
    try {
      now.data.startWriteBack();
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
      now.reads.extents(offset, length, visitor);
    } finally {
      inFlight.exit(ticket);
    }
  }

  @Override
  public long allocatedBytes() throws BlockException {
    return now.file.node().allocatedBytes();
  }

  /// Whether the file takes clearly less space than its clusters in use: then its metadata was
  /// preallocated, and clusters of data may lie in holes of the file.
  ///
  /// qemu: 7.2 looks for holes in such images only, by this measure.
  public boolean dataMayLieInHoles() throws BlockException {
    OpenImage image = now;
    long allocated = allocatedBytes();
    if (allocated < 0 || image.geometry.dataFile()) {
      return false;
    }
    long clusterSize = image.geometry.clusterSize();
    long stored = allocated / clusterSize;
    long clearlyMore = Math.max(stored * 10 / 9, stored + 2);
    return image.allocator.inUse(
        clearlyMore, (image.file.length() + clusterSize - 1) / clusterSize);
  }

  @Override
  public long clusterSize() {
    return now.geometry.clusterSize();
  }

  @Override
  public void resize(long newSize) throws BlockException {
    resize(newSize, ResizeOptions.GROW);
  }

  /// Bitmaps get the new size too. [Growth] says what is on disk meanwhile.
  @Override
  public void resize(long newSize, ResizeOptions how) throws BlockException {
    OpenImage image = now;
    image.requireWritable();
    image.growth.check(newSize, how);
    long oldSize = virtualSize();
    if (newSize == oldSize) {
      return;
    }
    PersistentBitmaps bitmaps = image.bitmaps();
    List<DirtyBitmap> kept = bitmaps.intact() ? bitmaps.beginResize() : List.of();
    try {
      image.prepare();
      int ticket = inFlight.enter();
      try {
        if (newSize > oldSize) {
          image.growth.grow(newSize, how.preallocation());
        } else {
          image.growth.shrink(newSize);
        }
      } finally {
        inFlight.exit(ticket);
      }
    } finally {
      bitmaps.endResize(kept); // of the size that the disk has now
    }
    if (newSize < oldSize) {
      image.settle();
      image.allocator.trim();
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
    reopening.reopen(wantReadOnly);
  }

  @Override
  public void close() throws BlockException {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
    }
    OpenImage image = now;
    try {
      image.finish();
    } finally {
      image.leaveLog();
      image.compressedReads.close();
      try (BlockNode _ = image.data.node()) { // closed twice where it is the image's file
        image.file.node().close();
      } finally {
        backing.close();
      }
    }
  }
}
