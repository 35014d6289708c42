// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.UnsupportedImageException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// The bitmaps kept in an image.
///
/// Crash order:
/// - [#claim]: the in-use flags are set where they stand (4 bytes each, never across a sector),
///   then a sync. A crash between leaves some set: those are lost, which is safe.
/// - [#store], [#add], [#clear], [#merge] and [#remove]: data clusters, tables and a new directory
///   are written to fresh clusters; sync; the header points to the new directory
///   ([HeaderFields#writeBitmaps], which syncs); then the clusters of the old ones are given back.
///   A crash before the pointer leaves the old directory, whose bitmaps are in use if there was a
///   write; after it, the new one. What is between is leaked.
///
/// - [#enable], [#disable]: 4 bytes of flags in place, then a sync.
///
/// A guest write that nobody claimed bitmaps for marks those that record writes as in use by itself
/// ([#claimUntracked]): their contents are then not to be trusted, here and on disk.
///
/// Guarded by its monitor.
///
/// Spec: qcow2.rst, "Bitmaps". qemu: a bitmap in use at open is inconsistent: listed and kept,
/// never loaded.
final class PersistentBitmaps implements BitmapStore {
  private static final Logger LOG = System.getLogger(PersistentBitmaps.class.getName());

  private HostFile file;
  private HeaderFields header;
  private final Geometry geometry;
  private Allocator allocator;
  private BitmapData data;
  private final boolean readOnly;
  private Runnable stored;

  /// Why the directory cannot be used; null when it can.
  private final @Nullable BlockException damage;

  private BitmapDirectory directory;
  private final Set<String> inconsistent = new HashSet<>();
  private final Set<String> added = new HashSet<>(); // in use since this opening, no contents yet
  private boolean claimed;

  /// @param stored told when bitmaps are no longer in use, so that the next write claims them again
  PersistentBitmaps(
      HostFile file, HeaderFields header, Allocator allocator, boolean readOnly, Runnable stored) {
    this.file = file;
    this.header = header;
    this.geometry = header.now().geometry();
    this.allocator = allocator;
    this.data = new BitmapData(file, header, allocator);
    this.readOnly = readOnly;
    this.stored = stored;
    BitmapDirectory found = BitmapDirectory.empty();
    BlockException trouble = null;
    try {
      found = BitmapDirectory.read(file, header.now());
    } catch (BlockException e) {
      // The disk itself is as good as before: only its bitmaps are out of reach.
      LOG.log(Level.WARNING, "persistent bitmaps are not usable: " + e.getMessage());
      trouble = e;
    }
    this.directory = found;
    this.damage = trouble;
    for (BitmapDirectory.Entry entry : found.entries()) {
      if (entry.inUse() || !entry.usable()) {
        inconsistent.add(entry.name());
      }
    }
  }

  /// The image's other tables were read again; its bitmaps are where they were.
  synchronized void use(
      HostFile newFile, HeaderFields newHeader, Allocator newAllocator, Runnable newStored) {
    file = newFile;
    header = newHeader;
    allocator = newAllocator;
    data = new BitmapData(newFile, newHeader, newAllocator);
    stored = newStored;
  }

  /// Whether the directory was read; when not, writing takes away its autoclear bit.
  boolean intact() {
    return damage == null;
  }

  private void check() throws BlockException {
    if (damage != null) {
      throw damage;
    }
  }

  private void checkWritable() throws BlockException {
    check();
    if (readOnly) {
      throw new ReadOnlyNodeException(file.name() + ": image is open read-only");
    }
  }

  @Override
  public synchronized List<Stored> stored() {
    return directory.entries().stream()
        .map(e ->
            new Stored(
                e.name(), 1L << e.granularityBits(), inconsistent.contains(e.name()), e.enabled()))
        .toList();
  }

  private BitmapDirectory.Entry entry(String name) throws CorruptImageException {
    for (BitmapDirectory.Entry entry : directory.entries()) {
      if (entry.name().equals(name)) {
        return entry;
      }
    }
    throw new CorruptImageException(file.name() + ": no bitmap is named " + name);
  }

