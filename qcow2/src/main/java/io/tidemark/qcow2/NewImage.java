// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.Header.At;
import io.tidemark.qcow2.Header.Extension;
import java.nio.ByteBuffer;
import java.util.Locale;
import java.util.Map;

/// What a new image is made of, by QEMU's option names, checked.
///
/// Layout as `qemu-img create` leaves it: header, refcount table, refcount blocks, L1 table. The
/// header is written last, after a sync: a file without it is no image.
///
/// @param virtualSize bytes, rounded up to whole sectors as QEMU does
record NewImage(
    Geometry geometry,
    long virtualSize,
    boolean lazyRefcounts,
    int compressionType,
    java.util.Optional<BackingReference> backing) {
  static NewImage of(String name, CreateOptions options) throws BlockException {
    int version = 3;
    int clusterBits = 16;
    int order = 4;
    boolean lazy = false;
    int compression = Codec.ZLIB;
    boolean orderGiven = false;
    boolean extended = false;
    for (Map.Entry<String, String> option : options.options().entrySet()) {
      String value = option.getValue().toLowerCase(Locale.ROOT);
      switch (option.getKey()) {
        case "compat" -> version = version(name, value);
        case "cluster_size" -> clusterBits = power(name, "cluster_size", value, 9, 21);
        case "refcount_bits" -> {
          order = power(name, "refcount_bits", value, 0, 6);
          orderGiven = true;
        }
        case "lazy_refcounts" -> lazy = onOff(name, "lazy_refcounts", value);
        case "preallocation" -> only(name, "preallocation", value, "off");
        case "compression_type" -> compression = compressionType(name, value);
        case "extended_l2" -> extended = onOff(name, "extended_l2", value);
        case "data_file_raw" -> only(name, "data_file_raw", value, "off");
        case "encryption" -> only(name, "encryption", value, "off");
        default ->
            throw new UnsupportedImageException(
                name + ": option " + option.getKey() + " is not supported for qcow2");
      }
    }
    if (version == 2 && compression != Codec.ZLIB) {
      throw new UnsupportedImageException(
          name + ": compression_type other than zlib needs compat=1.1 or later");
    }
    if (version == 2 && (lazy || (orderGiven && order != 4))) {
      throw new UnsupportedImageException(
          name
              + ": "
              + (lazy ? "lazy_refcounts=on" : "refcount_bits other than 16")
              + " needs compat=1.1 or later");
    }
    if (extended && (version == 2 || clusterBits < Geometry.MIN_EXTENDED_CLUSTER_BITS)) {
      throw new UnsupportedImageException(
          name
              + ": extended_l2=on needs "
              + (version == 2 ? "compat=1.1 or later" : "clusters of at least 16384 bytes"));
    }
    long size = (options.virtualSize() + 511) & ~511L; // negative when it passes a long
    var geometry = new Geometry(version, clusterBits, order, extended);
    if (size < 0 || geometry.l1EntriesFor(size) > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          name
              + ": virtual size "
              + options.virtualSize()
              + " is too large for clusters of "
              + geometry.clusterSize()
              + " bytes; use larger clusters");
    }
    if (options.backing().isPresent()) {
      checkBacking(name, options.backing().get(), geometry);
    }
    return new NewImage(geometry, size, lazy, compression, options.backing());
  }

  private static void checkBacking(String name, BackingReference backing, Geometry geometry)
      throws BlockException {
    int length = backing.name().getBytes(UTF_8).length;
    int format = backing.format().map(f -> f.getBytes(UTF_8).length).orElse(0);
    int room = geometry.clusterSize() - At.END_V3 - 8 - 8 - ((format + 7) & ~7) - 8;
    if (length == 0 || length > Math.min(Header.MAX_BACKING_NAME, room)) {
      throw new UnsupportedImageException(
          name + ": backing file name of " + length + " bytes, at most 1023 fit the header");
    }
  }

  private static int version(String name, String value) throws BlockException {
    return switch (value) {
      case "0.10", "v2" -> 2;
      case "1.1", "v3" -> 3;
      default ->
          throw new UnsupportedImageException(
              name + ": option compat is " + value + ", wanted 0.10, v2, 1.1 or v3");
    };
  }

  private static int compressionType(String name, String value) throws BlockException {
    return switch (value) {
      case "zlib" -> Codec.ZLIB;
      case "zstd" -> Codec.ZSTD;
      default ->
          throw new UnsupportedImageException(
              name + ": option compression_type is " + value + ", wanted zlib or zstd");
    };
  }

  private static boolean onOff(String name, String option, String value) throws BlockException {
    return switch (value) {
      case "on" -> true;
      case "off" -> false;
      default ->
          throw new UnsupportedImageException(
              name + ": option " + option + " is " + value + ", wanted on or off");
    };
  }

  private static void only(String name, String option, String value, String wanted)
      throws BlockException {
    if (!value.equals(wanted)) {
      throw new UnsupportedImageException(
          name + ": option " + option + "=" + value + " is not supported, only " + wanted);
    }
  }

  /// log2 of a power of two, given as a number of bytes with or without a suffix.
  private static int power(String name, String option, String value, int least, int most)
      throws BlockException {
    long number;
    try {
      int shift =
          switch (value.isEmpty() ? ' ' : value.charAt(value.length() - 1)) {
            case 'k' -> 10;
            case 'm' -> 20;
            default -> 0;
          };
      String digits = shift == 0 ? value : value.substring(0, value.length() - 1);
      number = Math.multiplyExact(Long.parseLong(digits), 1L << shift);
    } catch (NumberFormatException | ArithmeticException _) {
      number = -1;
    }
    if (number < 1L << least || number > 1L << most || Long.bitCount(number) != 1) {
      throw new UnsupportedImageException(
          name
              + ": option "
              + option
              + " is "
              + value
              + ", wanted a power of two from "
              + (1L << least)
              + " to "
              + (1L << most));
    }
    return Long.numberOfTrailingZeros(number);
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
      raw.putLong(At.COMPATIBLE, lazyRefcounts ? Feature.LAZY_REFCOUNTS.mask() : 0);
      raw.putLong(
          At.INCOMPATIBLE,
          (compressionType == Codec.ZLIB ? 0 : Feature.COMPRESSION_TYPE.mask())
              | (geometry.extendedL2() ? Feature.EXTENDED_L2.mask() : 0));
      raw.put(At.COMPRESSION_TYPE, (byte) compressionType);
      raw.putInt(At.REFCOUNT_ORDER, geometry.refcountOrder());
      raw.putInt(At.HEADER_LENGTH, at);
    }
    byte[] name = backing.map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    byte[] format = backing.flatMap(BackingReference::format).orElse("").getBytes(UTF_8);
    if (format.length > 0) {
      at = extension(raw, at, Extension.BACKING_FORMAT, format);
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

  private static int extension(ByteBuffer raw, int at, int type, byte[] data) {
    raw.putInt(at, type);
    raw.putInt(at + 4, data.length);
    raw.put(at + 8, data);
    return at + 8 + ((data.length + 7) & ~7);
  }
}
