// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/// Puts right what a check finds in an image that nobody else uses, as `qemu-img check -r` does.
///
/// On disk, synced between:
/// 1. [Repair#ALL]: entries of zero clusters whose place is not aligned lose that place.
/// 2. Where refcounts can be changed where they stand: that ([ImageCheck]). Else all of them anew:
///    blocks and table for what the tables refer to are written behind the end of the file; sync;
///    12 bytes of the header lead to them. The old ones are then neither counted nor named. *Power
///    cut before the header: the image as it was, and a longer file.*
/// 3. Copied flags.
/// 4. When a second check finds it sound: the dirty and the corrupt bit go.
///
/// The guest's data is not touched, and no cluster with a reference is freed.
final class ImageRepair {
  private final HostFile file;
  private final Repair what;
  private final List<String> findings = new ArrayList<>();

  ImageRepair(HostFile file, Repair what) {
    this.file = file;
    this.what = what;
  }

  RepairResult run() throws BlockException {
    requireSnapshots();
    var mode = new ImageCheck.Mode(true, what == Repair.ALL);
    long entriesFixed = what == Repair.ALL ? dropMisplacedZeroes() : 0;
    var look = new ImageCheck(file, ImageCheck.Mode.LOOK, findings);
    look.compareAll((_, _, _) -> {});
    long leaksFixed = 0;
    long corruptionsFixed = entriesFixed;
    if (look.rebuild() && what == Repair.ALL) {
      find("Rebuilding refcount structure");
      rebuildRefcounts();
      var again = new ImageCheck(file, mode, new ArrayList<>());
      again.compareAll((_, _, _) -> {});
      again.copiedFlags();
      leaksFixed = Math.max(0, look.leaks() - again.leaks());
      corruptionsFixed += Math.max(0, look.corruptions() - again.corruptions());
    } else if (look.rebuild()) {
      find("ERROR need to rebuild refcount structures");
      return new RepairResult(0, 0, findings, withError(new ImageCheck(file).run()));
    } else {
      var lines = new ArrayList<String>();
      var fixing = new ImageCheck(file, mode, lines);
      fixing.compareAll((_, _, _) -> {});
      fixing.copiedFlags();
      leaksFixed = fixing.leaksFixed();
      corruptionsFixed += fixing.corruptionsFixed();
      lines.stream().filter(line -> !findings.contains(line)).forEach(this::find);
    }
    file.sync();
    CheckResult after = new ImageCheck(file).run();
    if (after.sound()) {
      var header = new HeaderFields(file, Header.parse(file));
      header.writeIncompatible(
          header.now().incompatible() & ~(Feature.DIRTY.mask() | Feature.CORRUPT.mask()));
      file.sync();
    }
    return new RepairResult(leaksFixed, corruptionsFixed, findings, after);
  }

  /// Clusters of snapshots that nobody can read look leaked: a repair would give them away.
  ///
  /// qemu: 7.2 refuses likewise where the table cannot be read; where only an L1 table of a
  /// snapshot is out of place, it gives the clusters away.
  private void requireSnapshots() throws BlockException {
    try {
      SnapshotTable.read(file, Header.parse(file));
    } catch (CorruptImageException | UnsupportedImageException e) {
      throw new CorruptImageException(
          e.getMessage()
              + "; nothing is repaired, because the clusters of snapshots would be taken for"
              + " leaked",
          e);
    }
  }

  private void find(String line) {
    if (findings.size() < CheckResult.MAX_FINDINGS) {
      findings.add(line);
    }
  }

  private static CheckResult withError(CheckResult found) {
    return new CheckResult(
        found.checkErrors() + 1,
        found.corruptions(),
        found.leaks(),
        found.allocatedClusters(),
        found.totalClusters(),
        found.fragmentedClusters(),
        found.compressedClusters(),
        found.imageEndOffset(),
        List.of());
  }