  @Override
  public synchronized DirtyBitmap load(String name) throws BlockException {
    check();
    BitmapDirectory.Entry entry = entry(name);
    if (added.contains(name)) {
      throw new CorruptImageException(
          file.name() + ": bitmap " + name + " was added and not stored yet: it has no contents");
    }
    if (inconsistent.contains(name)) {
      throw new CorruptImageException(
          file.name() + ": bitmap " + name + " is inconsistent: it was in use when its user died");
    }
    if (claimed) {
      throw new ImageBusyException(
          file.name() + ": bitmap " + name + " is in use, so what is stored is not what it holds");
    }
    return data.load(entry);
  }

  @Override
  public synchronized void claim() throws BlockException {
    checkWritable();
    if (!claimed) {
      mark(false);
      claimed = true;
    }
  }

  /// Before the first guest write: bitmaps that record writes and that nobody claimed are given up.
  synchronized void claimUntracked() throws BlockException {
    if (!claimed && damage == null) {
      mark(true);
    }
  }

  private void mark(boolean givingUp) throws BlockException {
    var entries = new ArrayList<BitmapDirectory.Entry>();
    boolean changed = false;
    for (BitmapDirectory.Entry entry : directory.entries()) {
      boolean mine = !inconsistent.contains(entry.name()) && (!givingUp || entry.enabled());
      if (mine && givingUp && !entry.inUse()) {
        inconsistent.add(entry.name());
      }
      if (mine && !entry.inUse()) {
        int flags = entry.flags() | BitmapDirectory.IN_USE;
        writeFlags(entry, flags);
        entries.add(entry.withFlags(flags));
        changed = true;
      } else {
        entries.add(entry);
      }
    }
    if (changed) {
      file.sync();
      directory = new BitmapDirectory(directory.offset(), directory.bytes(), List.copyOf(entries));
    }
  }

  @Override
  public synchronized void store(Collection<DirtyBitmap> bitmaps) throws BlockException {
    checkWritable();
    var names = new HashSet<String>();
    for (DirtyBitmap bitmap : bitmaps) {
      data.checkStorable(bitmap.name(), bitmap.size(), bitmap.granularity());
      if (!names.add(bitmap.name())) {
        throw new IllegalArgumentException("two bitmaps are named " + bitmap.name());
      }
    }
    var kept = new ArrayList<BitmapDirectory.Entry>();
    var dropped = new ArrayList<BitmapDirectory.Entry>();
    for (BitmapDirectory.Entry entry : directory.entries()) {
      boolean keep = inconsistent.contains(entry.name()) && !names.contains(entry.name());
      (keep ? kept : dropped).add(entry);
    }
    change(written -> {
      for (DirtyBitmap bitmap : bitmaps) {
        kept.add(data.write(bitmap, written));
      }
      replace(kept, dropped, written);
    });
    inconsistent.removeAll(names);
    added.clear();
    claimed = false;
    stored.run();
  }

  @Override
  public synchronized void remove(String name) throws BlockException {
    checkWritable();
    BitmapDirectory.Entry gone = entry(name);
    var kept = new ArrayList<>(directory.entries());
    kept.remove(gone);
    change(written -> replace(kept, List.of(gone), written));
    inconsistent.remove(name);
    added.remove(name);
  }

  @Override
  public synchronized void add(DirtyBitmap bitmap) throws BlockException {
    checkWritable();
    checkFree(bitmap.name());
    data.checkStorable(bitmap.name(), bitmap.size(), bitmap.granularity());
    int flags = BitmapDirectory.IN_USE | (bitmap.enabled() ? BitmapDirectory.AUTO : 0);
    append(bitmap.name(), bitmap.granularity(), flags);
    added.add(bitmap.name());
  }

  private void checkFree(String name) throws BlockException {
    for (BitmapDirectory.Entry entry : directory.entries()) {
      if (entry.name().equals(name)) {
        throw new UnsupportedImageException(
            file.name() + ": a bitmap is named " + name + " already");
      }
    }
  }

