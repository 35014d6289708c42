// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import java.nio.ByteBuffer;

/// Goes over L2 tables as the file holds them, whoever they belong to.
///
/// Everything that an entry names is held against the file before it is handed on.
///
/// Spec: qcow2.rst, "Cluster mapping".
final class TableWalk {
  /// Told of an L2 table.
  interface Tables {
    /// @param table its bytes, which may be changed
    void table(int l1Index, long l1Entry, ByteBuffer table) throws BlockException;
  }

  /// Told of host clusters `[first, first + count)` that an entry names.
  interface References {
    void reference(long first, long count) throws BlockException;
  }

  private final HostFile file;
  private final Geometry geometry;
  private final int entryBytes;

  TableWalk(HostFile file, Header header) {
    this.file = file;
    this.geometry = header.geometry();
    this.entryBytes = geometry.l2EntryBytes();
  }

  /// Bytes between two entries of a table.
  int entryBytes() {
    return entryBytes;
  }

  /// Every L2 table that an L1 table names, in its order.
  void tables(long[] l1, Tables into) throws BlockException {
    for (int i = 0; i < l1.length; i++) {
      long host = L2Entry.host(l1[i]);
      if (host != 0) {
        checkInside(host, geometry.clusterSize(), "L1 entry " + i + ": L2 table");
        if (!geometry.aligned(host)) {
          throw corrupt("L1 entry " + i + ": L2 table at", host, "not cluster-aligned");
        }
        into.table(i, l1[i], file.readAt(host, geometry.clusterSize()));
      }
    }
  }

  /// Every host cluster that a table's entries name, as often as they do.
  void references(int l1Index, ByteBuffer table, References into) throws BlockException {
    for (int at = 0; at < table.limit(); at += entryBytes) {
      long entry = table.getLong(at);
      if (L2Entry.kind(entry) == L2Entry.Kind.COMPRESSED) {
        long offset = L2Entry.compressedOffset(entry, geometry);
        int length = L2Entry.compressedLength(entry, geometry);
        checkInside(offset, length, "L2 table " + l1Index + ": compressed cluster");
        long first = offset >>> geometry.clusterBits();
        into.reference(first, ((offset + length - 1) >>> geometry.clusterBits()) - first + 1);
      } else if (L2Entry.placed(entry)) {
        long host = L2Entry.host(entry);
        if (!geometry.aligned(host)) {
          throw corrupt("L2 table " + l1Index + ": cluster at", host, "not cluster-aligned");
        }
        checkInside(host, geometry.clusterSize(), "L2 table " + l1Index + ": cluster");
        into.reference(host >>> geometry.clusterBits(), 1);
      }
    }
  }

  /// The last cluster of a file may be cut short.
  private void checkInside(long offset, long bytes, String what) throws CorruptImageException {
    long end = geometry.clusters(file.length()) << geometry.clusterBits();
    if (offset < geometry.clusterSize() || offset > end - bytes) {
      throw corrupt(what + " at", offset, "outside the file of " + file.length() + " bytes");
    }
  }

  private CorruptImageException corrupt(String what, long offset, String how) {
    return new CorruptImageException(
        file.name()
            + ": "
            + what
            + " 0x"
            + Long.toHexString(offset)
            + " is "
            + how
            + "; check the image");
  }
}
