// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.BitSet;

/// Refcount blocks and a table that are to take the place of an image's: they lie behind the end of
/// its file and of all that is in use, where the header leads nobody yet, and count themselves.
///
/// In order: [#need] for each cluster that is in use; [#place]; [#writeBlock] for each of
/// [#blocks]; [#writeTable]. Nothing here syncs.
///
/// Spec: qcow2.rst, "Host cluster management".
final class NewRefcounts {
  private final HostFile file;
  private final Geometry geometry;
  private final BitSet blocks = new BitSet();
  private long home; // first cluster of the structure
  private long end; //  behind its last cluster
  private int tableClusters;
  private long[] table = {};

  /// @param geometry with the width of the new counts
  NewRefcounts(HostFile file, Geometry geometry) throws BlockException {
    this.file = file;
    this.geometry = geometry;
    this.home = geometry.clusters(file.length());
  }

  /// A cluster has a count. It may lie past the file's end, where a reference goes wrong.
  void need(long cluster) throws BlockException {
    blocks.set(blockIndex(cluster));
    home = Math.max(home, cluster + 1);
  }

  private int blockIndex(long cluster) throws BlockException {
    long index = cluster >>> geometry.refcountBlockBits();
    if (index >= Geometry.MAX_REFCOUNT_TABLE_BYTES / 8) {
      throw new UnsupportedImageException(
          file.name()
              + ": cluster "
              + cluster
              + " needs a refcount table of more than "
              + Geometry.MAX_REFCOUNT_TABLE_BYTES
              + " bytes, the limit");
    }
    return (int) index;
  }

  /// Finds the structure's size. Blocks and table count themselves: more of them may take more of
  /// them.
  void place() throws BlockException {
    while (true) {
      int before = blocks.cardinality();
      tableClusters = (int) geometry.clusters(8L * blocks.length());
      end = home + before + tableClusters;
      for (long c = home; c < end; c += 1L << geometry.refcountBlockBits()) {
        blocks.set(blockIndex(c));
      }
      blocks.set(blockIndex(end - 1));
      if (blocks.cardinality() == before
          && geometry.clusters(8L * blocks.length()) == tableClusters) {
        break;
      }
    }
    table = new long[tableClusters << (geometry.clusterBits() - 3)];
    long cluster = home;
    for (int i = blocks.nextSetBit(0); i >= 0; i = blocks.nextSetBit(i + 1)) {
      table[i] = cluster++ << geometry.clusterBits();
    }
  }

  /// The indexes of its blocks.
  BitSet blocks() {
    return blocks;
  }

  int tableClusters() {
    return tableClusters;
  }

  /// What was written of a block, or an empty one.
  ByteBuffer block(int index, boolean begun) throws BlockException {
    return begun
        ? file.readAt(table[index], geometry.clusterSize())
        : Header.bigEndian(geometry.clusterSize());
  }

  /// Writes a block, with the counts of the structure itself added.
  void writeBlock(int index, ByteBuffer block) throws BlockException {
    long first = (long) index << geometry.refcountBlockBits();
    long behind = first + (1L << geometry.refcountBlockBits());
    for (long c = Math.max(first, home); c < Math.min(behind, end); c++) {
      Refcounts.set(block, (int) (c - first), geometry.refcountOrder(), 1);
    }
    file.write(table[index], block.rewind());
  }

  /// Writes the table; returns its host offset.
  long writeTable() throws BlockException {
    ByteBuffer raw = Header.bigEndian(table.length * 8);
    raw.asLongBuffer().put(table);
    long offset = (end - tableClusters) << geometry.clusterBits();
    file.write(offset, raw);
    return offset;
  }
}
