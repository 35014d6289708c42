// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// Sizes that follow from the header and never change while an image is open.
///
/// Spec: qcow2.rst, "Cluster mapping", "Host cluster management".
record Geometry(int version, int clusterBits, int refcountOrder) {
  static final int MIN_CLUSTER_BITS = 9;
  static final int MAX_CLUSTER_BITS = 21; // qemu: MAX_CLUSTER_BITS

  /// qemu: QCOW_MAX_L1_SIZE.
  static final int MAX_L1_BYTES = 32 << 20;

  /// qemu: QCOW_MAX_REFTABLE_SIZE.
  static final int MAX_REFCOUNT_TABLE_BYTES = 8 << 20;

  /// First host byte that no L1 or L2 entry can name (bits 9 to 55).
  static final long MAX_HOST_OFFSET = 1L << 56;

  int clusterSize() {
    return 1 << clusterBits;
  }

  /// Entries of an L2 table.
  int l2Entries() {
    return 1 << l2Bits();
  }

  int l2Bits() {
    return clusterBits - 3;
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
