// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.NavigableMap;
import java.util.TreeMap;

/// Puts right what a check finds in an image that nobody else uses, as `qemu-img check -r` does.
///
/// On disk, synced between:
/// 1. [Repair#ALL]: snapshots that go past the limits of their table are no longer counted in the
///    header ([SnapshotTableRepair]).
/// 2. [Repair#ALL]: entries of zero clusters whose place is not aligned lose that place.
/// 3. Where refcounts can be changed where they stand: that ([ImageCheck]). Else all of them anew:
///    blocks and table for what the tables refer to are written behind the end of the file; sync;
///    12 bytes of the header lead to them. The old ones are then neither counted nor named. *Power
///    cut before the header: the image as it was, and a longer file.*
/// 4. [Repair#ALL]: entries of the snapshot table that are too long or too short, in a new table;
///    then the counts of the old one go down, as in step 3.
/// 5. Copied flags.
/// 6. When a second check finds it sound: the dirty and the corrupt bit go.
///
/// The guest's data is not touched, and no cluster with a reference is freed.
final class ImageRepair {
  private final HostFile file;
  private final Repair what;
  private final ImageCheck.Mode mode;
  private final List<String> findings = new ArrayList<>();

  ImageRepair(HostFile file, Repair what) {
    this.file = file;
    this.what = what;
    this.mode = new ImageCheck.Mode(true, what == Repair.ALL);
  }

  RepairResult run() throws BlockException {
    var snapshots = new SnapshotTableRepair(file, what);
    long corruptionsFixed = snapshots.begin(what, this::find);
    if (what == Repair.ALL) {
      corruptionsFixed += dropMisplacedZeroes(snapshots.table());
    }
    ImageCheck look = check(ImageCheck.Mode.LOOK, findings, snapshots.table());
    look.compareAll((_, _, _) -> {});
    if (look.rebuild() && what != Repair.ALL) {
      find("ERROR need to rebuild refcount structures");
      return new RepairResult(0, 0, findings, withError(new ImageCheck(file).run()));
    }
    var given = new ArrayList<String>();
    if (look.rebuild()) {
      find("Rebuilding refcount structure");
      rebuildRefcounts(snapshots.table(), given);
    }
    var lines = new ArrayList<String>();
    ImageCheck fixing = check(mode, lines, snapshots.table());
    fixing.compareAll((_, _, _) -> {});
    lines.addAll(given);
    long leaksFixed = fixing.leaksFixed();
    if (look.rebuild()) {
      leaksFixed = Math.max(0, look.leaks() - fixing.leaks());
      corruptionsFixed += Math.max(0, look.corruptions() - fixing.corruptions());
    }
    file.sync();
    ImageCheck flags = fixing;
    long entriesFixed = snapshots.end();
    if (entriesFixed > 0) {
      corruptionsFixed += entriesFixed + fixing.corruptionsFixed();
      SnapshotTable table = SnapshotTable.read(file, Header.parse(file));
      check(mode, new ArrayList<>(), table).compareAll((_, _, _) -> {}); // the old one was leaked
      flags = check(mode, lines, table);
    }
    flags.copiedFlags();
    corruptionsFixed += flags.corruptionsFixed();
    if (look.rebuild()) {
      lines.forEach(this::find);
    } else {
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

  private ImageCheck check(ImageCheck.Mode how, List<String> lines, SnapshotTable snapshots)
      throws BlockException {
    return new ImageCheck(file, how, lines, snapshots, new ClusterCounts());
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
  private long dropMisplacedZeroes(SnapshotTable snapshots) throws BlockException {
    Header header = Header.parse(file);
    long fixed = dropMisplacedZeroes(header, header.l1Offset(), header.l1Entries());
    for (SnapshotTable.Entry entry : snapshots.entries()) {
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
    for (long l1Entry : L1Table.read(file, l1Offset, l1Entries)) {
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

  /// @param given takes a line for each cluster that the old structure lay in
  private void rebuildRefcounts(SnapshotTable snapshots, List<String> given) throws BlockException {
    Header header = Header.parse(file);
    Geometry geometry = header.geometry();
    NavigableMap<Long, Integer> old = refcountClusters(header);
    ImageCheck check = check(ImageCheck.Mode.LOOK, new ArrayList<>(), snapshots);
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
      old.subMap(counts.firstCluster(), counts.endCluster())
          .forEach((cluster, times) -> given.add(gaveBack(cluster, times, counts.get(cluster))));
    } while (counts.next());
    long tableOffset = fresh.writeTable();
    file.sync();
    new HeaderFields(file, header).writeRefcountTable(tableOffset, fresh.tableClusters());
    file.sync();
  }

  private static String gaveBack(long cluster, int times, int references) {
    return "Repairing cluster "
        + cluster
        + " refcount="
        + (references + (long) times)
        + " reference="
        + references;
  }

  /// How often the refcount structure names each of its clusters, as far as it is usable.
  private NavigableMap<Long, Integer> refcountClusters(Header header) throws BlockException {
    Geometry geometry = header.geometry();
    var found = new TreeMap<Long, Integer>();
    long table = header.refcountTableOffset() >>> geometry.clusterBits();
    for (int i = 0; i < header.refcountTableClusters(); i++) {
      found.merge(table + i, 1, Integer::sum);
    }
    for (long block : Refcounts.readTable(file, header)) {
      if (block > 0 && geometry.aligned(block) && block < file.length()) {
        found.merge(block >>> geometry.clusterBits(), 1, Integer::sum);
      }
    }
    return found;
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
