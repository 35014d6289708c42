// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/// Guest writes; zeroes and discards are [GuestZeroes]'s.
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
  private final HostFile data; // the image's file, or its data file
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
      HostFile data,
      HeaderFields header,
      MappingTables tables,
      Allocator allocator,
      GuestReads reads,
      Backing backing,
      WriteBack writeBack) {
    this.data = data;
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
      long unit = offset >>> geometry.unitBits();
      long entry = tables.unit(unit);
      int before = from.remaining();
      if (L2Entry.writable(entry)) {
        overwrite(unit, entry, offset, from);
      } else {
        allocate(offset, from);
      }
      offset += before - from.remaining();
    }
  }

  private void overwrite(long unit, long entry, long offset, ByteBuffer from)
      throws BlockException {
    long bytes = ((unit + 1) << geometry.unitBits()) - offset;
    for (int next = 1; bytes < from.remaining(); next++) {
      long other = tables.unit(unit + next);
      if (!L2Entry.writable(other) || !L2Entry.continues(entry, unit, other, next, geometry)) {
        break;
      }
      bytes += geometry.unitSize();
    }
    long place = L2Entry.host(entry) + geometry.within(offset);
    write(place, from, (int) Math.min(bytes, from.remaining()));
  }

  private void write(long hostOffset, ByteBuffer from, int bytes) throws BlockException {
    int limit = from.limit();
    int start = from.position();
    from.limit(start + bytes);
    try {
      data.write(hostOffset, from);
    } finally {
      from.limit(limit);
    }
    from.position(start + bytes);
  }

  /// Writes into clusters that need a new place or have one to fill, as many as lie in one L2 table
  /// and in one run of host clusters. Writes nothing when another thread gave the first unit its
  /// place first.
  private void allocate(long offset, ByteBuffer from) throws BlockException {
    long cluster = offset >>> geometry.clusterBits();
    long last = (offset + from.remaining() - 1) >>> geometry.clusterBits();
    last = Math.min(last, cluster | (geometry.l2Entries() - 1));
    int most = (int) Math.min(last - cluster + 1, MappingTables.MAX_CHANGE);
    ClusterLocks.Held held = locks.lock(cluster, most);
    try {
      if (L2Entry.writable(tables.unit(offset >>> geometry.unitBits()))) {
        return;
      }
      long entry = tables.entry(cluster);
      int count = 1;
      if (L2Entry.own(entry)) {
        while (count < most && fillsAfter(entry, tables.entry(cluster + count), count)) {
          count++;
        }
        fillPlace(new Placing(cluster, count, L2Entry.host(entry), false, offset, from));
        return;
      }
      while (count < most && !L2Entry.own(tables.entry(cluster + count))) {
        count++;
      }
      tables.ensureTable(cluster, writeBack);
      Allocator.Run run = takePlaces(cluster, count);
      try {
        long host = run.first() << geometry.clusterBits();
        place(new Placing(cluster, run.count(), host, run.fresh(), offset, from));
      } catch (BlockException | RuntimeException e) {
        giveBackPlaces(run);
        throw e;
      }
    } finally {
      locks.unlock(held);
    }
  }

  /// Host clusters in a row for guest clusters: counted ones, or those of the data file that have
  /// the guest clusters' own offsets and may hold anything.
  Allocator.Run takePlaces(long cluster, int count) throws BlockException {
    return geometry.dataFile() ? ownPlaces(cluster, count) : allocator.take(count);
  }

  private Allocator.Run ownPlaces(long cluster, int count) {
    long bias = Geometry.DATA_FILE_BIAS >>> geometry.clusterBits();
    return new Allocator.Run(bias + cluster, count, false);
  }

  void giveBackPlaces(Allocator.Run run) {
    if (!geometry.dataFile()) {
      allocator.giveBack(run);
    }
  }

  /// As [#takePlaces], all of them; null when they are not at hand, or have to be fresh and are
  /// not.
  Allocator.@Nullable Run placesAtHand(long cluster, int count, boolean fresh) {
    if (geometry.dataFile()) {
      return fresh ? null : ownPlaces(cluster, count);
    }
    return allocator.takeAtHand(count, fresh);
  }

  /// Gives back what nothing was written to.
  void giveBackUntouched(Allocator.Run run) {
    if (!geometry.dataFile()) {
      allocator.giveBackUntouched(run);
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

  /// Whether a cluster has a place to fill, behind the place of the one `index` before it.
  private boolean fillsAfter(long entry, long other, int index) {
    return L2Entry.own(other)
        && L2Entry.host(other) == L2Entry.host(entry) + ((long) index << geometry.clusterBits())
        && (geometry.extendedL2() || !L2Entry.writable(other));
  }

  /// A write on its way into host clusters in a row.
  private final class Placing {
    final long cluster;
    final int count;
    final long host;
    final boolean fresh;
    final long start;
    final long end;
    final long from; // guest offsets of the bytes themselves
    final long to;
    final long firstUnit; // units that get bytes
    final long lastUnit;
    final ByteBuffer bytes;

    Placing(long cluster, int count, long host, boolean fresh, long offset, ByteBuffer bytes) {
      this.cluster = cluster;
      this.count = count;
      this.host = host;
      this.fresh = fresh;
      this.start = cluster << geometry.clusterBits();
      this.end = start + ((long) count << geometry.clusterBits());
      this.from = offset;
      this.to = Math.min(offset + bytes.remaining(), end);
      this.firstUnit = from >>> geometry.unitBits();
      this.lastUnit = (to - 1) >>> geometry.unitBits();
      this.bytes = bytes;
    }

    long place(long guestOffset) {
      return host + (guestOffset - start);
    }

    boolean touches(long unit) {
      return unit >= firstUnit && unit <= lastUnit;
    }

    void writeBytes() throws BlockException {
      write(place(from), bytes, (int) (to - from));
    }

    /// What the clusters' slots are once all is written.
    NewSlots slots() throws BlockException {
      long entry = host | L2Entry.COPIED;
      if (!geometry.extendedL2()) {
        return new NewSlots(entry, 0, 0, 0);
      }
      return new NewSlots(
          entry, bitmap(cluster), Subclusters.ALL_DATA, bitmap(cluster + count - 1));
    }

    private long bitmap(long of) throws BlockException {
      long base = of << geometry.unitsBits();
      int low = (int) Math.max(firstUnit - base, 0);
      int high = (int) Math.min(lastUnit - base + 1, Subclusters.COUNT);
      L2Slot old = tables.slot(of);
      return Subclusters.written(old.entry(), old.bitmap(), Subclusters.mask(low, high));
    }
  }

  /// Fills kept places and enters what they hold. The mapping on disk may still call data what
  /// reads as zero now: so where a unit is written in part, zeroes come first, over every byte of
  /// it, and then the guest's bytes. A power cut then shows each sector as it was, as zero, or as
  /// written, and never the new bytes among the old.
  private void fillPlace(Placing placing) throws BlockException {
    int position = placing.bytes.position();
    try {
      fillUnit(placing, placing.firstUnit);
      if (placing.lastUnit != placing.firstUnit) {
        fillUnit(placing, placing.lastUnit);
      }
      placing.writeBytes();
      tables.change(placing.cluster, placing.count, placing.slots(), writeBack);
    } catch (BlockException | RuntimeException e) {
      placing.bytes.position(position);
      throw e;
    }
  }

  /// Writes what a unit that is in its place holds beside the guest's bytes.
  private void fillUnit(Placing placing, long unit) throws BlockException {
    long start = unit << geometry.unitBits();
    long end = start + geometry.unitSize();
    if (placing.from <= start && placing.to >= end) {
      return;
    }
    long entry = tables.unit(unit);
    if (L2Entry.kind(entry) == L2Entry.Kind.DATA) {
      return; // in place already
    }
    if (readsZero(entry, start)) {
      if (geometry.dataFile()) {
        end = Math.min(end, Math.max(placing.to, header.now().virtualSize()));
      }
      data.writeZeroes(placing.place(start), end - start);
      return;
    }
    if (placing.from > start) {
      keep(placing, entry, start, placing.from);
    }
    if (placing.to < end) {
      keep(placing, entry, placing.to, end);
    }
  }

  /// Fills new host clusters and enters them.
  private void place(Placing placing) throws BlockException {
    int position = placing.bytes.position();
    try {
      keepOld(placing, placing.start, placing.from);
      placing.writeBytes();
      keepOld(placing, placing.to, placing.end);
      tables.change(placing.cluster, placing.count, placing.slots(), writeBack);
    } catch (BlockException | RuntimeException e) {
      placing.bytes.position(position);
      throw e;
    }
  }

  /// Copies what a guest range inside one cluster holds now to its new place: whatever is stored
  /// here, and in units that get bytes of the guest, whatever is read.
  private void keepOld(Placing placing, long from, long end) throws BlockException {
    while (from < end) {
      long unit = from >>> geometry.unitBits();
      long entry = tables.unit(unit);
      boolean stored =
          switch (L2Entry.kind(entry)) {
            case DATA, COMPRESSED -> true;
            case UNALLOCATED, ZERO_PLAIN, ZERO_ALLOCATED -> false;
          };
      long stop = (unit + 1) << geometry.unitBits();
      while (stop < end && stored && storedAlike(entry, stop)) {
        stop += geometry.unitSize();
      }
      stop = Math.min(stop, end);
      if (stored || placing.touches(unit)) {
        keep(placing, entry, from, stop);
      }
      from = stop;
    }
  }

  private boolean storedAlike(long entry, long offset) throws BlockException {
    // Within one cluster places follow one another.
    return L2Entry.kind(tables.unit(offset >>> geometry.unitBits())) == L2Entry.kind(entry);
  }

  /// Copies a guest range inside one cluster, which all reads by `entry`.
  private void keep(Placing placing, long entry, long from, long end) throws BlockException {
    long size = header.now().virtualSize();
    // Past the disk's end is zero, for when it grows.
    long readEnd = readsZero(entry, from) ? from : Math.clamp(size, from, end);
    if (readEnd > from) {
      ByteBuffer old = scratch.take();
      try {
        old.limit((int) (readEnd - from));
        reads.readRun(entry, from, old);
        data.write(placing.place(from), old.flip());
      } finally {
        scratch.give(old);
      }
    }
    if (geometry.dataFile()) {
      end = Math.min(end, Math.max(readEnd, size)); // it ends where the disk does
    }
    if (!placing.fresh && end > readEnd) {
      data.writeZeroes(placing.place(readEnd), end - readEnd);
    }
  }

  /// Whether everything from `offset` to the end of its unit reads as zero.
  boolean readsZero(long entry, long offset) {
    return switch (L2Entry.kind(entry)) {
      case ZERO_PLAIN, ZERO_ALLOCATED -> true;
      case UNALLOCATED -> offset >= backing.readableBound();
      case DATA, COMPRESSED -> false;
    };
  }

  /// Writes back when too much waits, and before that has it done beside. Called without cluster
  /// locks.
  void relieve() throws BlockException {
    if (pressed()) {
      writeBack.run(true);
    }
  }

  /// Whether too much waits for a write-back. Before that one is begun beside.
  boolean pressed() {
    if (tables.filling() && tables.logged()) {
      writeBack.begin();
    }
    return tables.pressed();
  }

  /// Holds changes of some guest clusters out. The result goes to [#letIn].
  ClusterLocks.Held lock(long cluster, long count) {
    return locks.lock(cluster, count);
  }

  /// As above if nobody holds any of them; else null.
  ClusterLocks.@Nullable Held tryLock(long cluster, long count) {
    return locks.tryLock(cluster, count);
  }

  /// Holds every change of the mapping out. The result goes to [#letIn].
  ClusterLocks.Held keepOut() {
    return locks.lock(0, Long.MAX_VALUE >>> 1);
  }

  void letIn(ClusterLocks.Held held) {
    locks.unlock(held);
  }
}
