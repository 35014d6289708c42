// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;

/// Gives a disk another size, and places to guest clusters ahead of their first write.
///
/// Growing, on disk in this order:
/// 1. A longer L1 table in new clusters; sync; the header's L1 place and size; sync; the old table
///    is given back.
/// 2. What would show past the old end, once the disk reaches there, is made zero: the tail of the
///    last cluster, clusters that an earlier shrink was cut off from, a longer backing node.
/// 3. With preallocation, entries for the new clusters, each after its place.
/// 4. A data file of the new size.
/// 5. All of it is written back; sync; the virtual size; sync.
///
/// *A power cut before the last step:* the old disk, and perhaps entries past its end, which the
/// next growth makes zero.
///
/// Shrinking: everything before is written back; the virtual size; sync; entries past the end go,
/// whole L2 tables from the L1 table; sync; what they named is given back; the file's free end is
/// cut off; a data file is cut. *A power cut between:* the new disk, and entries past its end.
///
/// Spec: qcow2.rst, "Header". qemu: 7.2 refuses the same.
final class Growth {
  private final HostFile file;
  private final HostFile data;
  private final HeaderFields header;
  private final Geometry geometry;
  private final MappingTables tables;
  private final Allocator allocator;
  private final GuestWrites writes;
  private final GuestZeroes zeroes;
  private final WriteBack writeBack;

  Growth(
      HostFile file,
      HostFile data,
      HeaderFields header,
      MappingTables tables,
      Allocator allocator,
      GuestWrites writes,
      GuestZeroes zeroes,
      WriteBack writeBack) {
    this.file = file;
    this.data = data;
    this.header = header;
    this.geometry = header.now().geometry();
    this.tables = tables;
    this.allocator = allocator;
    this.writes = writes;
    this.zeroes = zeroes;
    this.writeBack = writeBack;
  }

  /// Refuses what cannot be done, before anything is changed.
  void check(long newSize, ResizeOptions options) throws BlockException {
    long oldSize = header.now().virtualSize();
    if (newSize < 0 || newSize % 512 != 0) {
      throw refuse("size " + newSize + ", wanted a multiple of 512");
    }
    if (header.now().snapshotCount() > 0 && geometry.version() < 3) {
      throw refuse(
          "a version 2 image with internal snapshots cannot be resized:"
              + " they do not keep their size");
    }
    if (newSize < oldSize && !options.shrink()) {
      throw refuse(
          "shrinking from "
              + oldSize
              + " to "
              + newSize
              + " bytes loses data; ask for it with --shrink");
    }
    if (newSize < oldSize && options.preallocation() != Preallocation.OFF) {
      throw refuse(
          "preallocation=" + options.preallocation().word() + " cannot be used to shrink an image");
    }
    if (geometry.l1EntriesFor(newSize) > Geometry.MAX_L1_BYTES / 8) {
      throw refuse(
          "virtual size "
              + newSize
              + " needs an L1 table of more than "
              + Geometry.MAX_L1_BYTES
              + " bytes, the limit; larger clusters need less");
    }
    if (geometry.dataFile() && newSize > Geometry.DATA_FILE_BIAS) {
      throw refuse(
          "virtual size " + newSize + ", at most 2^55 are handled with an external data file");
    }
  }

  private UnsupportedImageException refuse(String what) {
    return new UnsupportedImageException(file.name() + ": " + what);
  }

