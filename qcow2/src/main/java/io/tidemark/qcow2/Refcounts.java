// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;

/// How often each host cluster is referred to: the refcount table and its blocks.
///
/// Changes are written through to the file at once and not synced: whoever writes a reference makes
/// them durable first, and whoever takes a reference away does so before the count goes down. So at
/// every instant, and after a power cut, a count is at least the number of durable references; what
/// is too high is a leak.
///
/// Crash order of a new refcount block: the block is written into the first cluster of the range it
/// counts, with itself counted; sync; the table entry is written. A crash before the entry leaves
/// an unused cluster. A larger refcount table: blocks and table written past everything that is
/// counted; sync; the header points to the new table; sync; the old table is given back. Clusters
/// in a row that no block counts yet come with their blocks before them: all is written; sync; the
/// entries are written.
///
/// Not safe for threads: [Allocator] holds its lock around every call.
///
/// Spec: qcow2.rst, "Host cluster management".
final class Refcounts {
  /// Bytes of refcount blocks kept in memory, at least 8 blocks.
  private static final int CACHE_BYTES = 4 << 20;

  private final HostFile file;
  private final Geometry geometry;
  private final int blockBits;
  private final MetadataClusters metadata;
  private long tableOffset;
  private long[] table;
  private final LinkedHashMap<Integer, ByteBuffer> blocks;

  /// @param metadata giving one of these out would destroy the image, so a count of 0 for one of
  ///   them stops the allocation instead
  Refcounts(HostFile file, Header header, MetadataClusters metadata) throws BlockException {
    this.file = file;
    this.metadata = metadata;
    this.geometry = header.geometry();
    this.blockBits = geometry.refcountBlockBits();
    this.tableOffset = header.refcountTableOffset();
    this.table = readTable(file, header);
    int most = Math.max(8, CACHE_BYTES >>> geometry.clusterBits());
    this.blocks =
        new LinkedHashMap<>(16, 0.75f, true) {
          @Override
          protected boolean removeEldestEntry(Map.Entry<Integer, ByteBuffer> eldest) {
            return size() > most;
          }
        };
  }

  static long[] readTable(HostFile file, Header header) throws BlockException {
    int entries = header.refcountTableClusters() << (header.geometry().clusterBits() - 3);
    long[] table = new long[entries];
    if (entries == 0) { // the image can only be judged
      return table;
    }
    ByteBuffer raw = file.readAt(header.refcountTableOffset(), entries * 8);
    raw.asLongBuffer().get(table);
    return table;
  }

  long tableOffset() {
    return tableOffset;
  }

  int tableClusters() {
    return table.length >>> (geometry.clusterBits() - 3);
  }

  /// A copy of the table: host offsets of the blocks, 0 for none.
  long[] table() {
    return table.clone();
  }

  /// A copy of a block as the file holds it; zeroes where there is none.
  ByteBuffer blockCopy(int index) throws BlockException {
    if (index >= table.length || table[index] == 0) {
      return Header.bigEndian(geometry.clusterSize());
    }
    return file.readAt(checkedBlock(file, geometry, table[index], index), geometry.clusterSize());
  }

  /// Holds every entry of the table against the file.
  void requireSoundTable() throws BlockException {
    for (int i = 0; i < table.length; i++) {
      if (table[i] != 0) {
        checkedBlock(file, geometry, table[i], i);
      }
    }
  }

  /// First cluster that no block of the table counts.
  long coveredClusters() {
    return (long) table.length << blockBits;
  }

  long get(long cluster) throws BlockException {
    long index = cluster >>> blockBits;
    if (index >= table.length || table[(int) index] == 0) {
      return 0;
    }
    return value(block((int) index), within(cluster));
  }

  private int within(long cluster) {
    return (int) (cluster & ((1L << blockBits) - 1));
  }

  private ByteBuffer block(int index) throws BlockException {
    ByteBuffer block = blocks.get(index);
    if (block == null) {
      long offset = checkedBlock(file, geometry, table[index], index);
      block = file.readAt(offset, geometry.clusterSize());
      blocks.put(index, block);
    }
    return block;
  }

  /// The place of a refcount block, held against the file.
  static long checkedBlock(HostFile file, Geometry geometry, long entry, int index)
      throws CorruptImageException {
    if (!geometry.aligned(entry) || entry < geometry.clusterSize() || entry >= file.length()) {
      throw file.corrupt(
          "refcount table entry "
              + index
              + ": block at 0x"
              + Long.toHexString(entry)
              + " is not cluster-aligned inside the file of "
              + file.length()
              + " bytes");
    }
    return entry;
  }

  long value(ByteBuffer block, int index) {
    return value(block, index, geometry.refcountOrder());
  }

  static long value(ByteBuffer block, int index, int order) {
    return switch (order) {
      case 0, 1, 2 -> {
        int bits = 1 << order;
        int shift = (index << order) & 7;
        yield (block.get((index << order) >>> 3) >>> shift) & ((1 << bits) - 1);
      }
      case 3 -> block.get(index) & 0xff;
      case 4 -> block.getShort(index * 2) & 0xffff;
      case 5 -> block.getInt(index * 4) & 0xffff_ffffL;
      default -> block.getLong(index * 8);
    };
  }