  /// Takes the place from entries that hold no data there. Returns how many.
  private long dropMisplacedZeroes() throws BlockException {
    Header header = Header.parse(file);
    long fixed = dropMisplacedZeroes(header, header.l1Offset(), header.l1Entries());
    for (SnapshotTable.Entry entry : SnapshotTable.read(file, header).entries()) {
      fixed += dropMisplacedZeroes(header, entry.l1Offset(), entry.l1Entries());
    }
    if (fixed > 0) {
      file.sync();
    }
    return fixed;
  }

  private long dropMisplacedZeroes(Header header, long l1Offset, int l1Entries)
      throws BlockException {
    Geometry geometry = header.geometry();
    var refcounts = new RefcountReader(file, header);
    long fixed = 0;
    for (long l1Entry : MappingTables.readL1(file, l1Offset, l1Entries)) {
      long host = L2Entry.host(l1Entry);
      if (host == 0 || !geometry.aligned(host) || host >= file.length() || refcounts.holds(host)) {
        continue;
      }
      ByteBuffer table = file.readAt(host, geometry.clusterSize());
      for (int i = 0; i < geometry.l2Entries(); i++) {
        int at = i * geometry.l2EntryBytes();
        long entry = table.getLong(at);
        long bitmap = geometry.extendedL2() ? table.getLong(at + 8) : 0;
        boolean data =
            geometry.extendedL2() ? Subclusters.data(bitmap) != 0 : (entry & L2Entry.ZERO) == 0;
        if ((entry & L2Entry.COMPRESSED) == 0 && !geometry.aligned(L2Entry.host(entry)) && !data) {
          find(
              "Repairing offset="
                  + Long.toHexString(L2Entry.host(entry))
                  + ": Preallocated cluster is not properly aligned; L2 entry corrupted.");
          ByteBuffer fresh = Header.bigEndian(geometry.l2EntryBytes());
          fresh.putLong(0, geometry.extendedL2() ? 0 : L2Entry.ZERO);
          if (geometry.extendedL2()) {
            fresh.putLong(8, bitmap & Subclusters.ALL_ZERO);
          }
          file.write(host + at, fresh);
          fixed++;
        }
      }
    }
    return fixed;
  }

  private void rebuildRefcounts() throws BlockException {
    Header header = Header.parse(file);
    Geometry geometry = header.geometry();
    var check = new ImageCheck(file, ImageCheck.Mode.LOOK, new ArrayList<>());
    ClusterCounts counts = check.counts();
    var fresh = new NewRefcounts(file, geometry);
    do {
      check.countWithoutRefcounts();
      for (long c = counts.nextTouched(counts.firstCluster());
          c >= 0 && c < counts.endCluster();
          c = counts.nextTouched(c + 1)) {
        if (counts.get(c) != 0) {
          fresh.need(c);
        }
      }
    } while (counts.next());
    fresh.place();
    counts.restart();
    var begun = new BitSet();
    do {
      check.countWithoutRefcounts();
      BitSet blocks = fresh.blocks();
      for (int i = blocks.nextSetBit(0); i >= 0; i = blocks.nextSetBit(i + 1)) {
        ByteBuffer block = fresh.block(i, begun.get(i));
        begun.set(i);
        enter(block, i, counts, geometry);
        fresh.writeBlock(i, block);
      }
    } while (counts.next());
    long tableOffset = fresh.writeTable();
    file.sync();
    new HeaderFields(file, header).writeRefcountTable(tableOffset, fresh.tableClusters());
    file.sync();
  }

  /// Enters what the window holds of a block.
  private static void enter(ByteBuffer block, int index, ClusterCounts counts, Geometry geometry) {
    int order = geometry.refcountOrder();
    long highest = Refcounts.highest(order);
    long first = (long) index << geometry.refcountBlockBits();
    long stop = Math.min(first + (1L << geometry.refcountBlockBits()), counts.endCluster());
    for (long c = counts.nextTouched(Math.max(first, counts.firstCluster()));
        c >= 0 && c < stop;
        c = counts.nextTouched(c + 1)) {
      if (counts.get(c) != 0) {
        Refcounts.set(block, (int) (c - first), order, Math.min(counts.get(c), highest));
      }
    }
  }
}
