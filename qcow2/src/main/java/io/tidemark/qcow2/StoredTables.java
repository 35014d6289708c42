// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;

/// L2 tables as the file has them, held against the specification before anyone goes by them.
///
/// **Invariant.** A table that comes from here lies on a cluster of the file. In an image that is
/// written to, besides, none of its entries leads to the image's own metadata, out of the file, or,
/// with a data file, elsewhere than to its guest offset; and no extended entry contradicts its
/// bitmap. So a guest's write cannot hit metadata whatever the file says. In an image that is only
/// read, entries are checked when they are used: what is sound of a damaged image can be read.
///
/// Any thread may call, without the lock of [MappingTables]; [#read] waits for the file.
///
/// Spec: qcow2.rst, "Cluster mapping".
final class StoredTables {
  private final HostFile file;
  private final Geometry geometry;
  private final MetadataClusters metadata;
  private final boolean readOnly;

  StoredTables(HostFile file, Geometry geometry, MetadataClusters metadata, boolean readOnly) {
    this.file = file;
    this.geometry = geometry;
    this.metadata = metadata;
    this.readOnly = readOnly;
  }

  /// Reads the table that an L1 entry names.
  ///
  /// @throws CorruptImageException when it or what it says cannot be gone by
  L2Table read(int l1Index, long l1Entry) throws BlockException {
    long host = checkedTable(l1Entry, l1Index);
    L2Table table = table(l1Index, host, file.readAt(host, geometry.clusterSize()));
    if (!readOnly) {
      checkEntries(table);
    }
    return table;
  }

  /// A table with this content, for the place that it has in the file or was given.
  L2Table table(int l1Index, long hostOffset, ByteBuffer content) {
    long bias = geometry.dataFile() ? Geometry.DATA_FILE_BIAS : 0;
    return new L2Table(l1Index, hostOffset, content, geometry.extendedL2(), bias);
  }

  private long checkedTable(long entry, int l1Index) throws CorruptImageException {
    long host = L2Entry.host(entry);
    if (!geometry.aligned(host) || host < geometry.clusterSize() || host >= file.length()) {
      throw file.corrupt(
          "L1 entry "
              + l1Index
              + ": L2 table at 0x"
              + Long.toHexString(host)
              + " is not cluster-aligned inside the file of "
              + file.length()
              + " bytes");
    }
    return host;
  }

  /// Before an image is written to, no entry of a table in use may lead to its own metadata or out
  /// of the file.
  private void checkEntries(L2Table table) throws BlockException {
    long end = geometry.clusters(file.length());
    for (int i = 0; i < table.length(); i++) {
      L2Slot slot = table.slot(i);
      long entry = slot.entry();
      if (geometry.extendedL2() && Subclusters.corrupt(entry, slot.bitmap())) {
        throw contradiction(((long) table.l1Index() << geometry.l2Bits()) + i, slot);
      }
      if (geometry.dataFile()) {
        checkDataFilePlace(table, i, entry);
      } else if (L2Entry.placed(entry)) {
        long host = L2Entry.host(entry);
        checkPlace(table, i, host, 1, geometry.aligned(host), end);
      } else if (L2Entry.kind(entry) == L2Entry.Kind.COMPRESSED) {
        long host = L2Entry.compressedOffset(entry, geometry);
        long lastByte = host + L2Entry.compressedLength(entry, geometry) - 1;
        long count = (lastByte >>> geometry.clusterBits()) - (host >>> geometry.clusterBits()) + 1;
        checkPlace(table, i, host, count, true, end);
      }
    }
  }

  /// qemu: every data cluster of a data file is at its guest offset, whether or not the file is
  /// raw; 7.2. New ones go there, so none may be elsewhere.
  private void checkDataFilePlace(L2Table table, int index, long entry) throws BlockException {
    long guest = (((long) table.l1Index() << geometry.l2Bits()) + index) << geometry.clusterBits();
    if ((entry & L2Entry.COMPRESSED) != 0
        || (L2Entry.placed(entry) && L2Entry.host(entry) != Geometry.DATA_FILE_BIAS + guest)) {
      throw new UnsupportedImageException(
          file.name()
              + ": L2 entry of guest offset 0x"
              + Long.toHexString(guest)
              + " does not lead to the same offset of the data file; such an image can be read only");
    }
  }

  private void checkPlace(
      L2Table table, int index, long host, long count, boolean aligned, long end)
      throws CorruptImageException {
    long cluster = host >>> geometry.clusterBits();
    if (!aligned || cluster > end - count || metadata.firstIn(cluster, count) >= 0) {
      throw file.corrupt(
          "L2 entry "
              + index
              + " at 0x"
              + Long.toHexString(table.hostOffset() + (long) geometry.l2EntryBytes() * index)
              + ": host offset 0x"
              + Long.toHexString(host)
              + " is not a data cluster of the file; check the image");
    }
  }

  /// That an extended entry and its bitmap cannot both be true.
  CorruptImageException contradiction(long cluster, L2Slot slot) {
    return file.corrupt(
        "guest cluster "
            + cluster
            + ": L2 entry 0x"
            + Long.toHexString(slot.entry())
            + " and subcluster bitmap 0x"
            + Long.toHexString(slot.bitmap())
            + " contradict one another");
  }
}
