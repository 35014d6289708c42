// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Changes options of an image that it was made with.
///
/// All is checked that can be before anything changes. Then, each step synced and by itself whole
/// or not done at all after a power cut: a higher version ([VersionChange]); the width of refcounts
/// (all of them anew behind the file's end, then one write in the header's first sector); the data
/// file's name and whether it is raw; lazy refcounts; the size ([Growth]); a lower version
/// ([ZeroExpansion], then [VersionChange]).
///
/// Spec: qemu `docs/tools/qemu-img.rst`, "amend"; what QEMU 7.2 refuses is refused here.
final class Amendment {
  private final Qcow2Image image;
  private final Reopening reopening;
  private final ImageOptions.Amended wanted;

  Amendment(Qcow2Image image, Reopening reopening, Map<String, String> options)
      throws BlockException {
    this.image = image;
    this.reopening = reopening;
    this.wanted = ImageOptions.Amended.of(image.name(), options);
  }

  void run() throws BlockException {
    int version = wanted.version().orElse(geometry().version());
    check(version);
    if (version > geometry().version()) {
      reopening.reorganise(false, this::upgrade);
    }
    int order = wanted.refcountOrder().orElse(geometry().refcountOrder());
    if (order != geometry().refcountOrder()) {
      reopening.reorganise(false, now -> changeWidth(now, order));
    }
    reopening.reorganise(false, this::changeFields);
    long size = wanted.size().orElse(image.virtualSize());
    if (size != image.virtualSize()) {
      image.resize(size, new ResizeOptions(Preallocation.OFF, true));
      image.flush();
    }
    if (version < geometry().version()) {
      expandZeroes();
      reopening.reorganise(false, this::downgrade);
    }
  }

  private Geometry geometry() {
    return image.now().geometry;
  }

  private UnsupportedImageException refuse(String what) {
    return new UnsupportedImageException(image.name() + ": " + what);
  }

  private void check(int version) throws BlockException {
    OpenImage now = image.now();
    Header header = now.header.now();
    boolean lazy = wanted.lazyRefcounts().orElse(false);
    int order = wanted.refcountOrder().orElse(geometry().refcountOrder());
    if (version < 3 && wanted.refcountOrder().isPresent() && order != 4) {
      throw refuse("refcount widths other than 16 bits require compat=1.1 or greater");
    }
    if (version < 3 && order != 4) {
      throw refuse("compat=0.10 requires refcount_bits=16");
    }
    if (version < 3 && geometry().version() < 3 && lazy) {
      throw refuse("lazy refcounts are only supported with compat=1.1 or greater");
    }
    if (wanted.dataFile().isPresent() && !geometry().dataFile()) {
      throw refuse("data_file can only be set for images that use an external data file");
    }
    if (wanted.dataFileRaw().orElse(false) && !Feature.RAW_EXTERNAL_DATA.in(header.autoclear())) {
      throw refuse("data_file_raw cannot be set on existing images");
    }
    if (wanted.size().isPresent()) {
      now.growth.check(wanted.size().get(), new ResizeOptions(Preallocation.OFF, true));
    }
    if (version < geometry().version()) {
      checkDowngrade(now, header);
    }
  }

  private void checkDowngrade(OpenImage now, Header header) throws BlockException {
    if (geometry().dataFile()) {
      throw refuse("an image with an external data file cannot have compat=0.10");
    }
    long features = header.incompatible();
    if (features != 0) {
      throw refuse(
          "cannot downgrade an image with incompatible features "
              + Feature.incompatibleNames(
                  features, header.extension(Header.Extension.FEATURE_NAMES).map(e -> e.data())));
    }
    for (SnapshotTable.Entry entry : now.snapshots.entries()) {
      if (entry.snapshot().vmStateBytes() > 0xffff_ffffL
          || entry.snapshot().virtualSize() != wanted.size().orElse(image.virtualSize())) {
        throw refuse(
            "internal snapshot "
                + entry.snapshot().id()
                + " prevents compat=0.10: its disk has another size, or its state 4 GiB or more");
      }
    }
    if (header.extension(Header.Extension.BITMAPS).isPresent()) {
      throw refuse("its bitmaps prevent compat=0.10; remove them first");
    }
  }

