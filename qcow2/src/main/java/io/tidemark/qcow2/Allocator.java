// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// Gives out host clusters and takes them back.
///
/// Counts are raised ahead, for a few MiB of clusters at once (the pool), and written to the file
/// before the first of those clusters is used. They are not synced here: an L2 entry that names
/// such a cluster is written only after a sync, and that sync covers the count too. So a power cut
/// or a kill leaks at most the pool, and [#close] gives the rest back.
///
/// `pool` is short: memory only. `counts` is held over the reading and writing of refcount blocks;
/// only a thread that finds the pool empty, and whoever frees, waits for it.
final class Allocator {
  /// Bytes of clusters whose counts are raised at once.
  private static final int POOL_BYTES = 4 << 20;

  private static final int POOL_MOST_CLUSTERS = 1024;

  /// Host clusters `[first, first + count)`.
  ///
  /// @param fresh never written since the file grew to hold them: they read as zeroes
  record Run(long first, int count, boolean fresh) {}

  /// Told of clusters whose counts are about to be raised for the pool.
  interface LongBinaryConsumer {
    void accept(long first, long count);
  }

  private final HostFile file;
  private final Geometry geometry;
  private final HeaderFields header;
  private final Refcounts refcounts; // guarded by counts
  private final ReentrantLock counts = new ReentrantLock();
  private long hint = 1; // guarded by counts; no free cluster lies below, but for what was freed
  private final ArrayDeque<Run> pool = new ArrayDeque<>(); // guarded by pool
  private final ArrayList<Run> held = new ArrayList<>(); // guarded by pool
  private volatile Runnable onRelease = () -> {};
  private volatile LongBinaryConsumer onRaise = (_, _) -> {};
  private final MetadataClusters metadata;

  /// @param metadata giving one of these out would destroy the image, so a count of 0 for one of
  ///   them stops the allocation instead
  Allocator(HostFile file, HeaderFields header, Refcounts refcounts, MetadataClusters metadata) {
    this.file = file;
    this.geometry = header.now().geometry();
    this.header = header;
    this.refcounts = refcounts;
    this.metadata = metadata;
  }

  /// Who is told before counts are raised, so that a killed process leaves word of its pool.
  void onRaise(LongBinaryConsumer listener) {
    onRaise = listener;
  }

  /// Who is told before clusters are given back, from when on they may hold anything.
  void onRelease(Runnable listener) {
    onRelease = listener;
  }

  /// See [Refcounts#requireSoundTable].
  void requireSoundTable() throws BlockException {
    counts.lock();
    try {
      refcounts.requireSoundTable();
    } finally {
      counts.unlock();
    }
  }

  /// Takes at least one and at most `wanted` clusters in a row; their count is 1.
  Run take(int wanted) throws BlockException {
    while (true) {
      synchronized (pool) {
        Run run = pool.poll();
        if (run != null) {
          if (run.count() <= wanted) {
            return run;
          }
          pool.addFirst(new Run(run.first() + wanted, run.count() - wanted, run.fresh()));
          return new Run(run.first(), wanted, run.fresh());
        }
      }
      refill(wanted);
    }
  }

  /// Takes `count` clusters in a row if the pool goes on with as many, fresh ones where they must
  /// be; else null.
  @Nullable Run takeAtHand(int count, boolean fresh) {
    synchronized (pool) {
      Run run = pool.peek();
      if (run == null || run.count() < count || (fresh && !run.fresh())) {
        return null;
      }
      pool.remove();
      if (run.count() > count) {
        pool.addFirst(new Run(run.first() + count, run.count() - count, run.fresh()));
      }
      return new Run(run.first(), count, run.fresh());
    }
  }

  /// Takes one cluster if it is what would be given out next.
  boolean takeIfNext(long cluster) throws BlockException {
    while (true) {
      synchronized (pool) {
        Run run = pool.peek();
        if (run != null) {
          if (run.first() != cluster) {
            return false;
          }
          pool.remove();
          if (run.count() > 1) {
            pool.addFirst(new Run(cluster + 1, run.count() - 1, run.fresh()));
          }
          return true;
        }
      }
      refill(1);
    }
  }

  /// Puts back clusters that nothing came to refer to. Their bytes are undefined.
  void giveBack(Run run) {
    giveBackUntouched(new Run(run.first(), run.count(), false));
  }

  /// Puts back clusters that are as they were when they were taken.
  void giveBackUntouched(Run run) {
    synchronized (pool) {
      pool.addFirst(run);
    }
  }

  /// Notes clusters that were taken for something that nothing refers to yet.
  void hold(Run run) {
    synchronized (pool) {
      held.add(run);
    }
  }

  void unhold(Run run) {
    synchronized (pool) {
      held.remove(run);
    }
  }

  /// Adds one reference to a cluster whose count the caller holds one of.
  void share(long cluster) throws BlockException {
    counts.lock();
    try {
      refcounts.add(cluster, 1, 1);
    } finally {
      counts.unlock();
    }
  }

  /// Whether at least `least` of the first `upTo` clusters are in use.
  boolean inUse(long least, long upTo) throws BlockException {
    counts.lock();
    try {
      long found = 0;
      for (long cluster = 0; cluster < upTo && found < least; cluster++) {
        if (refcounts.get(cluster) != 0) {
          found++;
        }
      }
      return found >= least;
    } finally {
      counts.unlock();
    }
  }