  static void set(ByteBuffer block, int index, int order, long value) {
    switch (order) {
      case 0, 1, 2 -> {
        int at = (index << order) >>> 3;
        int shift = (index << order) & 7;
        int mask = ((1 << (1 << order)) - 1) << shift;
        block.put(at, (byte) ((block.get(at) & ~mask) | ((int) value << shift)));
      }
      case 3 -> block.put(index, (byte) value);
      case 4 -> block.putShort(index * 2, (short) value);
      case 5 -> block.putInt(index * 4, (int) value);
      default -> block.putLong(index * 8, value);
    }
  }

  /// The largest count that the width can hold.
  long highest() {
    return highest(geometry.refcountOrder());
  }

  static long highest(int order) {
    return order == 6 ? Long.MAX_VALUE : (1L << (1 << order)) - 1;
  }

  /// Adds `delta`, 1 or less, to the counts of `[first, first + count)`. All are counted by blocks
  /// that exist. On failure some may have been changed.
  void add(long first, long count, long delta) throws BlockException {
    if (delta > 0) {
      checkFree(first, count);
    }
    long done = 0;
    while (done < count) {
      long cluster = first + done;
      int from = within(cluster);
      int step = (int) Math.min(count - done, (1L << blockBits) - from);
      addInBlock((int) (cluster >>> blockBits), cluster, from, step, delta);
      done += step;
    }
  }

  private void addInBlock(int index, long cluster, int from, int count, long delta)
      throws BlockException {
    if (index >= table.length || table[index] == 0) {
      throw new CorruptImageException(
          file.name()
              + ": cluster "
              + cluster
              + " has no refcount block, wanted a count to change");
    }
    ByteBuffer block = block(index);
    int order = geometry.refcountOrder();
    for (int i = from; i < from + count; i++) {
      long value = value(block, i, order);
      if (delta < 0 && Long.compareUnsigned(value, -delta) < 0) {
        throw new CorruptImageException(
            file.name()
                + ": refcount of cluster "
                + (cluster + i - from)
                + " is "
                + Long.toUnsignedString(value)
                + ", wanted at least "
                + -delta
                + " to take references away");
      }
      // A 64-bit count may pass 2^63 and then looks negative here.
      if (delta > 0 && (value < 0 || value >= highest())) {
        throw new UnsupportedImageException(
            file.name()
                + ": refcount of cluster "
                + (cluster + i - from)
                + " is "
                + Long.toUnsignedString(value)
                + ", the most that "
                + (1 << order)
                + " bits hold");
      }
    }
    for (int i = from; i < from + count; i++) {
      set(block, i, order, value(block, i, order) + delta);
    }
    int firstByte = (int) (((long) from << order) >>> 3);
    int endByte = (int) ((((long) (from + count) << order) + 7) >>> 3);
    try {
      file.write(table[index] + firstByte, block.slice(firstByte, endByte - firstByte));
    } catch (BlockException e) {
      blocks.remove(index); // the file has the say
      throw e;
    }
  }

  /// The first run of `wanted` clusters with count 0 at or after `from`. Clusters that no block
  /// counts yet are free.
  long findFree(long from, long wanted) throws BlockException {
    long start = from;
    long cluster = from;
    while (cluster - start < wanted) {
      long index = cluster >>> blockBits;
      long blockEnd = (index + 1) << blockBits;
      if (index >= table.length || table[(int) index] == 0) {
        cluster = blockEnd;
        continue;
      }
      ByteBuffer block = block((int) index);
      while (cluster < blockEnd && cluster - start < wanted) {
        if (value(block, within(cluster)) != 0) {
          start = cluster + 1;
        }
        cluster++;
      }
    }
    return start;
  }

  /// How many clusters from `first` on have count 0 and a block that counts them, at most `most`.
  int freeRun(long first, int most) throws BlockException {
    int run = 0;
    while (run < most && counted(first + run) && get(first + run) == 0) {
      run++;
    }
    return run;
  }

  /// Whether a block exists that counts the cluster.
  boolean counted(long cluster) {
    long index = cluster >>> blockBits;
    return index < table.length && table[(int) index] != 0;
  }

  private void checkFree(long first, long count) throws CorruptImageException {
    long held = metadata.firstIn(first, count);
    if (held >= 0) {
      throw file.corrupt(
          "refcount of cluster "
              + held
              + " at 0x"
              + Long.toHexString(held << geometry.clusterBits())
              + " is 0, but it holds metadata; check the image");
    }
  }

