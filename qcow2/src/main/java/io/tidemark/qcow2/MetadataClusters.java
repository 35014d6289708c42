// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/// Host clusters that hold the image's tables since it was opened: no guest write may reach them,
/// and the allocator may not give them out, whatever the (perhaps hostile) image says.
///
/// Tables made later need no entry: the allocator took their clusters itself.
///
/// Any thread may call any method.
final class MetadataClusters {
  private final long[] sorted;
  private final Set<Long> released = ConcurrentHashMap.newKeySet();

  MetadataClusters(long[] clusters) {
    sorted = clusters.clone();
    Arrays.sort(sorted);
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
