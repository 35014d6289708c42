// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.Borrower;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;

/// Guest reads: from entry to bytes, unit by unit ([Geometry#unitBits]).
///
/// Callers hold an [InFlight] ticket, so that no host cluster they looked up is reused under them.
final class GuestReads {
  private final HostFile file;
  private final HostFile data;
  private final Geometry geometry;
  private final MappingTables tables;
  private final Backing backing;
  private final CompressedReads compressed;

  GuestReads(
      HostFile file,
      HostFile data,
      Header header,
      MappingTables tables,
      Backing backing,
      CompressedReads compressed) {
    this.file = file;
    this.data = data;
    this.geometry = header.geometry();
    this.tables = tables;
    this.backing = backing;
    this.compressed = compressed;
  }

  void read(long offset, ByteBuffer into) throws BlockException {
    while (into.hasRemaining()) {
      long entry = tables.unit(offset >>> geometry.unitBits());
      int step = (int) run(entry, offset, into.remaining());
      int limit = into.limit();
      into.limit(into.position() + step);
      readRun(entry, offset, into);
      into.limit(limit);
      offset += step;
    }
  }

  /// See [io.tidemark.block.BlockNode#lend]. The ticket keeps the clusters until the borrower is
  /// done.
  int lend(long offset, int length, Borrower borrower) {
    int taken = 0;
    try {
      while (taken < length) {
        long at = offset + taken;
        long entry = tables.unit(at >>> geometry.unitBits());
        int step = (int) run(entry, at, length - taken);
        int lent = lendRun(entry, at, step, borrower);
        taken += lent;
        if (lent < step) {
          break;
        }
      }
    } catch (BlockException _) {
      // Safe because the caller reads what was not taken, and hears of it then.
    }
    return taken;
  }

  private int lendRun(long entry, long offset, int length, Borrower borrower)
      throws BlockException {
    return switch (L2Entry.kind(entry)) {
      case DATA ->
          data.lend(checkedHost(entry, offset) + geometry.within(offset), length, borrower);
      case UNALLOCATED -> backing.lend(offset, length, borrower);
      case ZERO_PLAIN, ZERO_ALLOCATED, COMPRESSED -> 0;
    };
  }

  /// Bytes from `offset` on that the same kind of entry answers for in one piece, at most `most`.
  private long run(long entry, long offset, long most) throws BlockException {
    if (L2Entry.kind(entry) == L2Entry.Kind.COMPRESSED) {
      return Math.min((long) geometry.clusterSize() - geometry.within(offset), most);
    }
    long unit = offset >>> geometry.unitBits();
    long bytes = ((unit + 1) << geometry.unitBits()) - offset;
    for (long next = 1; bytes < most; next++) {
      if (!L2Entry.continues(entry, unit, tables.unit(unit + next), next, geometry)) {
        break;
      }
      bytes += geometry.unitSize();
    }
    return Math.min(bytes, most);
  }

  /// Fills `into` from a run that begins at `offset` with `entry`.
  void readRun(long entry, long offset, ByteBuffer into) throws BlockException {
    switch (L2Entry.kind(entry)) {
      case DATA -> data.read(checkedHost(entry, offset) + geometry.within(offset), into);
      case UNALLOCATED -> backing.read(offset, into);
      case ZERO_PLAIN, ZERO_ALLOCATED -> {
        if (geometry.version() < 3) {
          throw new CorruptImageException(
              at(offset) + ": zero cluster in a version 2 image, wanted version 3");
        }
        Zeroes.fill(into);
      }
      case COMPRESSED -> compressed.read(entry, offset, into);
    }
  }

  private long checkedHost(long entry, long offset) throws CorruptImageException {
    long host = L2Entry.host(entry);
    if (!geometry.aligned(host)) {
      throw new CorruptImageException(
          at(offset) + ": host offset 0x" + Long.toHexString(host) + " is not cluster-aligned");
    }
    return host;
  }

  private String at(long offset) {
    return file.name() + ": guest offset 0x" + Long.toHexString(offset);
  }

  /// Visits what this layer holds in the range.
  void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    long end = offset + length;
    while (offset < end) {
      long cluster = offset >>> geometry.clusterBits();
      Extent extent;
      if (!tables.mapped(cluster)) {
        long next = cluster;
        do {
          next = ((next >>> geometry.l2Bits()) + 1) << geometry.l2Bits();
        } while (next << geometry.clusterBits() < end && !tables.mapped(next));
        extent = unallocated(offset, Math.min(end, next << geometry.clusterBits()) - offset);
      } else {
        long entry = tables.unit(offset >>> geometry.unitBits());
        boolean hollow = geometry.extendedL2() && L2Entry.kind(entry) == L2Entry.Kind.UNALLOCATED;
        long most = hollow ? geometry.clusterSize() - geometry.within(offset) : end - offset;
        long bytes = run(entry, offset, Math.min(most, end - offset));
        extent = hollow ? hollow(cluster, offset, bytes) : extent(entry, offset, bytes);
      }
      if (!visitor.visit(extent)) {
        return;
      }
      offset = extent.end();
    }
  }

  /// Unallocated subclusters of one cluster, with the host cluster that may stand ready for them.
  private Extent hollow(long cluster, long offset, long length) throws BlockException {
    long host = L2Entry.host(tables.entry(cluster));
    long place = host == 0 ? -1 : place(tables.entry(cluster), offset);
    return new Extent(offset, length, Extent.State.UNALLOCATED, place, false);
  }

  private static Extent unallocated(long offset, long length) {
    return new Extent(offset, length, Extent.State.UNALLOCATED, -1, false);
  }

  private Extent extent(long entry, long offset, long length) {
    return switch (L2Entry.kind(entry)) {
      case UNALLOCATED -> unallocated(offset, length);
      case DATA -> new Extent(offset, length, Extent.State.DATA, place(entry, offset), false);
      case ZERO_ALLOCATED ->
          new Extent(offset, length, Extent.State.ZERO, place(entry, offset), false);
      case ZERO_PLAIN -> new Extent(offset, length, Extent.State.ZERO, -1, false);
      case COMPRESSED -> new Extent(offset, length, Extent.State.DATA, -1, true);
    };
  }

  private long place(long entry, long offset) {
    return geometry.inFile(L2Entry.host(entry)) + geometry.within(offset);
  }
}
