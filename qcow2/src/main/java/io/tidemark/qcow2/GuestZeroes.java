// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;

/// How ranges of the disk come to read as zeroes: guest zeroes and discards, what a disk grows
/// into, and an image that is emptied.
///
/// Whole clusters, and whole subclusters where there are such, change in the mapping alone. What is
/// less, or has no way to say zero (version 2 where space is kept or something is beneath, part of
/// a compressed cluster), is written as zero bytes where it does not read as zeroes already.
///
/// Under [ClusterLocks] slots are looked up, and changed in runs that are alike. What is on disk
/// after each step is what [MappingTables#change] says; places that nothing names any more are
/// given back when [WriteBack] has written that. In an external data file the zeroes come before
/// the change: a power cut between shows zeroes too, or what was there.
///
/// Callers hold an [InFlight] ticket.
final class GuestZeroes {
  private final HostFile data; // the image's file, or its data file
  private final HeaderFields header;
  private final Geometry geometry;
  private final MappingTables tables;
  private final Backing backing;
  private final GuestWrites writes;
  private final WriteBack writeBack;

  GuestZeroes(
      HostFile data,
      HeaderFields header,
      MappingTables tables,
      Backing backing,
      GuestWrites writes,
      WriteBack writeBack) {
    this.data = data;
    this.header = header;
    this.geometry = header.now().geometry();
    this.tables = tables;
    this.backing = backing;
    this.writes = writes;
    this.writeBack = writeBack;
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
    ClusterLocks.Held held = writes.lock(cluster, 1);
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
      writes.letIn(held);
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
      ClusterLocks.Held held = writes.lock(cluster, stop - cluster);
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
        writes.letIn(held);
      }
      writes.relieve();
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
      writes.relieve();
      cluster = stop;
    }
  }

  /// Writes zero bytes, but not where zeroes are read already.
  private void writePlainZeroes(long offset, long length) throws BlockException {
    long end = offset + length;
    while (offset < end) {
      long unit = offset >>> geometry.unitBits();
      long stop = Math.min(end, (unit + 1) << geometry.unitBits());
      if (!writes.readsZero(tables.unit(unit), offset)) {
        while (offset < stop) {
          int step = (int) Math.min(Zeroes.BLOCK, stop - offset);
          writes.write(offset, Zeroes.of(step));
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
    ClusterLocks.Held held = writes.lock(first, count);
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
      writes.letIn(held);
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
}
