// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;

/// The directory of persistent bitmaps, checked.
///
/// Spec: qcow2.rst, "Bitmaps extension", "Bitmap directory".
///
/// @param offset host bytes; 0 when there is no directory
/// @param bytes of all entries
record BitmapDirectory(long offset, long bytes, List<Entry> entries) {
  /// qemu: QCOW2_MAX_BITMAPS.
  static final int MAX_BITMAPS = 65535;

  /// qemu: QCOW2_MAX_BITMAP_DIRECTORY_SIZE.
  static final long MAX_BYTES = 1024L * MAX_BITMAPS;

  /// qemu: BME_MAX_PHYS_SIZE, bytes of one bitmap.
  static final long MAX_BITMAP_BYTES = 512L << 20;

  /// qemu: BME_MAX_NAME_SIZE.
  static final int MAX_NAME = 1023;

  static final int MIN_GRANULARITY_BITS = 9;
  static final int MAX_GRANULARITY_BITS = 31;

  static final int EXTENSION_BYTES = 24;
  static final int IN_USE = 1;
  static final int AUTO = 2;
  static final int EXTRA_COMPATIBLE = 4;

  private static final int DIRTY_TRACKING = 1;

  /// @param at byte in the directory where the entry starts
  /// @param tableEntries clusters of data that the table names
  /// @param extra data of other software, kept as it is
  record Entry(
      int at,
      long tableOffset,
      int tableEntries,
      int flags,
      int granularityBits,
      ByteBuffer extra,
      String name) {
    boolean inUse() {
      return (flags & IN_USE) != 0;
    }

    boolean enabled() {
      return (flags & AUTO) != 0;
    }

    /// Whether contents may be used and rewritten by software that does not know the extra data.
    boolean usable() {
      return !extra.hasRemaining() || (flags & EXTRA_COMPATIBLE) != 0;
    }

    int length() {
      return (At.EXTRA + extra.remaining() + name.getBytes(UTF_8).length + 7) & ~7;
    }

    Entry withExtra(ByteBuffer newExtra, int newFlags) {
      return new Entry(at, tableOffset, tableEntries, newFlags, granularityBits, newExtra, name);
    }

    Entry withFlags(int newFlags) {
      return new Entry(at, tableOffset, tableEntries, newFlags, granularityBits, extra, name);
    }
  }

  static final class At {
    static final int TABLE_OFFSET = 0; //     u64, host bytes, cluster-aligned
    static final int TABLE_ENTRIES = 8; //    u32
    static final int FLAGS = 12; //           u32
    static final int TYPE = 16; //            u8
    static final int GRANULARITY_BITS = 17; // u8, log2 bytes
    static final int NAME_LENGTH = 18; //     u16
    static final int EXTRA_LENGTH = 20; //    u32
    static final int EXTRA = 24;

    private At() {}
  }

  static BitmapDirectory empty() {
    return new BitmapDirectory(0, 0, List.of());
  }

  /// Reads the directory that the header names; an empty one when there is none or the autoclear
  /// bit says that it is not to be trusted.
  static BitmapDirectory read(HostFile file, Header header) throws BlockException {
    var extension = header.extension(Header.Extension.BITMAPS);
    if (extension.isEmpty() || !Feature.BITMAPS.in(header.autoclear())) {
      return empty();
    }
    ByteBuffer data = extension.get().data();
    if (data.limit() != EXTENSION_BYTES) {
      throw new CorruptImageException(
          file.name() + ": bitmaps extension of " + data.limit() + " bytes, wanted 24");
    }
    int count = data.getInt(0);
    long bytes = data.getLong(8);
    long offset = data.getLong(16);
    if (count < 1 || count > MAX_BITMAPS || bytes < 1 || bytes > MAX_BYTES) {
      throw new CorruptImageException(
          file.name()
              + ": bitmaps extension: "
              + Integer.toUnsignedString(count)
              + " bitmaps in "
              + Long.toUnsignedString(bytes)
              + " bytes, wanted 1 to "
              + MAX_BITMAPS
              + " in at most "
              + MAX_BYTES);
    }
    long end = header.geometry().clusters(file.length()) << header.geometry().clusterBits();
    if (!header.geometry().aligned(offset)
        || offset < header.geometry().clusterSize()
        || offset > end - bytes) {
      throw new CorruptImageException(
          file.name()
              + ": bitmap directory at 0x"
              + Long.toHexString(offset)
              + " of "
              + bytes
              + " bytes is not cluster-aligned inside the file");
    }
    ByteBuffer raw = file.readAt(offset, (int) bytes);
    var entries = new ArrayList<Entry>();
    var names = new HashSet<String>();
    int at = 0;
    for (int i = 0; i < count; i++) {
      Entry entry = entry(file, header, raw, at, i);
      if (!names.add(entry.name())) {
        throw new CorruptImageException(file.name() + ": two bitmaps are named " + entry.name());
      }
      entries.add(entry);
      at += entry.length();
    }
    if (at != bytes) {
      throw new CorruptImageException(
          file.name() + ": bitmap directory: entries end at byte " + at + ", wanted " + bytes);
    }
    return new BitmapDirectory(offset, bytes, List.copyOf(entries));
  }

