// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// Sizes that follow from the header and never change while an image is open.
///
/// Spec: qcow2.rst, "Cluster mapping", "Host cluster management".
///
/// @param extendedL2 whether L2 entries have 16 bytes, the second eight a bitmap of [Subclusters]
/// @param dataFile whether data clusters are in an external data file: their host offsets are then,
///   in memory, [#DATA_FILE_BIAS] too high
record Geometry(
    int version, int clusterBits, int refcountOrder, boolean extendedL2, boolean dataFile) {
  /// What an offset in a data file has added in memory. There offset 0 is a place like any other,
  /// and on disk the copied flag tells it from no place at all: with this added, it needs no care.
  static final long DATA_FILE_BIAS = 1L << 55;

  /// Spec: "Extended L2 Entries": an entry's subclusters.
  private static final int SUBCLUSTER_BITS = 5;

  /// qemu: extended L2 entries want clusters of at least 16 KiB, subclusters of 512 bytes.
  static final int MIN_EXTENDED_CLUSTER_BITS = 14;

  static final int MIN_CLUSTER_BITS = 9;
  static final int MAX_CLUSTER_BITS = 21; // qemu: MAX_CLUSTER_BITS

  /// qemu: QCOW_MAX_L1_SIZE.
  static final int MAX_L1_BYTES = 32 << 20;

  /// qemu: QCOW_MAX_REFTABLE_SIZE.
  static final int MAX_REFCOUNT_TABLE_BYTES = 8 << 20;

  /// First host byte that no L1 or L2 entry can name (bits 9 to 55).
  static final long MAX_HOST_OFFSET = 1L << 56;

  /// A host offset as it is in the file that it belongs to.
  long inFile(long hostOffset) {
    return dataFile ? hostOffset & ~DATA_FILE_BIAS : hostOffset;
  }

  int clusterSize() {
    return 1 << clusterBits;
  }

  /// Entries of an L2 table.
  int l2Entries() {
    return 1 << l2Bits();
  }

  int l2Bits() {
    return clusterBits - (extendedL2 ? 4 : 3);
  }

  /// Bytes of an L2 entry.
  int l2EntryBytes() {
    return extendedL2 ? 16 : 8;
  }

  /// log2 bytes of a unit: what has one state in the mapping, a subcluster or else a cluster.
  int unitBits() {
    return clusterBits - unitsBits();
  }

  /// log2 of the units of a cluster.
  int unitsBits() {
    return extendedL2 ? SUBCLUSTER_BITS : 0;
  }

  int unitSize() {
    return 1 << unitBits();
  }

  /// Units that hold `bytes`, which is not negative.
  long units(long bytes) {
    return (bytes >>> unitBits()) + ((bytes & (unitSize() - 1)) == 0 ? 0 : 1);
  }

  /// Guest bytes that one L2 table maps, as a power of two.
  int l1Shift() {
    return clusterBits + l2Bits();
  }

  /// log2 of the entries of a refcount block.
  int refcountBlockBits() {
    return clusterBits + 3 - refcountOrder;
  }

  boolean aligned(long hostOffset) {
    return (hostOffset & (clusterSize() - 1)) == 0;
  }

  int within(long offset) {
    return (int) (offset & (clusterSize() - 1));
  }

  /// Clusters that hold `bytes`, which is not negative.
  long clusters(long bytes) {
    return (bytes >>> clusterBits) + (within(bytes) == 0 ? 0 : 1);
  }

  /// L1 entries that map `virtualSize` bytes.
  long l1EntriesFor(long virtualSize) {
    return virtualSize == 0 ? 0 : ((virtualSize - 1) >>> l1Shift()) + 1;
  }
}
