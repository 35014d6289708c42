// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.Gate;
import io.tidemark.block.ReadOnlyNode;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;

/// The disk of an internal snapshot, read-only, beside the image that holds it.
///
/// Its tables never change while the snapshot is there: they are read once, without the image's
/// cache. Requests go through the image's gate, so that none runs while the image is reorganised;
/// one that comes after the snapshot went reads what was there before, or fails.
///
/// Any thread may call any method.
final class SnapshotView implements ReadOnlyNode {
  private final Qcow2Image image;
  private final Gate gate;
  private final InFlight<List<Freed>> inFlight;
  private final SnapshotTable.Entry entry;
  private final Backing backing;
  private final CompressedReads compressed;
  private final GuestReads reads;

  SnapshotView(
      Qcow2Image image,
      Gate gate,
      InFlight<List<Freed>> inFlight,
      OpenImage now,
      SnapshotTable.Entry entry,
      Backing backing)
      throws BlockException {
    this.image = image;
    this.gate = gate;
    this.inFlight = inFlight;
    this.entry = entry;
    this.backing = backing;
    HostFile file = now.file;
    Header header = now.header.now();
    long size = entry.snapshot().virtualSize();
    if (size < 0 || header.geometry().l1EntriesFor(size) > entry.l1Entries()) {
      throw new UnsupportedImageException(
          image.name()
              + ": snapshot "
              + entry.snapshot().id()
              + ": L1 table of "
              + entry.l1Entries()
              + " entries for a disk of "
              + Long.toUnsignedString(size)
              + " bytes");
    }
    long[] l1 = L1Table.read(file, entry.l1Offset(), entry.l1Entries());
    var tables = new MappingTables(file, header, l1, now.allocator, MetadataClusters.NONE, true);
    this.compressed = new CompressedReads(file, header);
    this.reads = new GuestReads(file, file, header, tables, backing, compressed);
  }

  private void check(long offset, long length) throws BlockException {
    if (offset < 0 || length < 0 || offset > virtualSize() - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + ", the disk has " + virtualSize());
    }
    boolean there =
        image.snapshotTable().entries().stream()
            .anyMatch(
                e -> e.l1Offset() == entry.l1Offset() && e.snapshot().equals(entry.snapshot()));
    if (!there) {
      throw new TransportException(name() + ": the snapshot is gone");
    }
  }

  @Override
  public String name() {
    return image.name() + " (snapshot " + entry.snapshot().id() + ")";
  }

  @Override
  public long virtualSize() {
    return entry.snapshot().virtualSize();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    int inside = gate.enter();
    int ticket = inFlight.enter();
    try {
      check(offset, into.remaining());
      reads.read(offset, into);
    } finally {
      inFlight.exit(ticket);
      gate.leave(inside);
    }
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    check(offset, length);
    int ticket = inFlight.enter();
    try {
      reads.extents(offset, length, visitor);
    } finally {
      inFlight.exit(ticket);
    }
  }

  @Override
  public Optional<BlockNode> backing() {
    return backing.node();
  }

  @Override
  public String whyReadOnly() {
    return "snapshots are read-only";
  }

  @Override
  public void close() {
    compressed.close();
  }
}
