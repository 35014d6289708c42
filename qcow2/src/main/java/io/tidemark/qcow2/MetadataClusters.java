// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.LongStream;

/// Host clusters that hold the image's tables since it was opened: no guest write may reach them,
/// and the allocator may not give them out, whatever the (perhaps hostile) image says.
///
/// Tables made later need no entry: the allocator took their clusters itself.
///
/// Any thread may call any method.
final class MetadataClusters {
  /// Of an image that is only read.
  static final MetadataClusters NONE = new MetadataClusters(new long[0]);

  private final long[] sorted;
  private final Set<Long> released = ConcurrentHashMap.newKeySet();

  MetadataClusters(long[] clusters) {
    sorted = clusters.clone();
    Arrays.sort(sorted);
  }

  /// Clusters of the header, and of every table that the image names now. Where two of them are
  /// one, the image is corrupt, and what is written next will say so.
  static MetadataClusters named(HostFile file, Header header, long[] l1, SnapshotTable snapshots)
      throws BlockException {
    Geometry geometry = header.geometry();
    var clusters = LongStream.builder();
    clusters.add(0);
    addTable(clusters, geometry, header.l1Offset(), 8L * header.l1Entries());
    addTable(
        clusters,
        geometry,
        header.refcountTableOffset(),
        (long) header.refcountTableClusters() << geometry.clusterBits());
    addTable(clusters, geometry, header.snapshotsOffset(), snapshots.bytes());
    for (SnapshotTable.Entry snapshot : snapshots.entries()) {
      addTable(clusters, geometry, snapshot.l1Offset(), 8L * snapshot.l1Entries());
    }
    try {
      BitmapDirectory directory = BitmapDirectory.read(file, header);
      addTable(clusters, geometry, directory.offset(), directory.bytes());
    } catch (BlockException _) {
      // Safe because bitmaps that cannot be read are given up, and so is their directory.
    }
    for (long block : Refcounts.readTable(file, header)) {
      if (block != 0) {
        clusters.add(block >>> geometry.clusterBits());
      }
    }
    for (long entry : l1) {
      if (L2Entry.host(entry) != 0) {
        clusters.add(L2Entry.host(entry) >>> geometry.clusterBits());
      }
    }
    long[] all = clusters.build().sorted().toArray();
    for (int i = 1; i < all.length; i++) {
      if (all[i] == all[i - 1]) {
        file.corrupt(
            "two tables lie in the cluster at 0x"
                + Long.toHexString(all[i] << geometry.clusterBits())
                + "; check the image");
        break;
      }
    }
    return new MetadataClusters(Arrays.stream(all).distinct().toArray());
  }

  private static void addTable(
      LongStream.Builder into, Geometry geometry, long offset, long bytes) {
    long first = offset >>> geometry.clusterBits();
    for (long c = 0; c < geometry.clusters(bytes); c++) {
      into.add(first + c);
    }
  }

  /// The first protected cluster in `[first, first + count)`, or -1.
  long firstIn(long first, long count) {
    int at = Arrays.binarySearch(sorted, first);
    for (at = at < 0 ? -at - 1 : at; at < sorted.length && sorted[at] < first + count; at++) {
      if (!released.contains(sorted[at])) {
        return sorted[at];
      }
    }
    return -1;
  }

  /// The cluster was given back in order: from now on it may hold anything.
  void release(long cluster) {
    if (Arrays.binarySearch(sorted, cluster) >= 0) {
      released.add(cluster);
    }
  }
}