  private void append(String name, long granularity, int flags) throws BlockException {
    change(written -> {
      var entries = new ArrayList<>(directory.entries());
      entries.add(data.writeEmpty(name, granularity, flags, written));
      replace(entries, List.of(), written);
    });
  }

  @FunctionalInterface
  private interface Change {
    /// @param written takes the clusters to give back when the change fails
    void make(List<Long> written) throws BlockException;
  }

  private void change(Change change) throws BlockException {
    var written = new ArrayList<Long>();
    try {
      change.make(written);
    } catch (BlockException | RuntimeException e) {
      giveBack(written);
      throw e;
    }
  }

  /// An image that nobody keeps bitmaps of in memory: the file has the say.
  private void checkIdle() throws BlockException {
    checkWritable();
    if (claimed || !added.isEmpty()) {
      throw new ImageBusyException(
          file.name() + ": its bitmaps are in use, so what is stored is not what they hold");
    }
  }

  private BitmapDirectory.Entry consistent(String name) throws BlockException {
    BitmapDirectory.Entry entry = entry(name);
    if (inconsistent.contains(name)) {
      throw new CorruptImageException(
          file.name()
              + ": bitmap "
              + name
              + " is inconsistent and cannot be used; it can be removed");
    }
    return entry;
  }

  @Override
  public synchronized void add(String name, long granularity) throws BlockException {
    checkIdle();
    checkFree(name);
    data.checkStorable(name, header.now().virtualSize(), granularity);
    append(name, granularity, BitmapDirectory.AUTO);
    stored.run();
  }

  @Override
  public synchronized void clear(String name) throws BlockException {
    checkIdle();
    BitmapDirectory.Entry old = consistent(name);
    change(written ->
        exchange(
            old,
            data.writeEmpty(name, 1L << old.granularityBits(), old.flags(), written),
            written));
  }

