// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.function.Consumer;

/// Puts a table of internal snapshots right, as `qemu-img check -r all` does: what goes past its
/// limits is removed, and entries get what version 3 wants of them.
///
/// On disk:
/// 1. Where snapshots go: their number in the header, 4 bytes; sync. What only they named is then
///    counted and not referred to.
/// 2. The caller puts the refcounts right, which count the table as it is.
/// 3. Where entries change: the new table goes to free clusters, counted; sync; 12 bytes of the
///    header lead to it; sync. The old table is then leaked; the caller gives it back.
///
/// A power cut leaves the table before or the one after each step, and the next repair goes on.
///
/// Nothing is done where a snapshot that is kept has its L1 table out of place: its clusters would
/// look leaked.
///
/// Spec: qcow2.rst, "Snapshots".
final class SnapshotTableRepair {
  private final HostFile file;
  private final SnapshotSalvage found;
  private final int version;
  private long changed; // what step 3 puts right

  /// Reads the table.
  ///
  /// @throws CorruptImageException when the snapshots cannot be known: nothing may be repaired then
  SnapshotTableRepair(HostFile file, Repair what) throws BlockException {
    this.file = file;
    Header header = Header.parse(file);
    this.version = header.geometry().version();
    try {
      this.found = SnapshotSalvage.read(file, header);
      if (what != Repair.ALL) {
        found.requireWhole(file);
      }
      found.table().requireL1Tables(file, header);
    } catch (CorruptImageException | UnsupportedImageException e) {
      // qemu: 7.2 refuses where the table cannot be read; where only an L1 table of a snapshot is
      // out of place, it gives the clusters away.
      throw new CorruptImageException(
          e.getMessage()
              + "; nothing is repaired, because the clusters of snapshots would be taken for"
              + " leaked",
          e);
    }
  }

  /// The snapshots that stay, in the table that the header leads to until step 3.
  SnapshotTable table() {
    return found.table();
  }

  /// Step 1, and tells what there is to put right. Returns how much of it is done.
  long begin(Repair what, Consumer<String> findings) throws BlockException {
    if (found.overTheCount() > 0) {
      findings.accept("Discarding " + found.overTheCount() + " overhanging snapshots");
    }
    for (SnapshotSalvage.Cut cut : found.cut()) {
      findings.accept(
          "Discarding too much extra metadata in snapshot table entry "
              + cut.index()
              + " ("
              + cut.found()
              + " > "
              + SnapshotTable.MAX_EXTRA
              + ")");
    }
    if (found.overTheBytes() > 0) {
      findings.accept(
          "Discarding "
              + found.overTheBytes()
              + " overhanging snapshots (snapshot table is too big)");
    }
    List<Integer> incomplete = table().incomplete(version);
    for (int index : incomplete) {
      findings.accept(
          (what == Repair.ALL ? "Repairing" : "ERROR")
              + " snapshot table entry "
              + index
              + " is incomplete");
    }
    changed = what == Repair.ALL ? found.cut().size() + incomplete.size() : 0;
    long gone = found.overTheCount() + found.overTheBytes();
    if (gone > 0) {
      fields().writeSnapshotCount(table().entries().size());
      file.sync();
    }
    return gone;
  }

  private HeaderFields fields() throws BlockException {
    return new HeaderFields(file, Header.parse(file));
  }

  /// Step 3. The refcounts are exact. Returns how much was put right; if anything was, the clusters
  /// of the old table have a reference less than their count.
  long end() throws BlockException {
    if (changed == 0) {
      return 0;
    }
    HeaderFields fields = fields();
    Header header = fields.now();
    Geometry geometry = header.geometry();
    List<SnapshotTable.Entry> entries =
        table().entries().stream().map(SnapshotTable::forVersion3).toList();
    ByteBuffer raw = SnapshotTable.write(file, entries);
    long[] l1 = L1Table.read(file, header.l1Offset(), header.l1Entries());
    var metadata = MetadataClusters.named(file, header, l1, table());
    var refcounts = new Refcounts(file, header, metadata);
    var allocator = new Allocator(file, fields, refcounts, metadata);
    long offset = 0;
    if (raw.hasRemaining()) {
      offset = allocator.takeTable(geometry.clusters(raw.remaining()));
      file.write(offset, raw);
    }
    file.sync();
    fields.writeSnapshots(entries.size(), offset);
    file.sync();
    return changed;
  }
}
