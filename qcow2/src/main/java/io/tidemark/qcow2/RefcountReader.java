// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/// The refcounts of an image as the file holds them, broken ones too, for [ImageCheck].
///
/// Not safe for threads.
///
/// Spec: qcow2.rst, "Host cluster management".
final class RefcountReader {
  /// Bits of a refcount table entry that mean nothing.
  static final long RESERVED = 0x1ff;

  /// Answer where a block cannot be found; it may be a count of 64 bits too ([#unreadable]).
  static final long UNREADABLE = -1;

  private static final int CACHE_BYTES = 8 << 20;

  private final HostFile file;
  private final Geometry geometry;
  private final int blockBits;
  private final long[] table;
  private final LinkedHashMap<Integer, ByteBuffer> cache;
  private final Set<Long> places = new HashSet<>(); // of header, tables and blocks
  private int lastIndex = -1;
  private ByteBuffer last = Header.bigEndian(0); // of lastIndex
  private boolean changed; //                       last differs from the file

  RefcountReader(HostFile file, Header header) throws BlockException {
    this.file = file;
    this.geometry = header.geometry();
    this.blockBits = geometry.refcountBlockBits();
    this.table = Refcounts.readTable(file, header);
    int most = Math.max(8, CACHE_BYTES >>> geometry.clusterBits());
    this.cache =
        new LinkedHashMap<>(16, 0.75f, true) {
          @Override
          protected boolean removeEldestEntry(Map.Entry<Integer, ByteBuffer> eldest) {
            return size() > most;
          }
        };
    place(0, 1);
    place(header.l1Offset(), geometry.clusters(8L * header.l1Entries()));
    place(header.refcountTableOffset(), header.refcountTableClusters());
    for (int i = 0; i < table.length; i++) {
      if (block(i) != 0) {
        place(block(i), 1);
      }
    }
  }

  private void place(long offset, long clusters) {
    for (long c = 0; c < clusters; c++) {
      places.add((offset >>> geometry.clusterBits()) + c);
    }
  }

  /// Whether header, active L1 table or refcounts lie at this place.
  boolean holds(long hostOffset) {
    return places.contains(hostOffset >>> geometry.clusterBits());
  }

  /// Entries of the table.
  int blocks() {
    return table.length;
  }

  long entry(int index) {
    return table[index];
  }

  /// Where a block is, 0 for none.
  long block(int index) {
    return table[index] & ~RESERVED;
  }

  /// The largest count that the width can hold.
  long highest() {
    int order = geometry.refcountOrder();
    return order == 6 ? Long.MAX_VALUE : (1L << (1 << order)) - 1;
  }

  /// The first cluster that the block of `cluster` does not count.
  long endOfBlock(long cluster) {
    return ((cluster >>> blockBits) + 1) << blockBits;
  }

  /// Whether no block counts the cluster.
  boolean empty(long cluster) {
    long index = cluster >>> blockBits;
    return index >= table.length || block((int) index) == 0;
  }

  /// A cluster's count, of 64 bits perhaps without a sign; what lies past the end of the file
  /// counts 0, as it reads.
  long get(long cluster) throws BlockException {
    if (empty(cluster)) {
      return 0;
    }
    int index = (int) (cluster >>> blockBits);
    if (index != lastIndex) {
      if (!usable(index)) {
        return UNREADABLE;
      }
      writeChanged();
      ByteBuffer found = cache.get(index);
      if (found == null) {
        found = file.readAt(block(index), geometry.clusterSize());
        cache.put(index, found);
      }
      last = found;
      lastIndex = index;
    }
    return Refcounts.value(last, within(cluster), geometry.refcountOrder());
  }

  /// Whether what [#get] answered for the cluster is no count.
  boolean unreadable(long cluster, long answer) {
    return answer == UNREADABLE && !usable((int) (cluster >>> blockBits));
  }

  private boolean usable(int index) {
    return geometry.aligned(block(index)) && block(index) >= 0;
  }

  private int within(long cluster) {
    return (int) (cluster & ((1L << blockBits) - 1));
  }

  /// Changes a count that [#get] was asked for last; in the file after [#writeChanged].
  void set(long cluster, long value) {
    Refcounts.set(last, within(cluster), geometry.refcountOrder(), value);
    changed = true;
  }

  void writeChanged() throws BlockException {
    if (changed) {
      file.write(block(lastIndex), last.duplicate().rewind());
      changed = false;
    }
  }
}