  void grow(long newSize, Preallocation preallocation) throws BlockException {
    long oldSize = header.now().virtualSize();
    long entries = geometry.l1EntriesFor(newSize);
    if (entries > tables.l1Length()) {
      growL1((int) entries);
    }
    zeroes.zeroBeyondEnd(oldSize, newSize);
    try {
      preallocate(oldSize, newSize, preallocation);
      if (geometry.dataFile()) {
        data.resize(newSize);
      }
      writeBack.run(true);
    } catch (OutOfSpaceException e) {
      try {
        dropFrom(geometry.clusters(oldSize));
        writeBack.run(true);
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
    header.writeVirtualSize(newSize);
    file.sync();
  }

  private void growL1(int entries) throws BlockException {
    ClusterLocks.Held held = writes.keepOut();
    try {
      writeBack.run(true);
      long oldOffset = header.now().l1Offset();
      long oldBytes = 8L * header.now().l1Entries();
      long clusters = geometry.clusters(8L * entries);
      long offset = allocator.takeTable(clusters);
      ByteBuffer raw = Header.bigEndian(Math.toIntExact(clusters << geometry.clusterBits()));
      raw.asLongBuffer().put(tables.l1());
      file.write(offset, raw);
      file.sync();
      header.writeL1(offset, entries);
      file.sync();
      tables.growL1(entries);
      if (oldBytes > 0) {
        allocator.release(oldOffset >>> geometry.clusterBits(), geometry.clusters(oldBytes));
      }
    } finally {
      writes.letIn(held);
    }
  }

  /// Gives every cluster between two guest offsets that has no place one. The L1 table is long
  /// enough.
  ///
  /// qemu: of an extended entry the place is kept ready and no subcluster is in it; 7.2.
  void preallocate(long from, long to, Preallocation preallocation) throws BlockException {
    if (preallocation == Preallocation.OFF) {
      return;
    }
    long cluster = from >>> geometry.clusterBits();
    long last = geometry.clusters(to);
    while (cluster < last) {
      long stop = Math.min(last, (cluster | (geometry.l2Entries() - 1)) + 1);
      int most = (int) Math.min(stop - cluster, MappingTables.MAX_CHANGE);
      ClusterLocks.Held held = writes.lock(cluster, most);
      try {
        cluster += preallocate(cluster, most, preallocation);
      } finally {
        writes.letIn(held);
      }
      writes.relieve();
    }
    if (geometry.dataFile()) {
      data.preallocate(Geometry.DATA_FILE_BIAS + from, to - from, preallocation);
    }
  }

  /// Returns how many clusters are done, at least one.
  private int preallocate(long cluster, int most, Preallocation preallocation)
      throws BlockException {
    L2Slot old = tables.slot(cluster);
    if (!empty(old)) {
      return 1;
    }
    int count = 1;
    while (count < most && tables.slot(cluster + count).equals(old)) {
      count++;
    }
    Allocator.Run run = writes.takePlaces(cluster, count);
    long host = run.first() << geometry.clusterBits();
    long bytes = (long) run.count() << geometry.clusterBits();
    try {
      if (!geometry.dataFile()) {
        if (!run.fresh()) {
          data.writeZeroes(host, bytes, ZeroMode.MAY_UNMAP);
        }
        data.preallocate(host, bytes, preallocation);
      }
      long entry = host | L2Entry.COPIED;
      var slot = new L2Slot(entry, geometry.extendedL2() ? old.bitmap() : 0);
      tables.change(cluster, run.count(), NewSlots.all(slot), writeBack);
    } catch (BlockException | RuntimeException e) {
      writes.giveBackPlaces(run);
      throw e;
    }
    return run.count();
  }

  private static boolean empty(L2Slot slot) {
    return switch (L2Entry.kind(slot.entry())) {
      case UNALLOCATED, ZERO_PLAIN -> true;
      case ZERO_ALLOCATED, DATA, COMPRESSED -> false;
    };
  }

  void shrink(long newSize) throws BlockException {
    allocator.requireSoundTable(); // qemu: refuses too, where it would give blocks back
    writeBack.run(true);
    header.writeVirtualSize(newSize);
    file.sync();
    dropFrom(geometry.clusters(newSize));
    writeBack.run(true);
    if (geometry.dataFile()) {
      data.resize(newSize);
    }
  }

  /// Takes all guest clusters from `first` on out of the mapping.
  private void dropFrom(long first) throws BlockException {
    int index = tables.l1Index(first);
    long tableStart = (long) index << geometry.l2Bits();
    if (index < tables.l1Length() && first > tableStart) {
      long end = tableStart + geometry.l2Entries();
      for (long cluster = first; cluster < end && tables.mapped(cluster); ) {
        int count = (int) Math.min(end - cluster, MappingTables.MAX_CHANGE);
        ClusterLocks.Held held = writes.lock(cluster, count);
        try {
          tables.change(cluster, count, NewSlots.all(new L2Slot(0, 0)), writeBack);
        } finally {
          writes.letIn(held);
        }
        cluster += count;
      }
      index++;
    }
    ClusterLocks.Held held = writes.keepOut();
    try {
      writeBack.run(true); // no change of a table that goes may wait
      for (; index < tables.l1Length(); index++) {
        tables.drop(index);
        writes.relieve();
      }
    } finally {
      writes.letIn(held);
    }
  }
}