  private List<Freed> upgrade(OpenImage now) throws BlockException {
    Header header = now.header.now();
    var entries = new ArrayList<SnapshotTable.Entry>();
    for (SnapshotTable.Entry entry : now.snapshots.entries()) {
      entries.add(SnapshotTable.forVersion3(entry));
    }
    if (entries.equals(now.snapshots.entries())) {
      new VersionChange(now.file, header).toVersion3(header.snapshotsOffset());
      return List.of();
    }
    ByteBuffer table = SnapshotTable.write(now.file, entries);
    Geometry geometry = now.geometry;
    long offset = now.allocator.takeTable(geometry.clusters(table.limit()));
    now.file.write(offset, table);
    now.file.sync();
    new VersionChange(now.file, header).toVersion3(offset);
    return List.of(
        new Freed(
            header.snapshotsOffset() >>> geometry.clusterBits(),
            geometry.clusters(now.snapshots.bytes())));
  }

  private void expandZeroes() throws BlockException {
    reopening.reorganise(false, now -> new ZeroExpansion(now).run());
  }

  private List<Freed> downgrade(OpenImage now) throws BlockException {
    new VersionChange(now.file, now.header.now()).toVersion2();
    return List.of();
  }

  private List<Freed> changeFields(OpenImage now) throws BlockException {
    HeaderFields header = now.header;
    if (wanted.dataFile().isPresent()) {
      header.writeDataFile(wanted.dataFile().get());
    }
    if (!wanted.dataFileRaw().orElse(true)) {
      header.writeAutoclear(header.now().autoclear() & ~Feature.RAW_EXTERNAL_DATA.mask());
    }
    Optional<Boolean> lazy = wanted.lazyRefcounts();
    if (lazy.isPresent()) {
      long others = header.now().compatible() & ~Feature.LAZY_REFCOUNTS.mask();
      header.writeCompatible(others | (lazy.get() ? Feature.LAZY_REFCOUNTS.mask() : 0));
    }
    now.file.sync();
    return List.of();
  }

  /// The counts as they are, but for those of the old structure, in another width.
  private static List<Freed> changeWidth(OpenImage now, int order) throws BlockException {
    HostFile file = now.file;
    Header header = now.header.now();
    Geometry old = now.geometry;
    var geometry =
        new Geometry(old.version(), old.clusterBits(), order, old.extendedL2(), old.dataFile());
    var counts = new OldCounts(file, header);
    var fresh = new NewRefcounts(file, geometry);
    long highest = Refcounts.highest(order);
    long clusters = old.clusters(file.length());
    for (long c = counts.next(0); c < clusters; c = counts.next(c + 1)) {
      long count = counts.get(c);
      if (count < 0 || count > highest) {
        throw new UnsupportedImageException(
            file.name()
                + ": refcounts of "
                + (1 << order)
                + " bits do not suffice: the cluster at 0x"
                + Long.toHexString(c << old.clusterBits())
                + " has "
                + Long.toUnsignedString(count)
                + " references");
      }
      fresh.need(c);
    }
    fresh.place();
    for (int i = fresh.blocks().nextSetBit(0); i >= 0; i = fresh.blocks().nextSetBit(i + 1)) {
      ByteBuffer block = fresh.block(i, false);
      long first = (long) i << geometry.refcountBlockBits();
      long end = Math.min(first + (1L << geometry.refcountBlockBits()), clusters);
      for (long c = counts.next(first); c < end; c = counts.next(c + 1)) {
        Refcounts.set(block, (int) (c - first), order, counts.get(c));
      }
      fresh.writeBlock(i, block);
    }
    long table = fresh.writeTable();
    file.sync();
    now.header.writeRefcounts(table, fresh.tableClusters(), order);
    file.sync();
    return List.of();
  }

  /// The refcounts of an image without those of the refcount structure itself.
  private static final class OldCounts {
    private final RefcountReader reader;
    private final Set<Long> structure = new HashSet<>();

    OldCounts(HostFile file, Header header) throws BlockException {
      this.reader = new RefcountReader(file, header);
      int bits = header.geometry().clusterBits();
      for (int i = 0; i < header.refcountTableClusters(); i++) {
        structure.add((header.refcountTableOffset() >>> bits) + i);
      }
      for (int i = 0; i < reader.blocks(); i++) {
        if (reader.block(i) != 0) {
          structure.add(reader.block(i) >>> bits);
        }
      }
    }

    long get(long cluster) throws BlockException {
      return reader.get(cluster) - (structure.contains(cluster) ? 1 : 0);
    }

    /// The first cluster from `cluster` on that has a count; past all where there is none.
    long next(long cluster) throws BlockException {
      long last = reader.endOfBlock((long) reader.blocks() * reader.endOfBlock(0) - 1);
      for (long c = cluster; c < last; ) {
        if (reader.empty(c)) {
          c = reader.endOfBlock(c);
        } else if (get(c) != 0) {
          return c;
        } else {
          c++;
        }
      }
      return Long.MAX_VALUE;
    }
  }
}
