// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;

/// Guest writes, zeroes and discards.
///
/// A write to a cluster that is data and our own goes straight to its place: no lock. Every other
/// write gives its guest cluster a new place: under [ClusterLocks], the old bytes around it are
/// read, data and old bytes are written to a cluster that is counted and that nothing names, and
/// then the entry is changed ([MappingTables#change]). What is on disk after each step: the new
/// cluster's count; then its content; then, page cache only, the log's record. The image's own
/// tables change in [WriteBack]. A write that fails before the entry changed gives the cluster
/// back.
///
/// Callers hold an [InFlight] ticket.
final class GuestWrites {
  private final HostFile file;
  private final Geometry geometry;
  private final MappingTables tables;
  private final Allocator allocator;
  private final GuestReads reads;
  private final Backing backing;
  private final WriteBack writeBack;
  private final HeaderFields header;
  private final ClusterLocks locks = new ClusterLocks();
  private final Scratch scratch;

  GuestWrites(
      HostFile file,
      HeaderFields header,
      MappingTables tables,
      Allocator allocator,
      GuestReads reads,
      Backing backing,
      WriteBack writeBack) {
    this.file = file;
    this.header = header;
    this.geometry = header.now().geometry();
    this.tables = tables;
    this.allocator = allocator;
    this.reads = reads;
    this.backing = backing;
    this.writeBack = writeBack;
    this.scratch = new Scratch(geometry.clusterSize());
  }

  void write(long offset, ByteBuffer from) throws BlockException {
    while (from.hasRemaining()) {
      long cluster = offset >>> geometry.clusterBits();
      long entry = tables.entry(cluster);
      int before = from.remaining();
      if (L2Entry.writable(entry)) {
        overwrite(cluster, entry, offset, from);
      } else {
        allocate(cluster, offset, from);
      }
      offset += before - from.remaining();
    }
  }

  private void overwrite(long cluster, long entry, long offset, ByteBuffer from)
      throws BlockException {
    int within = geometry.within(offset);
    long bytes = (long) geometry.clusterSize() - within;
    for (int next = 1; bytes < from.remaining(); next++) {
      if (tables.entry(cluster + next) != L2Entry.step(entry, next, geometry)) {
        break;
      }
      bytes += geometry.clusterSize();
    }
    write(L2Entry.host(entry) + within, from, (int) Math.min(bytes, from.remaining()));
  }

  private void write(long hostOffset, ByteBuffer from, int bytes) throws BlockException {
    int limit = from.limit();
    int start = from.position();
    from.limit(start + bytes);
    try {
      file.write(hostOffset, from);
    } finally {
      from.limit(limit);
    }
    from.position(start + bytes);
  }

  /// Writes into clusters from `cluster` on that need a new place, as many as lie in one L2 table
  /// and in one run of host clusters. Writes nothing when another thread gave `cluster` its place
  /// first.
  private void allocate(long cluster, long offset, ByteBuffer from) throws BlockException {
    long last = (offset + from.remaining() - 1) >>> geometry.clusterBits();
    last = Math.min(last, cluster | (geometry.l2Entries() - 1));
    int most = (int) Math.min(last - cluster + 1, MappingTables.MAX_CHANGE);
    ClusterLocks.Held held = locks.lock(cluster, most);
    try {
      long entry = tables.entry(cluster);
      if (L2Entry.writable(entry)) {
        return;
      }
      if (keepsPlace(entry)) {
        int count = 1;
        while (count < most
            && tables.entry(cluster + count) == L2Entry.step(entry, count, geometry)) {
          count++;
        }
        fillPlace(cluster, count, L2Entry.host(entry), offset, from);
        return;
      }
      int count = 1;
      while (count < most && needsPlace(tables.entry(cluster + count))) {
        count++;
      }
      Allocator.Run run = allocator.take(count);
      try {
        long host = run.first() << geometry.clusterBits();
        place(cluster, run.count(), host, run.fresh(), offset, from);
      } catch (BlockException | RuntimeException e) {
        allocator.giveBack(run);
        throw e;
      }
    } finally {
      locks.unlock(held);
    }
  }

  /// Gives one guest cluster a new entry, whose place is filled and counted.
  void enter(long cluster, long entry) throws BlockException {
    ClusterLocks.Held held = locks.lock(cluster, 1);
    try {
      tables.change(cluster, 1, entry, writeBack);
    } finally {
      locks.unlock(held);
    }
  }

