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
    if (geometry.dataFile()) {
      long bias = Geometry.DATA_FILE_BIAS >>> geometry.clusterBits();
      return new Allocator.Run(bias + cluster, count, false);
    }
    return allocator.take(count);
  }

  void giveBackPlaces(Allocator.Run run) {
    if (!geometry.dataFile()) {
      allocator.giveBack(run);
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
  private boolean readsZero(long entry, long offset) {
    return switch (L2Entry.kind(entry)) {
      case ZERO_PLAIN, ZERO_ALLOCATED -> true;
      case UNALLOCATED -> offset >= backing.readableBound();
      case DATA, COMPRESSED -> false;
    };
  }

  /// How clusters come to read as zeroes.
  ///
  /// @param keepPlaces their space is not given back
  /// @param explicit the entry says zero, also where nothing is here or beneath: so it stays when
  ///   something comes beneath later
  private record Zeroing(boolean keepPlaces, boolean explicit) {}

  /// Makes a range read as zeroes; space is given back unless `mode` forbids.
  ///
  /// qemu: clusters that were unallocated say zero afterwards, where the version has a way to; 7.2.
  void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    zero(offset, length, new Zeroing(mode == ZeroMode.NO_UNMAP, geometry.version() >= 3));
  }

  private void zero(long offset, long length, Zeroing how) throws BlockException {
    long end = offset + length;
    long first = geometry.units(offset);
    // The disk's last cluster is whole even where the disk ends inside it.
    long last =
        end == header.now().virtualSize()
            ? geometry.clusters(end) << geometry.unitsBits()
            : end >>> geometry.unitBits();
    if (first >= last) {
      writePlainZeroes(offset, length);
      return;
    }
    writePlainZeroes(offset, (first << geometry.unitBits()) - offset);
    zeroUnits(first, last, end, how);
    long tail = last << geometry.unitBits();
    writePlainZeroes(tail, Math.max(0, end - tail));
  }

  /// Gives a range back. It then reads as zeroes; in a version 2 image with something beneath,
  /// which has no way to say zero without space, nothing happens.
  ///
  /// qemu: 7.2 refuses a discard there too.
  void discard(long offset, long length) throws BlockException {
    if (geometry.version() < 3 && backing.bound() > 0) {
      return;
    }
    zero(offset, length, new Zeroing(false, false));
  }

  /// Makes `[from, to)`, which begins at the present end of the disk, read as zeroes once the disk
  /// reaches there: neither old bytes of the last cluster, nor clusters that a shrink was cut off
  /// from, nor a longer backing node may show.
  void zeroBeyondEnd(long from, long to) throws BlockException {
    long first = geometry.clusters(from);
    long firstOffset = first << geometry.clusterBits();
    if (from < firstOffset) {
      writePlainZeroes(from, firstOffset - from);
    }
    if (to > firstOffset) {
      zeroClusters(first, geometry.clusters(to), to, new Zeroing(false, false));
    }
  }

  /// Makes units `[first, last)` read as zeroes: what is less than a cluster at either end, and the
  /// clusters between.
  ///
  /// @param end guest byte past which nothing is written where bytes must be written
  private void zeroUnits(long first, long last, long end, Zeroing how) throws BlockException {
    int bits = geometry.unitsBits();
    long cluster = first >>> bits;
    if (cluster << bits < first) {
      long stop = Math.min((cluster + 1) << bits, last);
      zeroSubclusters(cluster, first, stop, end, how);
      cluster++;
    }
    long whole = last >>> bits;
    if (cluster < whole) {
      zeroClusters(cluster, whole, end, how);
      cluster = whole;
    }
    if (cluster << bits < last && cluster << bits >= first) {
      zeroSubclusters(cluster, cluster << bits, last, end, how);
    }
  }

  /// Makes subclusters `[first, last)` of one cluster read as zeroes.
  private void zeroSubclusters(long cluster, long first, long last, long end, Zeroing how)
      throws BlockException {
    long offset = first << geometry.unitBits();
    if (!how.explicit && !tables.mapped(cluster) && offset >= backing.bound()) {
      return;
    }
    long base = cluster << geometry.unitsBits();
    long mask = Subclusters.mask((int) (first - base), (int) (last - base));
    ClusterLocks.Held held = locks.lock(cluster, 1);
    try {
      L2Slot old = tables.slot(cluster);
      if ((old.entry() & L2Entry.COMPRESSED) == 0) {
        L2Slot fresh = zeroed(old, mask, offset < backing.bound(), how);
        zeroDataFile(offset, last << geometry.unitBits(), how.keepPlaces());
        if (!fresh.equals(old)) {
          tables.change(cluster, 1, NewSlots.all(fresh), writeBack);
        }
        return;
      }
    } finally {
      locks.unlock(held);
    }
    writePlainZeroes(offset, Math.min(last << geometry.unitBits(), end) - offset);
  }

  /// The slot that makes some subclusters read as zeroes.
  private static L2Slot zeroed(L2Slot old, long mask, boolean beneath, Zeroing how) {
    boolean holdsSome = Subclusters.data(old.bitmap()) != 0;
    if (!how.explicit && !holdsSome && !beneath && L2Entry.host(old.entry()) == 0) {
      return old; // reads as zeroes by itself
    }
    long bitmap = Subclusters.zeroed(old.bitmap(), mask);
    boolean drop = holdsSome && !how.keepPlaces && Subclusters.data(bitmap) == 0;
    return new L2Slot(drop ? 0 : old.entry(), bitmap);
  }

  /// Makes every cluster unallocated.
  void empty() throws BlockException {
    long clusters = geometry.clusters(header.now().virtualSize());
    for (long cluster = 0; cluster < clusters; ) {
      long tableEnd = (cluster | (geometry.l2Entries() - 1)) + 1;
      if (!tables.mapped(cluster)) {
        cluster = tableEnd;
        continue;
      }
      long stop = Math.min(Math.min(clusters, tableEnd), cluster + MappingTables.MAX_CHANGE);
      ClusterLocks.Held held = locks.lock(cluster, stop - cluster);
      try {
        zeroDataFile(cluster << geometry.clusterBits(), stop << geometry.clusterBits(), false);
        for (long at = cluster; at < stop; ) {
          int run = 0;
          while (at + run < stop && !tables.slot(at + run).equals(L2Slot.EMPTY)) {
            run++;
          }
          if (run > 0) {
            tables.change(at, run, NewSlots.all(L2Slot.EMPTY), writeBack);
          }
          at += Math.max(1, run);
        }
      } finally {
        locks.unlock(held);
      }
      relieve();
      cluster = stop;
    }
  }

  /// Makes whole clusters `[first, last)` read as zeroes.
  ///
  /// @param end guest byte past which nothing is written where bytes must be written
  private void zeroClusters(long first, long last, long end, Zeroing how) throws BlockException {
    for (long cluster = first; cluster < last; ) {
      long tableEnd = (cluster | (geometry.l2Entries() - 1)) + 1;
      long offset = cluster << geometry.clusterBits();
      if (!how.explicit && !tables.mapped(cluster) && offset >= backing.bound()) {
        cluster = tableEnd; // all of it is unallocated, and nothing is beneath
        continue;
      }
      long stop = Math.min(Math.min(last, tableEnd), cluster + MappingTables.MAX_CHANGE);
      if (geometry.version() < 3 && (how.keepPlaces || offset < backing.bound())) {
        writePlainZeroes(offset, Math.min(stop << geometry.clusterBits(), end) - offset);
      } else {
        change(cluster, (int) (stop - cluster), how);
      }
      relieve();
      cluster = stop;
    }
  }

  /// Writes zero bytes, but not where zeroes are read already.
  private void writePlainZeroes(long offset, long length) throws BlockException {
    long end = offset + length;
    while (offset < end) {
      long unit = offset >>> geometry.unitBits();
      long stop = Math.min(end, (unit + 1) << geometry.unitBits());
      if (!readsZero(tables.unit(unit), offset)) {
        while (offset < stop) {
          int step = (int) Math.min(Zeroes.BLOCK, stop - offset);
          write(offset, Zeroes.of(step));
          offset += step;
        }
      }
      offset = stop;
    }
  }

  /// Makes a range of an external data file read as zeroes, before the mapping says so: who reads a
  /// raw one without the mapping finds the same, and of another the space is given back. Done at
  /// once and not after a flush, because the place of a guest cluster is always the same: a write
  /// to it may come next.
  private void zeroDataFile(long from, long to, boolean keepPlaces) throws BlockException {
    long end = Math.min(to, header.now().virtualSize());
    if (!geometry.dataFile() || end <= from) {
      return;
    }
    if (Feature.RAW_EXTERNAL_DATA.in(header.now().autoclear())) {
      ZeroMode mode = keepPlaces ? ZeroMode.NO_UNMAP : ZeroMode.MAY_UNMAP;
      data.writeZeroes(Geometry.DATA_FILE_BIAS + from, end - from, mode);
    } else if (!keepPlaces) {
      data.punch(Geometry.DATA_FILE_BIAS + from, end - from);
    }
  }

  private void change(long first, int count, Zeroing how) throws BlockException {
    ClusterLocks.Held held = locks.lock(first, count);
    try {
      long from = first << geometry.clusterBits();
      zeroDataFile(from, from + ((long) count << geometry.clusterBits()), how.keepPlaces());
      int done = 0;
      while (done < count) {
        L2Slot old = tables.slot(first + done);
        L2Slot fresh = zeroed(first + done, old, how);
        int run = 1;
        while (done + run < count) {
          L2Slot next = tables.slot(first + done + run);
          L2Slot wanted = zeroed(first + done + run, next, how);
          boolean alike =
              old.equals(fresh)
                  ? next.equals(wanted)
                  : !next.equals(wanted) && wanted.equals(fresh.step(run, geometry));
          if (!alike) {
            break;
          }
          run++;
        }
        if (!old.equals(fresh)) {
          tables.change(first + done, run, NewSlots.all(fresh), writeBack);
        }
        done += run;
      }
    } finally {
      locks.unlock(held);
    }
  }

  /// The slot that makes a whole cluster read as zeroes.
  ///
  /// qemu: what was in this layer says zero afterwards, also where nothing is beneath; 7.2.
  private L2Slot zeroed(long cluster, L2Slot old, Zeroing how) {
    long entry = old.entry();
    if (how.keepPlaces && L2Entry.own(entry)) {
      return L2Slot.whole(entry | L2Entry.ZERO, geometry);
    }
    boolean here = entry != 0 || old.bitmap() != 0;
    boolean beneath = cluster << geometry.clusterBits() < backing.bound();
    boolean zero = geometry.version() >= 3 && (here || beneath || how.explicit);
    return L2Slot.whole(zero ? L2Entry.ZERO : 0, geometry);
  }

  /// Writes back when too much waits, and before that has it done beside. Called without cluster
  /// locks.
  void relieve() throws BlockException {
    if (tables.filling() && tables.logged()) {
      writeBack.begin();
    }
    if (tables.pressed()) {
      writeBack.run(true);
    }
  }

  /// Holds changes of some guest clusters out. The result goes to [#letIn].
  ClusterLocks.Held lock(long cluster, int count) {
    return locks.lock(cluster, count);
  }

  /// Holds every change of the mapping out. The result goes to [#letIn].
  ClusterLocks.Held keepOut() {
    return locks.lock(0, Long.MAX_VALUE >>> 1);
  }

  void letIn(ClusterLocks.Held held) {
    locks.unlock(held);
  }
}
