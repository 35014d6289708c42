// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.DirtyBitmap;
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
/// - [#store] and [#remove]: data clusters, tables and a new directory are written to fresh
///   clusters; sync; the header points to the new directory ([HeaderFields#writeBitmaps], which
///   syncs); then the clusters of the old ones are given back. A crash before the pointer leaves
///   the old directory, whose bitmaps are in use if there was a write; after it, the new one. What
///   is between is leaked.
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

  private final HostFile file;
  private final HeaderFields header;
  private final Geometry geometry;
  private final Allocator allocator;
  private final boolean readOnly;
  private final Runnable stored;

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
    long size = header.now().virtualSize();
    long bits = size == 0 ? 0 : ((size - 1) >>> entry.granularityBits()) + 1;
    long bytes = ((bits + 63) >>> 6) * 8;
    if (bytes > BitmapDirectory.MAX_BITMAP_BYTES) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap "
              + name
              + ": granularity 2^"
              + entry.granularityBits()
              + " over "
              + size
              + " bytes is not handled");
    }
    if (geometry.clusters(bytes) != entry.tableEntries()) {
      throw new CorruptImageException(
          file.name()
              + ": bitmap "
              + name
              + ": table of "
              + entry.tableEntries()
              + " entries, wanted "
              + geometry.clusters(bytes));
    }
    var bitmap = new DirtyBitmap(name, size, 1L << entry.granularityBits());
    bitmap.setEnabled(entry.enabled());
    long[] table = BitmapDirectory.table(file, geometry, entry);
    int wordsEach = geometry.clusterSize() / 8;
    for (int i = 0; i < table.length; i++) {
      int first = i * wordsEach;
      int count = Math.min(wordsEach, bitmap.wordCount() - first);
      if (table[i] == 1) {
        for (int w = 0; w < count; w++) {
          bitmap.orWord(first + w, -1L);
        }
      } else if (table[i] != 0) {
        ByteBuffer raw = file.readAt(table[i], count * 8).order(LITTLE_ENDIAN);
        for (int w = 0; w < count; w++) {
          bitmap.orWord(first + w, raw.getLong(w * 8));
        }
      }
    }
    return bitmap;
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
        ByteBuffer raw = Header.bigEndian(4).putInt(0, flags);
        file.write(directory.offset() + entry.at() + BitmapDirectory.At.FLAGS, raw);
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
      checkStorable(bitmap);
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
    var written = new ArrayList<Long>(); // clusters to give back when it fails
    try {
      for (DirtyBitmap bitmap : bitmaps) {
        kept.add(writeBitmap(bitmap, written));
      }
      replace(kept, dropped, written);
    } catch (BlockException | RuntimeException e) {
      giveBack(written);
      throw e;
    }
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
    var written = new ArrayList<Long>();
    try {
      replace(kept, List.of(gone), written);
    } catch (BlockException | RuntimeException e) {
      giveBack(written);
      throw e;
    }
    inconsistent.remove(name);
    added.remove(name);
  }

  @Override
  public synchronized void add(DirtyBitmap bitmap) throws BlockException {
    checkWritable();
    checkStorable(bitmap);
    for (BitmapDirectory.Entry entry : directory.entries()) {
      if (entry.name().equals(bitmap.name())) {
        throw new UnsupportedImageException(
            file.name() + ": a bitmap is named " + bitmap.name() + " already");
      }
    }
    var entries = new ArrayList<>(directory.entries());
    var written = new ArrayList<Long>();
    try {
      var empty = new DirtyBitmap(bitmap.name(), bitmap.size(), bitmap.granularity());
      empty.setEnabled(bitmap.enabled());
      BitmapDirectory.Entry entry = writeBitmap(empty, written);
      entries.add(entry.withFlags(entry.flags() | BitmapDirectory.IN_USE));
      replace(entries, List.of(), written);
    } catch (BlockException | RuntimeException e) {
      giveBack(written);
      throw e;
    }
    added.add(bitmap.name());
  }

  private void checkStorable(DirtyBitmap bitmap) throws BlockException {
    int length = bitmap.name().getBytes(UTF_8).length;
    if (length < 1 || length > BitmapDirectory.MAX_NAME) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap name of "
              + length
              + " bytes, wanted 1 to "
              + BitmapDirectory.MAX_NAME);
    }
    if (bitmap.size() != header.now().virtualSize()) {
      throw new IllegalArgumentException(
          file.name()
              + ": bitmap "
              + bitmap.name()
              + " is of "
              + bitmap.size()
              + " bytes, the disk of "
              + header.now().virtualSize());
    }
    if (bitmap.wordCount() * 8L > BitmapDirectory.MAX_BITMAP_BYTES) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap "
              + bitmap.name()
              + " takes more than 512 MiB; use a larger granularity");
    }
  }

  /// Writes data and table to fresh clusters. Spec: "Bitmap table", "Bitmap data".
  private BitmapDirectory.Entry writeBitmap(DirtyBitmap bitmap, List<Long> written)
      throws BlockException {
    int wordsEach = geometry.clusterSize() / 8;
    int clusters = (int) geometry.clusters(bitmap.wordCount() * 8L);
    ByteBuffer table = Header.bigEndian(clusters * 8);
    for (int i = 0; i < clusters; i++) {
      int first = i * wordsEach;
      int count = Math.min(wordsEach, bitmap.wordCount() - first);
      ByteBuffer data = Header.bigEndian(geometry.clusterSize()).order(LITTLE_ENDIAN);
      boolean zero = true;
      for (int w = 0; w < count; w++) {
        long word = bitmap.word(first + w);
        zero &= word == 0;
        data.putLong(w * 8, word);
      }
      if (!zero) {
        long offset = take(1, written);
        file.write(offset, data);
        table.putLong(i * 8, offset);
      }
    }
    long tableOffset = 0;
    if (clusters > 0) {
      long tableClusters = geometry.clusters(8L * clusters);
      tableOffset = take(tableClusters, written);
      file.write(tableOffset, table);
    }
    return new BitmapDirectory.Entry(
        0,
        tableOffset,
        clusters,
        bitmap.enabled() ? BitmapDirectory.AUTO : 0,
        Long.numberOfTrailingZeros(bitmap.granularity()),
        ByteBuffer.allocate(0),
        bitmap.name());
  }

  private long take(long clusters, List<Long> written) throws BlockException {
    long offset = allocator.takeTable(clusters);
    long first = offset >>> geometry.clusterBits();
    for (long c = 0; c < clusters; c++) {
      written.add(first + c);
    }
    return offset;
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
      long offset = take(geometry.clusters(bytes), written);
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
