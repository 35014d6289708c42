// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.Map;
import java.util.TreeMap;

/// A number for each host cluster, 0 where nothing was added, in bounded memory.
///
/// Numbers are kept in pages of [#PAGE] clusters, made when one of them is touched, with a byte a
/// cluster and, where that is too small, four. When the pages pass [#MAX_BYTES], the highest go:
/// the window ends before them, and what lies behind is left out. Who counts then goes over
/// everything again for the next window ([#next]), as often as there is one. So memory follows the
/// clusters in use and not the disk's size, and time what does not fit.
///
/// Not safe for threads.
final class ClusterCounts {
  /// Clusters of a page.
  static final int PAGE = 4096;

  /// Bytes of counts in memory: for 128 Mi clusters, 8 TiB of 64 KiB each, in one window.
  static final int MAX_BYTES = 128 << 20;

  private static final int PAGE_OVERHEAD = 128;

  private static final class Page {
    private byte[] narrow = new byte[PAGE];
    private int[] wide = {}; // empty: narrow holds the numbers

    int get(int index) {
      return wide.length == 0 ? narrow[index] : wide[index];
    }

    /// Whether the page became wide.
    boolean add(int index, int delta) {
      if (wide.length > 0) {
        wide[index] = Math.clamp((long) wide[index] + delta, Integer.MIN_VALUE, Integer.MAX_VALUE);
        return false;
      }
      int value = narrow[index] + delta;
      if (value == (byte) value) {
        narrow[index] = (byte) value;
        return false;
      }
      wide = new int[PAGE];
      for (int i = 0; i < PAGE; i++) {
        wide[i] = narrow[i];
      }
      narrow = new byte[0];
      wide[index] = value;
      return true;
    }
  }

  private final int mostBytes;
  private final TreeMap<Long, Page> pages = new TreeMap<>();
  private long bytes;
  private long start; //                  of the window, in pages
  private long limit = Long.MAX_VALUE; // first page behind the window
  private long lastIndex = -1;
  private Page last = new Page(); // of lastIndex

  ClusterCounts() {
    this(MAX_BYTES);
  }

  ClusterCounts(int mostBytes) {
    this.mostBytes = mostBytes;
  }

  /// Adds to a cluster's number; does nothing outside the window. Numbers end at those of an `int`.
  void add(long cluster, int delta) {
    long index = cluster / PAGE;
    if (index != lastIndex) {
      if (index < start || index >= limit) {
        return;
      }
      Page page = pages.get(index);
      if (page == null) {
        page = new Page();
        pages.put(index, page);
        bytes += PAGE + PAGE_OVERHEAD;
      }
      last = page;
      lastIndex = index;
    }
    if (last.add((int) (cluster % PAGE), delta)) {
      bytes += 3 * PAGE;
    }
    while (bytes > mostBytes && pages.size() > 1) {
      Map.Entry<Long, Page> highest = pages.pollLastEntry();
      limit = highest.getKey();
      bytes -= PAGE_OVERHEAD + (highest.getValue().wide.length > 0 ? 4 * PAGE : PAGE);
      if (lastIndex >= limit) {
        lastIndex = -1;
      }
    }
  }

  int get(long cluster) {
    long index = cluster / PAGE;
    if (index != lastIndex) {
      Page page = pages.get(index);
      if (page == null) {
        return 0;
      }
      last = page;
      lastIndex = index;
    }
    return last.get((int) (cluster % PAGE));
  }

  /// The first cluster of the window.
  long firstCluster() {
    return start * PAGE;
  }

  /// The first cluster behind the window; `Long.MAX_VALUE` when nothing was left out.
  long endCluster() {
    return limit == Long.MAX_VALUE ? Long.MAX_VALUE : limit * PAGE;
  }

  /// The first cluster at or after `from`, in the window, whose page holds something; -1: none.
  long nextTouched(long from) {
    if (pages.containsKey(from / PAGE)) {
      return from;
    }
    Long next = pages.higherKey(from / PAGE);
    return next == null ? -1 : next * PAGE;
  }

  /// Moves on to the clusters that were left out. False when there are none.
  boolean next() {
    if (limit == Long.MAX_VALUE) {
      return false;
    }
    start = limit;
    limit = Long.MAX_VALUE;
    clear();
    return true;
  }

  /// Whether everything fitted into one window.
  boolean complete() {
    return start == 0 && limit == Long.MAX_VALUE;
  }

  /// Forgets everything, and begins with the first window again.
  void restart() {
    start = 0;
    limit = Long.MAX_VALUE;
    clear();
  }

  /// Forgets all numbers of the window, and begins at its start again.
  void clear() {
    pages.clear();
    bytes = 0;
    lastIndex = -1;
  }
}