  /// A zero cluster with a host cluster of its own: a write fills it where it is.
  private static boolean keepsPlace(long entry) {
    return L2Entry.kind(entry) == L2Entry.Kind.ZERO_ALLOCATED && (entry & L2Entry.COPIED) != 0;
  }

  private static boolean needsPlace(long entry) {
    return !L2Entry.writable(entry) && !keepsPlace(entry);
  }

  /// Fills the kept places of zero clusters and enters them as data. The mapping on disk may still
  /// call them data: so zeroes come first, over every byte, and then the guest's bytes. A power cut
  /// then shows each sector as it was, as zero, or as written, and never the new bytes among the
  /// old.
  private void fillPlace(long cluster, int count, long host, long offset, ByteBuffer from)
      throws BlockException {
    long start = cluster << geometry.clusterBits();
    long end = start + ((long) count << geometry.clusterBits());
    int bytes = (int) Math.min(from.remaining(), end - offset);
    int position = from.position();
    try {
      if (offset > start || offset + bytes < end) {
        file.writeZeroes(host, end - start);
      }
      write(host + (offset - start), from, bytes);
      tables.change(cluster, count, host | L2Entry.COPIED, writeBack);
    } catch (BlockException | RuntimeException e) {
      from.position(position);
      throw e;
    }
  }

  /// Fills `count` new host clusters and enters them.
  private void place(
      long cluster, int count, long host, boolean fresh, long offset, ByteBuffer from)
      throws BlockException {
    long start = cluster << geometry.clusterBits();
    long end = start + ((long) count << geometry.clusterBits());
    int bytes = (int) Math.min(from.remaining(), end - offset);
    long dataEnd = offset + bytes;
    int position = from.position();
    try {
      keepOld(cluster, start, offset, host, fresh);
      write(host + (offset - start), from, bytes);
      long lastCluster = (dataEnd - 1) >>> geometry.clusterBits();
      keepOld(lastCluster, dataEnd, end, host + (dataEnd - start), fresh);
      tables.change(cluster, count, host | L2Entry.COPIED, writeBack);
    } catch (BlockException | RuntimeException e) {
      from.position(position);
      throw e;
    }
  }

  /// Copies what a guest range inside one cluster holds now to `host`.
  private void keepOld(long cluster, long from, long end, long host, boolean fresh)
      throws BlockException {
    if (from == end) {
      return;
    }
    long entry = tables.entry(cluster);
    long size = header.now().virtualSize();
    long readEnd = Math.min(end, size); // past the disk's end is zero, for when it grows
    if (readsZero(entry, from)) {
      readEnd = from;
    }
    if (readEnd > from) {
      ByteBuffer old = scratch.take();
      try {
        old.limit((int) (readEnd - from));
        reads.readRun(entry, from, old);
        file.write(host, old.flip());
      } finally {
        scratch.give(old);
      }
    }
    if (!fresh && end > Math.max(readEnd, from)) {
      file.writeZeroes(host + (readEnd - from), end - readEnd);
    }
  }

  /// Whether everything from `offset` to the end of its cluster reads as zero.
  private boolean readsZero(long entry, long offset) {
    return switch (L2Entry.kind(entry)) {
      case ZERO_PLAIN, ZERO_ALLOCATED -> true;
      case UNALLOCATED -> offset >= backing.readableBound();
      case DATA, COMPRESSED -> false;
    };
  }