  @Override
  public synchronized void merge(String target, DirtyBitmap source) throws BlockException {
    checkIdle();
    BitmapDirectory.Entry old = consistent(target);
    DirtyBitmap bitmap = data.load(old);
    if (bitmap.size() != source.size()) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap "
              + target
              + " is of a disk of "
              + bitmap.size()
              + " bytes, "
              + source.name()
              + " of one of "
              + source.size()
              + ": they cannot be merged");
    }
    bitmap.merge(source);
    change(written -> exchange(old, data.write(bitmap, written), written));
  }

  private void exchange(BitmapDirectory.Entry old, BitmapDirectory.Entry fresh, List<Long> written)
      throws BlockException {
    var entries = new ArrayList<>(directory.entries());
    entries.set(entries.indexOf(old), fresh.withExtra(old.extra(), old.flags()));
    replace(entries, List.of(old), written);
  }

  @Override
  public synchronized void enable(String name) throws BlockException {
    record(name, true);
  }

  @Override
  public synchronized void disable(String name) throws BlockException {
    record(name, false);
  }

  private void record(String name, boolean writes) throws BlockException {
    checkIdle();
    BitmapDirectory.Entry entry = consistent(name);
    int flags =
        writes ? entry.flags() | BitmapDirectory.AUTO : entry.flags() & ~BitmapDirectory.AUTO;
    if (flags != entry.flags()) {
      writeFlags(entry, flags);
      file.sync();
      var entries = new ArrayList<>(directory.entries());
      entries.set(entries.indexOf(entry), entry.withFlags(flags));
      directory = new BitmapDirectory(directory.offset(), directory.bytes(), List.copyOf(entries));
      stored.run();
    }
  }

  private void writeFlags(BitmapDirectory.Entry entry, int flags) throws BlockException {
    ByteBuffer raw = Header.bigEndian(4).putInt(0, flags);
    file.write(directory.offset() + entry.at() + BitmapDirectory.At.FLAGS, raw);
  }

  /// Before the disk gets another size: reads all bitmaps and marks them in use. Empty when someone
  /// keeps them in memory: that one answers for their size. [#endResize] takes the result.
  ///
  /// On disk: bitmaps in use (a power cut from here on leaves them inconsistent, whatever size they
  /// and the disk have), then the disk's new size, then bitmaps of that size, not in use.
  ///
  /// @throws UnsupportedImageException when one is inconsistent, as in QEMU
  synchronized List<DirtyBitmap> beginResize() throws BlockException {
    checkWritable();
    if (claimed || !added.isEmpty()) {
      return List.of();
    }
    var bitmaps = new ArrayList<DirtyBitmap>();
    for (BitmapDirectory.Entry entry : directory.entries()) {
      if (inconsistent.contains(entry.name())) {
        throw new UnsupportedImageException(
            file.name()
                + ": bitmap "
                + entry.name()
                + " is inconsistent: remove it before the disk is resized");
      }
      bitmaps.add(data.load(entry));
    }
    if (!bitmaps.isEmpty()) {
      claim();
    }
    return bitmaps;
  }

  /// After the disk has its new size.
  synchronized void endResize(List<DirtyBitmap> bitmaps) throws BlockException {
    if (!bitmaps.isEmpty()) {
      long size = header.now().virtualSize();
      store(bitmaps.stream().map(b -> b.resized(size)).toList());
    }
  }

  /// Makes the directory name `entries`, and gives back what only the old one named.
  private void replace(
      List<BitmapDirectory.Entry> entries, List<BitmapDirectory.Entry> dropped, List<Long> written)
      throws BlockException {
    if (entries.size() > BitmapDirectory.MAX_BITMAPS) {
      throw new UnsupportedImageException(
          file.name() + ": " + entries.size() + " bitmaps, at most 65535 are possible");
    }
    var free = new ArrayList<Long>();
    addClusters(free, directory.offset(), directory.bytes());
    for (BitmapDirectory.Entry entry : dropped) {
      addClusters(free, entry.tableOffset(), 8L * entry.tableEntries());
      try {
        for (long offset : BitmapDirectory.table(file, geometry, entry)) {
          addClusters(free, offset & L2Entry.OFFSET, geometry.clusterSize());
        }
      } catch (CorruptImageException e) {
        LOG.log(Level.WARNING, "clusters of a bitmap are leaked: " + e.getMessage());
      }
    }
    if (entries.isEmpty()) {
      if (directory.offset() != 0) {
        header.removeBitmaps();
      }
      directory = BitmapDirectory.empty();
    } else {
      ByteBuffer raw = BitmapDirectory.write(entries);
      long bytes = raw.remaining();
      if (bytes > BitmapDirectory.MAX_BYTES) {
        throw new UnsupportedImageException(
            file.name() + ": bitmap directory of " + bytes + " bytes is too large");
      }
      long offset = data.take(geometry.clusters(bytes), written);
      file.write(offset, raw);
      file.sync();
      byte[] extension = new byte[BitmapDirectory.EXTENSION_BYTES];
      ByteBuffer.wrap(extension).putInt(0, entries.size()).putLong(8, bytes).putLong(16, offset);
      written.clear(); // from here on the header may name them
      header.writeBitmaps(extension);
      directory = BitmapDirectory.read(file, header.now());
    }
    giveBack(free);
  }

  private void addClusters(List<Long> into, long offset, long bytes) {
    if (offset != 0) {
      for (long c = 0; c < geometry.clusters(bytes); c++) {
        into.add((offset >>> geometry.clusterBits()) + c);
      }
    }
  }

  private void giveBack(List<Long> clusters) {
    int leaked = 0;
    String why = "";
    for (long cluster : clusters) {
      try {
        allocator.release(cluster, 1);
      } catch (BlockException e) {
        // Safe because a count that stays is a leak.
        leaked++;
        why = String.valueOf(e.getMessage());
      }
    }
    if (leaked > 0) {
      LOG.log(
          Level.WARNING,
          file.name() + ": " + leaked + " clusters of bitmaps could not be given back: " + why);
    }
  }
}