  private static Entry entry(HostFile file, Header header, ByteBuffer raw, int at, int index)
      throws BlockException {
    String what = file.name() + ": bitmap directory entry " + index;
    if (raw.limit() - at < At.EXTRA) {
      throw new CorruptImageException(what + " passes the end of the directory");
    }
    long tableOffset = raw.getLong(at + At.TABLE_OFFSET);
    int tableEntries = raw.getInt(at + At.TABLE_ENTRIES);
    int flags = raw.getInt(at + At.FLAGS);
    int granularity = raw.get(at + At.GRANULARITY_BITS) & 0xff;
    int nameLength = raw.getShort(at + At.NAME_LENGTH) & 0xffff;
    int extraLength = raw.getInt(at + At.EXTRA_LENGTH);
    if (extraLength < 0 || (long) extraLength + nameLength > raw.limit() - at - At.EXTRA) {
      throw new CorruptImageException(what + " passes the end of the directory");
    }
    if (raw.get(at + At.TYPE) != DIRTY_TRACKING
        || (flags & ~(IN_USE | AUTO | EXTRA_COMPATIBLE)) != 0
        || granularity < MIN_GRANULARITY_BITS
        || granularity > MAX_GRANULARITY_BITS) {
      throw new UnsupportedImageException(
          what
              + ": type "
              + (raw.get(at + At.TYPE) & 0xff)
              + ", flags 0x"
              + Integer.toHexString(flags)
              + ", granularity 2^"
              + granularity
              + ": not a kind of bitmap that is handled");
    }
    if (nameLength < 1 || nameLength > MAX_NAME) {
      throw new CorruptImageException(
          what + ": name of " + nameLength + " bytes, wanted 1 to " + MAX_NAME);
    }
    Geometry geometry = header.geometry();
    long end = geometry.clusters(file.length()) << geometry.clusterBits();
    if (tableEntries < 0
        || (long) tableEntries << geometry.clusterBits() > MAX_BITMAP_BYTES
        || (tableEntries > 0
            && (!geometry.aligned(tableOffset)
                || tableOffset < geometry.clusterSize()
                || tableOffset > end - 8L * tableEntries))) {
      throw new CorruptImageException(
          what
              + ": table of "
              + Integer.toUnsignedString(tableEntries)
              + " entries at 0x"
              + Long.toHexString(tableOffset)
              + " does not lie in the file, or is for more than 512 MiB");
    }
    byte[] extra = new byte[extraLength];
    raw.get(at + At.EXTRA, extra);
    byte[] name = new byte[nameLength];
    raw.get(at + At.EXTRA + extraLength, name);
    String text = new String(name, UTF_8);
    if (text.getBytes(UTF_8).length != nameLength) {
      throw new UnsupportedImageException(what + ": name is not UTF-8");
    }
    return new Entry(
        at,
        tableOffset,
        tableEntries,
        flags,
        granularity,
        ByteBuffer.wrap(extra).asReadOnlyBuffer(),
        text);
  }

  /// The directory's bytes for these entries.
  static ByteBuffer write(List<Entry> entries) {
    int bytes = entries.stream().mapToInt(Entry::length).sum();
    ByteBuffer raw = Header.bigEndian(bytes);
    int at = 0;
    for (Entry entry : entries) {
      byte[] name = entry.name().getBytes(UTF_8);
      raw.putLong(at + At.TABLE_OFFSET, entry.tableOffset());
      raw.putInt(at + At.TABLE_ENTRIES, entry.tableEntries());
      raw.putInt(at + At.FLAGS, entry.flags());
      raw.put(at + At.TYPE, (byte) DIRTY_TRACKING);
      raw.put(at + At.GRANULARITY_BITS, (byte) entry.granularityBits());
      raw.putShort(at + At.NAME_LENGTH, (short) name.length);
      raw.putInt(at + At.EXTRA_LENGTH, entry.extra().remaining());
      raw.put(at + At.EXTRA, entry.extra(), 0, entry.extra().remaining());
      raw.put(at + At.EXTRA + entry.extra().remaining(), name);
      at += entry.length();
    }
    return raw;
  }

  /// The table of an entry: host offsets of data clusters, 0 for all zeroes, 1 for all ones.
  ///
  /// Spec: qcow2.rst, "Bitmap table".
  static long[] table(HostFile file, Geometry geometry, Entry entry) throws BlockException {
    ByteBuffer raw = file.readAt(entry.tableOffset(), entry.tableEntries() * 8);
    long[] table = new long[entry.tableEntries()];
    raw.asLongBuffer().get(table);
    for (int i = 0; i < table.length; i++) {
      long offset = table[i] & L2Entry.OFFSET;
      boolean fine =
          offset == 0
              ? (table[i] & ~1L) == 0
              : table[i] == offset && geometry.aligned(offset) && offset < file.length();
      if (!fine) {
        throw new CorruptImageException(
            file.name()
                + ": bitmap "
                + entry.name()
                + ": table entry "
                + i
                + " is 0x"
                + Long.toHexString(table[i])
                + ", not a cluster of the file");
      }
    }
    return table;
  }
}