  private void refill(int wanted) throws BlockException {
    counts.lock();
    try {
      synchronized (pool) {
        if (!pool.isEmpty()) {
          return; // another thread was first
        }
      }
      int batch =
          Math.clamp(
              POOL_BYTES >>> geometry.clusterBits(), Math.max(4, wanted), POOL_MOST_CLUSTERS);
      long first = raise(batch);
      int count = (int) lastRaised;
      long before = file.length();
      long firstOffset = first << geometry.clusterBits();
      try {
        file.grow(firstOffset + ((long) count << geometry.clusterBits()));
      } catch (BlockException e) {
        refcounts.add(first, count, -1);
        throw e;
      }
      long freshFrom = geometry.clusters(before);
      int stale = (int) Math.clamp(freshFrom - first, 0L, (long) count);
      synchronized (pool) {
        if (stale > 0) {
          pool.add(new Run(first, stale, false));
        }
        if (stale < count) {
          pool.add(new Run(first + stale, count - stale, true));
        }
      }
    } finally {
      counts.unlock();
    }
  }

  private long lastRaised; // guarded by counts; clusters of the last raise

  /// Finds up to `most` free clusters in a row and raises their counts.
  private long raise(int most) throws BlockException {
    while (true) {
      long first = refcounts.findFree(hint, 1);
      if (!refcounts.counted(first)) {
        refcounts.addBlockFor(first, header);
        continue;
      }
      long count = 1L + refcounts.freeRun(first + 1, most - 1);
      onRaise.accept(first, count);
      refcounts.add(first, count, 1);
      hint = first + count; // all below was looked at
      lastRaised = count;
      return first;
    }
  }

  private boolean allCounted(long first, long count) {
    for (long c = first; c < first + count; ) {
      if (!refcounts.counted(c)) {
        return false;
      }
      c = ((c >>> geometry.refcountBlockBits()) + 1) << geometry.refcountBlockBits();
    }
    return true;
  }

  /// Takes clusters in a row for a table; returns its host offset.
  long takeTable(long clusters) throws BlockException {
    counts.lock();
    try {
      long first = refcounts.findFree(hint, clusters);
      if (allCounted(first, clusters)) {
        refcounts.add(first, clusters, 1);
      } else if (clusters == 1) {
        first = raise(1);
      } else {
        first = refcounts.takeArea(clusters, header);
      }
      try {
        file.grow((first + clusters) << geometry.clusterBits());
      } catch (BlockException e) {
        refcounts.add(first, clusters, -1);
        throw e;
      }
      return first << geometry.clusterBits();
    } finally {
      counts.unlock();
    }
  }

  /// Takes one reference away from each cluster. The change that dropped it is durable, and no
  /// request still uses the clusters.
  void release(long first, long count) throws BlockException {
    // Between looking and taking away nobody else knows the clusters that end here: so their space
    // is punched, which may take long, without the lock.
    onRelease.run();
    long start = -1;
    for (long c = first; c <= first + count; c++) {
      boolean last = c < first + count && refcount(c) == 1;
      if (last && start < 0) {
        start = c;
      } else if (!last && start >= 0) {
        file.punch(start << geometry.clusterBits(), (c - start) << geometry.clusterBits());
        start = -1;
      }
    }
    counts.lock();
    try {
      for (long c = first; c < first + count; c++) {
        if (refcounts.get(c) == 1) {
          metadata.release(c);
        }
      }
      refcounts.add(first, count, -1);
      hint = Math.min(hint, first);
    } finally {
      counts.unlock();
    }
  }

  /// Takes away references of one cluster that nobody holds, leaving at least one.
  void lower(long cluster, long references) throws BlockException {
    counts.lock();
    try {
      refcounts.add(cluster, 1, -references);
    } finally {
      counts.unlock();
    }
  }

  long refcount(long cluster) throws BlockException {
    counts.lock();
    try {
      return refcounts.get(cluster);
    } finally {
      counts.unlock();
    }
  }

  /// The counts themselves, for a caller that keeps everyone else out.
  Refcounts refcounts() {
    return refcounts;
  }

  /// Host offset and clusters of the refcount table, and the blocks' offsets.
  long[] refcountTable() {
    counts.lock();
    try {
      return refcounts.table();
    } finally {
      counts.unlock();
    }
  }

  /// What is raised and not in use.
  List<Run> unused() {
    synchronized (pool) {
      var all = new ArrayList<>(pool);
      all.addAll(held);
      return all;
    }
  }

  /// Gives the pool back and cuts free clusters off the file's end. Only when no request runs and
  /// all metadata is durable.
  void close() throws BlockException {
    counts.lock();
    try {
      List<Run> rest;
      synchronized (pool) {
        rest = new ArrayList<>(pool);
        pool.clear();
      }
      if (rest.isEmpty()) {
        return;
      }
      for (Run run : rest) {
        refcounts.add(run.first(), run.count(), -1);
        hint = Math.min(hint, run.first());
      }
      trim();
    } finally {
      counts.unlock();
    }
  }

  /// Cuts free clusters off the file's end.
  void trim() throws BlockException {
    counts.lock();
    try {
      long end = geometry.clusters(file.length());
      while (end > 1 && refcounts.get(end - 1) == 0) {
        end--;
      }
      if (end << geometry.clusterBits() < file.length()) {
        file.truncate(end << geometry.clusterBits());
      }
    } finally {
      counts.unlock();
    }
  }
}
