// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.List;

/// Contents of persistent bitmaps: their tables and data clusters. Nothing here syncs, and nothing
/// that is in use is written to.
///
/// Spec: qcow2.rst, "Bitmap table", "Bitmap data".
final class BitmapData {
  private final HostFile file;
  private final HeaderFields header;
  private final Geometry geometry;
  private final Allocator allocator;

  BitmapData(HostFile file, HeaderFields header, Allocator allocator) {
    this.file = file;
    this.header = header;
    this.geometry = header.now().geometry();
    this.allocator = allocator;
  }

  private static long bytes(long size, int granularityBits) {
    long bits = size == 0 ? 0 : ((size - 1) >>> granularityBits) + 1;
    return ((bits + 63) >>> 6) * 8;
  }

  /// Reads a bitmap of the disk as large as it is now.
  DirtyBitmap load(BitmapDirectory.Entry entry) throws BlockException {
    long size = header.now().virtualSize();
    long bytes = bytes(size, entry.granularityBits());
    if (bytes > BitmapDirectory.MAX_BITMAP_BYTES) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap "
              + entry.name()
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
              + entry.name()
              + ": table of "
              + entry.tableEntries()
              + " entries, wanted "
              + geometry.clusters(bytes));
    }
    var bitmap = new DirtyBitmap(entry.name(), size, 1L << entry.granularityBits());
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

  /// Refuses what the format, or QEMU, does not take.
  void checkStorable(String name, long size, long granularity) throws BlockException {
    int length = name.getBytes(UTF_8).length;
    if (length < 1 || length > BitmapDirectory.MAX_NAME) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap name of "
              + length
              + " bytes, wanted 1 to "
              + BitmapDirectory.MAX_NAME);
    }
    if (Long.bitCount(granularity) != 1
        || granularity < DirtyBitmap.MIN_GRANULARITY
        || granularity > DirtyBitmap.MAX_GRANULARITY) {
      throw new UnsupportedImageException(
          file.name()
              + ": bitmap "
              + name
              + ": granularity "
              + granularity
              + ", wanted a power of two from "
              + DirtyBitmap.MIN_GRANULARITY
              + " to "
              + DirtyBitmap.MAX_GRANULARITY);
    }
    if (size != header.now().virtualSize()) {
      throw new IllegalArgumentException(
          file.name()
              + ": bitmap "
              + name
              + " is of "
              + size
              + " bytes, the disk of "
              + header.now().virtualSize());
    }
    if (bytes(size, Long.numberOfTrailingZeros(granularity)) > BitmapDirectory.MAX_BITMAP_BYTES) {
      throw new UnsupportedImageException(
          file.name() + ": bitmap " + name + " takes more than 512 MiB; use a larger granularity");
    }
  }

  /// Writes data and table to fresh clusters, which are added to `written`.
  BitmapDirectory.Entry write(DirtyBitmap bitmap, List<Long> written) throws BlockException {
    int wordsEach = geometry.clusterSize() / 8;
    int clusters = (int) geometry.clusters(bitmap.wordCount() * 8L);
    ByteBuffer table = Header.bigEndian(clusters * 8);
    for (int i = 0; i < clusters; i++) {
      int first = i * wordsEach;
      int count = Math.min(wordsEach, bitmap.wordCount() - first);
      if (!allZero(bitmap, first, count)) {
        ByteBuffer data = Header.bigEndian(geometry.clusterSize()).order(LITTLE_ENDIAN);
        for (int w = 0; w < count; w++) {
          data.putLong(w * 8, bitmap.word(first + w));
        }
        long offset = take(1, written);
        file.write(offset, data);
        table.putLong(i * 8, offset);
      }
    }
    return entry(
        bitmap.name(),
        bitmap.granularity(),
        bitmap.enabled() ? BitmapDirectory.AUTO : 0,
        table,
        written);
  }

  private static boolean allZero(DirtyBitmap bitmap, int first, int count) {
    for (int w = first; w < first + count; w++) {
      if (bitmap.word(w) != 0) {
        return false;
      }
    }
    return true;
  }

  /// Writes the table of a bitmap of the whole disk in which nothing is set.
  BitmapDirectory.Entry writeEmpty(String name, long granularity, int flags, List<Long> written)
      throws BlockException {
    long bytes = bytes(header.now().virtualSize(), Long.numberOfTrailingZeros(granularity));
    ByteBuffer table = Header.bigEndian(Math.toIntExact(8 * geometry.clusters(bytes)));
    return entry(name, granularity, flags, table, written);
  }

  private BitmapDirectory.Entry entry(
      String name, long granularity, int flags, ByteBuffer table, List<Long> written)
      throws BlockException {
    int entries = table.limit() / 8;
    long offset = 0;
    if (entries > 0) {
      offset = take(geometry.clusters(table.limit()), written);
      file.write(offset, table);
    }
    return new BitmapDirectory.Entry(
        0,
        offset,
        entries,
        flags,
        Long.numberOfTrailingZeros(granularity),
        ByteBuffer.allocate(0),
        name);
  }

  /// Takes clusters in a row; returns their host offset.
  long take(long clusters, List<Long> written) throws BlockException {
    long offset = allocator.takeTable(clusters);
    long first = offset >>> geometry.clusterBits();
    for (long c = 0; c < clusters; c++) {
      written.add(first + c);
    }
    return offset;
  }
}
