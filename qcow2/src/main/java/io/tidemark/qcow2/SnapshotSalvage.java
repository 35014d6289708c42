// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/// The table of internal snapshots as far as its limits allow: what a reader refuses, and what a
/// repair keeps of it. Extra data is kept up to its limit; the first snapshot that passes the
/// limits of the table, and all behind it, are left out.
///
/// qemu: 7.2, `check -r all`.
///
/// Spec: qcow2.rst, "Snapshots".
///
/// @param table what is kept; its bytes are those that it takes on disk now
/// @param cut entries whose extra data is too long
/// @param overTheCount snapshots past the largest number of them
/// @param overTheBytes snapshots past the largest table
record SnapshotSalvage(SnapshotTable table, List<Cut> cut, long overTheCount, long overTheBytes) {
  /// @param index of the entry
  /// @param found bytes of its extra data
  record Cut(int index, long found) {}

  /// @throws CorruptImageException where the table passes the end of the file
  static SnapshotSalvage read(HostFile file, Header header) throws BlockException {
    int count = (int) Math.min(header.snapshotCount(), SnapshotTable.MAX_ENTRIES);
    var entries = new ArrayList<SnapshotTable.Entry>();
    var cut = new ArrayList<Cut>();
    long start = header.snapshotsOffset();
    long at = start;
    long kept = 0;
    while (entries.size() < count) {
      int index = entries.size();
      ByteBuffer fixed = part(file, at, SnapshotTable.At.EXTRA, index);
      long extra = Integer.toUnsignedLong(fixed.getInt(SnapshotTable.At.EXTRA_LENGTH));
      int extraKept = (int) Math.min(extra, SnapshotTable.MAX_EXTRA);
      int texts =
          Short.toUnsignedInt(fixed.getShort(SnapshotTable.At.ID_LENGTH))
              + Short.toUnsignedInt(fixed.getShort(SnapshotTable.At.NAME_LENGTH));
      if (extra > extraKept) {
        cut.add(new Cut(index, extra));
      }
      kept = SnapshotTable.padded(kept) + SnapshotTable.At.EXTRA + extraKept + texts;
      long end = at + SnapshotTable.At.EXTRA + extra + texts;
      if (kept > SnapshotTable.MAX_BYTES || end - start > Integer.MAX_VALUE) {
        break;
      }
      ByteBuffer raw =
          Header.bigEndian((int) SnapshotTable.padded(fixed.limit() + extraKept + texts));
      raw.put(fixed);
      raw.put(part(file, at + SnapshotTable.At.EXTRA, extraKept, index));
      raw.put(part(file, end - texts, texts, index));
      raw.putInt(SnapshotTable.At.EXTRA_LENGTH, extraKept);
      entries.add(SnapshotTable.parse(raw, header));
      at = SnapshotTable.padded(end);
    }
    return new SnapshotSalvage(
        new SnapshotTable(List.copyOf(entries), at - start),
        List.copyOf(cut),
        header.snapshotCount() - count,
        count - entries.size());
  }

  private static ByteBuffer part(HostFile file, long at, int bytes, int index)
      throws BlockException {
    if (at > file.length() - bytes) {
      throw new CorruptImageException(
          file.name()
              + ": internal snapshot "
              + index
              + " at 0x"
              + Long.toHexString(at)
              + " passes the end of the file");
    }
    return file.readAt(at, bytes);
  }

  /// @throws UnsupportedImageException when anything is left out
  void requireWhole(HostFile file) throws UnsupportedImageException {
    if (overTheCount > 0) {
      throw new UnsupportedImageException(
          file.name()
              + ": "
              + (overTheCount + SnapshotTable.MAX_ENTRIES)
              + " internal snapshots, at most "
              + SnapshotTable.MAX_ENTRIES
              + " are handled; check -r all removes the "
              + overTheCount
              + " last");
    }
    if (!cut.isEmpty()) {
      throw new UnsupportedImageException(
          file.name()
              + ": internal snapshot "
              + cut.getFirst().index()
              + ": extra data of "
              + cut.getFirst().found()
              + " bytes, at most "
              + SnapshotTable.MAX_EXTRA
              + " are handled; check -r all cuts it off");
    }
    if (overTheBytes > 0) {
      throw new UnsupportedImageException(
          file.name()
              + ": internal snapshot "
              + table.entries().size()
              + ": passes the largest table of "
              + SnapshotTable.MAX_BYTES
              + " bytes; check -r all removes the "
              + overTheBytes
              + " last");
    }
  }
}