  /// Takes `clusters` in a row past everything that is counted, with the blocks that count them
  /// before them. Returns the first.
  long takeArea(long clusters, HeaderFields header) throws BlockException {
    long blockCount = 1;
    while (((blockCount + clusters - 1) >>> blockBits) + 1 > blockCount) {
      blockCount = ((blockCount + clusters - 1) >>> blockBits) + 1;
    }
    long index = firstUncountedBlock();
    if (index + blockCount > table.length) {
      growTable(index, blockCount, header);
      index = firstUncountedBlock();
    }
    long home = index << blockBits;
    checkReach((home + blockCount + clusters) << geometry.clusterBits());
    checkFree(home, blockCount + clusters);
    ByteBuffer entries = Header.bigEndian(Math.toIntExact(blockCount * 8));
    for (int b = 0; b < blockCount; b++) {
      entries.putLong(b * 8, (home + b) << geometry.clusterBits());
    }
    writeBlocks(home, blockCount, blockCount + clusters);
    file.sync();
    file.write(tableOffset + 8 * index, entries);
    for (int b = 0; b < blockCount; b++) {
      table[(int) index + b] = entries.getLong(b * 8);
    }
    return home + blockCount;
  }

  private long firstUncountedBlock() {
    int index = table.length;
    while (index > 0 && table[index - 1] == 0) {
      index--;
    }
    return index;
  }

  /// Writes `blockCount` blocks from cluster `home` on, which count `taken` clusters from there.
  private void writeBlocks(long home, long blockCount, long taken) throws BlockException {
    for (long b = 0; b < blockCount; b++) {
      ByteBuffer block = Header.bigEndian(geometry.clusterSize());
      long inThis = Math.clamp(taken - (b << blockBits), 0L, 1L << blockBits);
      for (int i = 0; i < inThis; i++) {
        set(block, i, geometry.refcountOrder(), 1);
      }
      file.write((home + b) << geometry.clusterBits(), block);
    }
  }

  /// Makes the block that counts `cluster`. It takes the first cluster of its range for itself.
  void addBlockFor(long cluster, HeaderFields header) throws BlockException {
    long index = cluster >>> blockBits;
    if (index >= table.length) {
      growTable(index, 0, header);
      return;
    }
    long home = index << blockBits;
    long offset = home << geometry.clusterBits();
    checkReach(offset);
    checkFree(home, 1);
    ByteBuffer block = Header.bigEndian(geometry.clusterSize());
    set(block, 0, geometry.refcountOrder(), 1);
    file.write(offset, block.duplicate());
    file.sync();
    writeEntry(index, offset);
    table[(int) index] = offset;
    blocks.put((int) index, block);
  }

  private void writeEntry(long index, long offset) throws BlockException {
    ByteBuffer raw = Header.bigEndian(8).putLong(0, offset);
    file.write(tableOffset + 8 * index, raw);
  }

  private void checkReach(long offset) throws OutOfSpaceException {
    if (offset >= Geometry.MAX_HOST_OFFSET) {
      throw new OutOfSpaceException(
          file.name() + ": the file would pass 2^56 bytes, the format's limit");
    }
  }

  /// Moves the refcount table to where it has room for entry `index` and `more` after it.
  private void growTable(long index, long more, HeaderFields header) throws BlockException {
    int clusterBits = geometry.clusterBits();
    long perCluster = 1L << (clusterBits - 3);
    long home = index << blockBits; // first cluster of the new area: nothing here is counted
    long blockCount = 1;
    long tableClusters;
    while (true) {
      long entries =
          Math.max(index + blockCount + more, table.length + (long) (table.length >>> 1));
      tableClusters = (entries + perCluster - 1) / perCluster;
      long needed = ((blockCount + tableClusters - 1) >>> blockBits) + 1;
      if (needed <= blockCount) {
        break;
      }
      blockCount = needed;
    }
    if (tableClusters << clusterBits > Geometry.MAX_REFCOUNT_TABLE_BYTES) {
      throw new OutOfSpaceException(
          file.name()
              + ": the refcount table would pass "
              + Geometry.MAX_REFCOUNT_TABLE_BYTES
              + " bytes, the limit; use larger clusters");
    }
    long taken = blockCount + tableClusters;
    checkReach((home + taken) << clusterBits);
    checkFree(home, taken);
    long[] wider = java.util.Arrays.copyOf(table, (int) (tableClusters * perCluster));
    for (int b = 0; b < blockCount; b++) {
      wider[(int) index + b] = (home + b) << clusterBits;
    }
    writeBlocks(home, blockCount, taken);
    long newOffset = (home + blockCount) << clusterBits;
    ByteBuffer raw = Header.bigEndian(wider.length * 8);
    raw.asLongBuffer().put(wider);
    file.write(newOffset, raw);
    file.sync();
    header.writeRefcountTable(newOffset, (int) tableClusters);
    file.sync();
    final long oldFirst = tableOffset >>> clusterBits;
    final long oldClusters = tableClusters();
    table = wider;
    tableOffset = newOffset;
    add(oldFirst, oldClusters, -1);
    for (long c = oldFirst; c < oldFirst + oldClusters; c++) {
      metadata.release(c);
    }
  }
}
