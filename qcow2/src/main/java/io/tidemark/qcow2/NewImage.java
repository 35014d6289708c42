// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.spi.NamedFiles;
import io.tidemark.qcow2.Header.At;
import io.tidemark.qcow2.Header.Extension;
import java.nio.ByteBuffer;
import java.util.Optional;

/// The bytes of a new image: what its options make of it.
///
/// Layout as `qemu-img create` leaves it: header, refcount table, refcount blocks, L1 table. The
/// header is written last, after a sync: a file without it is no image. Preallocation follows, in
/// the image opened as any other.
///
/// @param virtualSize bytes, rounded up to whole sectors as QEMU does
record NewImage(
    Geometry geometry, long virtualSize, ImageOptions options, Optional<BackingReference> backing) {
  static NewImage of(String name, CreateOptions asked) throws BlockException {
    ImageOptions options = ImageOptions.of(name, asked);
    long size = (asked.virtualSize() + 511) & ~511L; // negative when it passes a long
    var geometry =
        new Geometry(
            options.version(),
            options.clusterBits(),
            options.refcountOrder(),
            options.extendedL2(),
            options.dataFile().isPresent());
    if (size < 0 || geometry.l1EntriesFor(size) > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          name
              + ": virtual size "
              + asked.virtualSize()
              + " is too large for clusters of "
              + geometry.clusterSize()
              + " bytes; use larger clusters");
    }
    if (options.dataFile().isPresent()
        && options.dataFile().get().getBytes(UTF_8).length > Header.MAX_BACKING_NAME) {
      throw new UnsupportedImageException(
          name + ": name of the data file has more than " + Header.MAX_BACKING_NAME + " bytes");
    }
    var made = new NewImage(geometry, size, options, asked.backing());
    if (asked.backing().isPresent()) {
      checkBacking(name, asked.backing().get(), geometry, options);
    } else if (made.extensionBytes() > geometry.clusterSize() - At.END_V3 - 16) {
      throw new UnsupportedImageException(
          name + ": name of the data file does not fit the header in its cluster");
    }
    return made;
  }

  /// Makes the image in `file`, which is empty, and its data file by `others`, as
  /// [Qcow2Image#create] says.
  void create(BlockNode file, NamedFiles others) throws BlockException {
    Optional<BlockNode> data = Optional.empty();
    if (options.dataFile().isPresent()) {
      data = Optional.of(others.create(options.dataFile().get()));
    }
    try {
      if (data.isPresent()) {
        HostFile.ofData(data.get()).resize(virtualSize);
      }
      write(file);
      if (options.preallocation() != Preallocation.OFF) {
        preallocate(file, data, options.preallocation());
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
    OpenImage image =
        Qcow2Image.open(file, data, OpenOptions.readWrite(), Durability.FLUSHED, Optional.empty())
            .now();
    image.prepare();
    image.growth.preallocate(0, image.header.now().virtualSize(), preallocation);
    image.finish();
  }

  private int extensionBytes() {
    return options.dataFile().map(f -> 8 + ((f.getBytes(UTF_8).length + 7) & ~7)).orElse(0);
  }

  private static void checkBacking(
      String name, BackingReference backing, Geometry geometry, ImageOptions options)
      throws BlockException {
    int length = backing.name().getBytes(UTF_8).length;
    int format = backing.format().map(f -> f.getBytes(UTF_8).length).orElse(0);
    int room = geometry.clusterSize() - At.END_V3 - 8 - 8 - ((format + 7) & ~7) - 8;
    room -= options.dataFile().map(f -> 8 + ((f.getBytes(UTF_8).length + 7) & ~7)).orElse(0);
    if (length == 0 || length > Math.min(Header.MAX_BACKING_NAME, room)) {
      throw new UnsupportedImageException(
          name + ": backing file name of " + length + " bytes, at most 1023 fit the header");
    }
  }

  /// Writes the image and syncs it.
  void write(BlockNode node) throws BlockException {
    var file = new HostFile(node);
    int clusterSize = geometry.clusterSize();
    long l1Entries = geometry.l1EntriesFor(virtualSize);
    long l1Clusters = geometry.clusters(l1Entries * 8);
    long perBlock = 1L << geometry.refcountBlockBits();
    // The refcount table and its blocks count themselves: grow until they do.
    long blocks = 1;
    long tableClusters = 1;
    while (true) {
      long all = 1 + tableClusters + blocks + l1Clusters;
      long needed = (all + perBlock - 1) / perBlock;
      long neededTable = geometry.clusters(needed * 8);
      if (needed <= blocks && neededTable <= tableClusters) {
        break;
      }
      blocks = Math.max(blocks, needed);
      tableClusters = Math.max(tableClusters, neededTable);
    }
    long all = 1 + tableClusters + blocks + l1Clusters;
    ByteBuffer table = Header.bigEndian(Math.toIntExact(tableClusters * clusterSize));
    for (int b = 0; b < blocks; b++) {
      long offset = (1 + tableClusters + b) * clusterSize;
      table.putLong(b * 8, offset);
      ByteBuffer block = Header.bigEndian(clusterSize);
      long inThis = Math.clamp(all - b * perBlock, 0L, perBlock);
      for (int i = 0; i < inThis; i++) {
        Refcounts.set(block, i, geometry.refcountOrder(), 1);
      }
      file.write(offset, block);
    }
    file.write(clusterSize, table);
    long l1Offset = l1Entries == 0 ? 0 : (1 + tableClusters + blocks) * clusterSize;
    file.writeZeroes(l1Offset, l1Entries * 8); // the file's last cluster is cut short, as QEMU's
    file.sync();
    file.write(0, header(l1Offset, (int) l1Entries, (int) tableClusters));
    file.sync();
  }

  private ByteBuffer header(long l1Offset, int l1Entries, int tableClusters) {
    ByteBuffer raw = Header.bigEndian(geometry.clusterSize());
    raw.putInt(At.MAGIC, Header.MAGIC);
    raw.putInt(At.VERSION, geometry.version());
    raw.putInt(At.CLUSTER_BITS, geometry.clusterBits());
    raw.putLong(At.VIRTUAL_SIZE, virtualSize);
    raw.putInt(At.L1_ENTRIES, l1Entries);
    raw.putLong(At.L1_OFFSET, l1Offset);
    raw.putLong(At.REFCOUNT_OFFSET, geometry.clusterSize());
    raw.putInt(At.REFCOUNT_CLUSTERS, tableClusters);
    int at = At.END_V2;
    if (geometry.version() >= 3) {
      at = At.END_V3 + 8; // with the compression type, 0
      raw.putLong(At.INCOMPATIBLE, incompatible());
      raw.putLong(At.COMPATIBLE, options.lazyRefcounts() ? Feature.LAZY_REFCOUNTS.mask() : 0);
      raw.putLong(At.AUTOCLEAR, options.dataFileRaw() ? Feature.RAW_EXTERNAL_DATA.mask() : 0);
      raw.put(At.COMPRESSION_TYPE, (byte) options.compressionType());
      raw.putInt(At.REFCOUNT_ORDER, geometry.refcountOrder());
      raw.putInt(At.HEADER_LENGTH, at);
    }
    byte[] name = backing.map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    byte[] format = backing.flatMap(BackingReference::format).orElse("").getBytes(UTF_8);
    if (format.length > 0) {
      at = extension(raw, at, Extension.BACKING_FORMAT, format);
    }
    if (options.dataFile().isPresent()) {
      at = extension(raw, at, Extension.DATA_FILE, options.dataFile().get().getBytes(UTF_8));
    }
    byte[] names = Feature.nameTable();
    // Left out where it does not fit, as QEMU does; room stays for a bitmaps extension.
    if (geometry.version() >= 3
        && at + 8 + names.length + 8 + 32 + name.length <= geometry.clusterSize()) {
      at = extension(raw, at, Extension.FEATURE_NAMES, names);
    }
    at += 8; // the end marker
    if (name.length > 0) {
      raw.putLong(At.BACKING_OFFSET, at);
      raw.putInt(At.BACKING_LENGTH, name.length);
      raw.put(at, name);
    }
    return raw;
  }

  private long incompatible() {
    return (options.dataFile().isPresent() ? Feature.EXTERNAL_DATA_FILE.mask() : 0)
        | (options.compressionType() == Codec.ZLIB ? 0 : Feature.COMPRESSION_TYPE.mask())
        | (options.extendedL2() ? Feature.EXTENDED_L2.mask() : 0);
  }

  private static int extension(ByteBuffer raw, int at, int type, byte[] data) {
    raw.putInt(at, type);
    raw.putInt(at + 4, data.length);
    raw.put(at + 8, data);
    return at + 8 + ((data.length + 7) & ~7);
  }
}