  /// Makes a range read as zeroes; space is given back unless `mode` forbids.
  void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    long end = offset + length;
    boolean keepPlaces = mode == ZeroMode.NO_UNMAP;
    long first = geometry.clusters(offset);
    // The disk's last cluster is whole even where the disk ends inside it.
    long last =
        end == header.now().virtualSize() ? geometry.clusters(end) : end >>> geometry.clusterBits();
    if (first >= last) {
      writePlainZeroes(offset, length);
      return;
    }
    writePlainZeroes(offset, (first << geometry.clusterBits()) - offset);
    zeroClusters(first, last, end, keepPlaces);
    long tail = last << geometry.clusterBits();
    writePlainZeroes(tail, Math.max(0, end - tail));
  }

  /// Gives a range back. It then reads as zeroes; in a version 2 image with something beneath,
  /// which has no way to say zero without space, nothing happens.
  void discard(long offset, long length) throws BlockException {
    if (geometry.version() < 3 && offset < backing.bound()) {
      return;
    }
    writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
  }

  /// Makes `[from, to)`, which begins at the present end of the disk, read as zeroes once the disk
  /// reaches there: neither old bytes of the last cluster nor a longer backing node may show.
  void zeroBeyondEnd(long from, long to) throws BlockException {
    long first = geometry.clusters(from);
    long firstOffset = first << geometry.clusterBits();
    if (from < firstOffset) {
      writePlainZeroes(from, firstOffset - from);
    }
    long end = Math.min(to, backing.bound());
    if (end > firstOffset) {
      zeroClusters(first, geometry.clusters(end), end, false);
    }
  }

  /// Makes whole clusters `[first, last)` read as zeroes.
  ///
  /// @param end guest byte past which nothing is written where bytes must be written
  private void zeroClusters(long first, long last, long end, boolean keepPlaces)
      throws BlockException {
    for (long cluster = first; cluster < last; ) {
      long tableEnd = (cluster | (geometry.l2Entries() - 1)) + 1;
      long offset = cluster << geometry.clusterBits();
      if (!tables.mapped(cluster) && offset >= backing.bound()) {
        cluster = tableEnd; // all of it is unallocated, and nothing is beneath
        continue;
      }
      long stop = Math.min(Math.min(last, tableEnd), cluster + MappingTables.MAX_CHANGE);
      if (geometry.version() < 3 && (keepPlaces || offset < backing.bound())) {
        writePlainZeroes(offset, Math.min(stop << geometry.clusterBits(), end) - offset);
      } else {
        change(cluster, (int) (stop - cluster), keepPlaces);
      }
      relieve();
      cluster = stop;
    }
  }

  /// Writes zero bytes, but not where zeroes are read already.
  private void writePlainZeroes(long offset, long length) throws BlockException {
    long end = offset + length;
    while (offset < end) {
      long cluster = offset >>> geometry.clusterBits();
      long stop = Math.min(end, (cluster + 1) << geometry.clusterBits());
      if (!readsZero(tables.entry(cluster), offset)) {
        while (offset < stop) {
          int step = (int) Math.min(Zeroes.BLOCK, stop - offset);
          write(offset, Zeroes.of(step));
          offset += step;
        }
      }
      offset = stop;
    }
  }

  private void change(long first, int count, boolean keepPlaces) throws BlockException {
    ClusterLocks.Held held = locks.lock(first, count);
    try {
      int done = 0;
      while (done < count) {
        long entry = tables.entry(first + done);
        long fresh = zeroed(first + done, entry, keepPlaces);
        int run = 1;
        while (done + run < count) {
          long next = tables.entry(first + done + run);
          long wanted = zeroed(first + done + run, next, keepPlaces);
          boolean alike =
              entry == fresh
                  ? next == wanted
                  : next != wanted && wanted == L2Entry.step(fresh, run, geometry);
          if (!alike) {
            break;
          }
          run++;
        }
        if (entry != fresh) {
          tables.change(first + done, run, fresh, writeBack);
        }
        done += run;
      }
    } finally {
      locks.unlock(held);
    }
  }

  /// The entry that makes a cluster read as zeroes.
  private long zeroed(long cluster, long entry, boolean keepPlaces) {
    L2Entry.Kind kind = L2Entry.kind(entry);
    boolean beneath = cluster << geometry.clusterBits() < backing.bound();
    if (keepPlaces && kind == L2Entry.Kind.ZERO_ALLOCATED) {
      return entry;
    }
    if (keepPlaces && L2Entry.writable(entry)) {
      return entry | L2Entry.ZERO;
    }
    if (kind == L2Entry.Kind.ZERO_PLAIN) {
      return entry;
    }
    return beneath ? L2Entry.ZERO : 0;
  }

  /// Writes back when too much waits. Called without cluster locks.
  void relieve() throws BlockException {
    if (tables.pressed()) {
      writeBack.run(true);
    }
  }

  /// Holds every change of the mapping out. The result goes to [#letIn].
  ClusterLocks.Held keepOut() {
    return locks.lock(0, Long.MAX_VALUE >>> 1);
  }

  void letIn(ClusterLocks.Held held) {
    locks.unlock(held);
  }
}
