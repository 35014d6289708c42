// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;

/// One change of what an image's snapshots and its active disk hold: all of it, or nothing.
///
/// A snapshot shares clusters with the disk, and each sharing shows in two places far apart: the
/// cluster's refcount, and the copied flag of the entry that names it. Changed one after the other,
/// a power cut between them leaves a contradiction that a check reports. So nothing that is in use
/// is changed. Whatever must differ is written anew, with the counts it is to have, and one write
/// inside the header's first sector leads to all of it: L1 table, refcount table, snapshot table
/// and virtual size lie side by side in bytes 24 to 71.
///
/// On disk, in this order:
/// 1. Clusters for new L2 tables, the L1 table, refcount blocks, the refcount table and the
///    snapshot table are taken, counted once, and written. *Power cut: leaked.*
/// 2. Sync.
/// 3. The header's roots. Sync. *Power cut: the state before, or the one after with the tables it
///    no longer needs leaked.*
/// 4. The tables that nothing needs any more are given back by the caller ([#replaced]).
///
/// Clusters of the disk whose last reference went have count 0 in the new refcount blocks: they are
/// free with step 3. Only blocks that count a changed cluster are new.
///
/// The caller keeps everyone else out: no request runs, all metadata is in the file, and nobody
/// else changes counts. Memory: [ClusterCounts]; where the changed clusters do not fit, the trees
/// are gone over several times.
///
/// Rejected: what QEMU does, counts and flags in place; its power cut leaves "OFLAG_COPIED" errors,
/// harmless, but for a person who runs a check they look like any corruption.
///
/// Spec: qcow2.rst, "Snapshots", "Host cluster management".
final class SnapshotChange {
  /// Freed runs that are punched out of the file; more stay allocated on the host until reused.
  private static final int MAX_PUNCHED = 1 << 20;

  /// What every entry of an L1 table and its L2 tables names gets one reference more, or less.
  private static final class Tree {
    private final long[] l1;
    private final int delta;

    Tree(long[] l1, int delta) {
      this.l1 = l1;
      this.delta = delta;
    }
  }

  private final HostFile file;
  private final HeaderFields header;
  private final Geometry geometry;
  private final Allocator allocator;
  private final Refcounts refcounts;
  private final TableWalk walk;

  private final List<Tree> trees = new ArrayList<>();
  private final BitSet ownTables = new BitSet(); // L2 tables of a created snapshot that stay as is
  private final BitSet rewritten = new BitSet(); // L2 tables of the disk that have a new place
  private final ClusterCounts deltas = new ClusterCounts();
  private final BitSet blocks = new BitSet(); // refcount blocks that count a changed cluster
  private final List<Long> taken = new ArrayList<>(); // to give back when it fails
  private final List<Freed> replaced = new ArrayList<>();
  private final List<Freed> freed = new ArrayList<>();
  private long[] blockPlaces = {}; // new places, in the order of `blocks`

  SnapshotChange(HostFile file, HeaderFields header, Allocator allocator) {
    this.file = file;
    this.header = header;
    this.geometry = header.now().geometry();
    this.allocator = allocator;
    this.refcounts = allocator.refcounts();
    this.walk = new TableWalk(file, header.now());
  }

  /// Clusters of tables that nothing names after the change; counted once each.
  List<Freed> replaced() {
    return replaced;
  }

  /// Clusters that are free after the change, for punching; perhaps not all.
  List<Freed> freed() {
    return freed;
  }

  @FunctionalInterface
  private interface Steps {
    void run() throws BlockException;
  }

  /// Gives back what was taken when a step before the commit fails.
  private void orGiveBack(Steps steps) throws BlockException {
    try {
      steps.run();
    } catch (BlockException | RuntimeException e) {
      try {
        for (long cluster : taken) {
          allocator.release(cluster, 1);
        }
      } catch (BlockException left) {
        e.addSuppressed(left); // counts that stay are leaks
      }
      throw e;
    }
  }

  private long[] activeL1() throws BlockException {
    Header now = header.now();
    return L1Table.read(file, now.l1Offset(), now.l1Entries());
  }

  private void replaceTable(long offset, long bytes) {
    if (bytes > 0) {
      replaced.add(new Freed(offset >>> geometry.clusterBits(), geometry.clusters(bytes)));
    }
  }

  /// The active L1 table and its L2 tables become the snapshot's. The disk gets L2 tables of its
  /// own, in which no entry has the copied flag; those without any flag are shared instead.
  ///
  /// @param entries the table's, with the new one last; its L1 table is the active one
  void create(List<SnapshotTable.Entry> entries) throws BlockException {
    long[] l1 = activeL1();
    trees.add(new Tree(l1, 1));
    long[] fresh = new long[l1.length];
    orGiveBack(() -> {
      walk.tables(
          l1,
          (i, entry, table) -> {
            if (clearCopied(table)) {
              fresh[i] = writeTable(table) | L2Entry.COPIED;
              ownTables.set(i);
            } else {
              fresh[i] = L2Entry.host(entry);
            }
          });
      count();
      commit(fresh, header.now().virtualSize(), entries, false);
    });
  }

  /// @param gone its L1 table and what only it names go
  /// @param entries the table's that stay
  void delete(SnapshotTable.Entry gone, List<SnapshotTable.Entry> entries) throws BlockException {
    long[] l1 = L1Table.read(file, gone.l1Offset(), gone.l1Entries());
    trees.add(new Tree(l1, -1));
    replaceTable(gone.l1Offset(), 8L * gone.l1Entries());
    long[] fresh = activeL1();
    orGiveBack(() -> {
      do {
        count();
        ownAgain(fresh);
      } while (deltas.next());
      commit(fresh, header.now().virtualSize(), entries, true);
    });
  }

  /// The disk names the snapshot's L2 tables, and shares all of it.
  ///
  /// @param virtualSize of the disk then
  void apply(SnapshotTable.Entry entry, long virtualSize, List<SnapshotTable.Entry> entries)
      throws BlockException {
    long[] l1 = L1Table.read(file, entry.l1Offset(), entry.l1Entries());
    trees.add(new Tree(activeL1(), -1));
    trees.add(new Tree(l1, 1));
    long wanted = Math.max(l1.length, geometry.l1EntriesFor(virtualSize));
    if (virtualSize < 0 || wanted > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          file.name()
              + ": snapshot of a disk of "
              + Long.toUnsignedString(virtualSize)
              + " bytes needs an L1 table of "
              + wanted
              + " entries, at most "
              + Geometry.MAX_L1_BYTES / 8
              + " are handled");
    }
    long[] fresh = new long[(int) wanted];
    orGiveBack(() -> {
      // Flags in a table that the disk does not name mean nothing: they may change in place.
      walk.tables(
          l1,
          (i, l1Entry, table) -> {
            fresh[i] = L2Entry.host(l1Entry);
            if (clearCopied(table)) {
              file.write(L2Entry.host(l1Entry), table);
            }
          });
      count();
      commit(fresh, virtualSize, entries, true);
    });
  }

  private boolean clearCopied(ByteBuffer table) {
    boolean found = false;
    for (int at = 0; at < table.limit(); at += walk.entryBytes()) {
      long entry = table.getLong(at);
      if ((entry & L2Entry.COPIED) != 0) {
        table.putLong(at, entry & ~L2Entry.COPIED);
        found = true;
      }
    }
    return found;
  }

  /// Writes an L2 table to a cluster of its own; returns its host offset.
  private long writeTable(ByteBuffer table) throws BlockException {
    long offset = takeCluster() << geometry.clusterBits();
    file.write(offset, table.rewind());
    return offset;
  }

  private long takeCluster() throws BlockException {
    long cluster = allocator.take(1).first();
    taken.add(cluster);
    return cluster;
  }

  private long takeTable(long bytes) throws BlockException {
    if (bytes == 0) {
      return 0;
    }
    long clusters = geometry.clusters(bytes);
    long offset = allocator.takeTable(clusters);
    for (long c = 0; c < clusters; c++) {
      taken.add((offset >>> geometry.clusterBits()) + c);
    }
    return offset;
  }

  /// Counts what the trees add and take in the window.
  private void count() throws BlockException {
    for (Tree tree : trees) {
      walk.tables(
          tree.l1,
          (i, entry, table) -> {
            // A created snapshot takes over the disk's own tables: their count stays.
            if (!ownTables.get(i)) {
              add(L2Entry.host(entry) >>> geometry.clusterBits(), 1, tree.delta);
            }
            walk.references(i, table, (first, count) -> add(first, count, tree.delta));
          });
    }
  }

  private void add(long first, long count, int delta) throws BlockException {
    for (long cluster = first; cluster < first + count; cluster++) {
      if (!refcounts.counted(cluster)) {
        throw new CorruptImageException(
            file.name() + ": cluster " + cluster + " is in use and not counted; check the image");
      }
      blocks.set((int) (cluster >>> geometry.refcountBlockBits()));
      deltas.add(cluster, delta);
    }
  }

  /// Sets the copied flag in the disk's tables where a snapshot's end left the disk alone with a
  /// cluster. A table that changes is written anew, and shares nothing: its clusters would not be
  /// the disk's alone if it did.
  private void ownAgain(long[] l1) throws BlockException {
    walk.tables(
        l1.clone(),
        (i, l1Entry, table) -> {
          boolean changed = false;
          for (int at = 0; at < table.limit(); at += walk.entryBytes()) {
            long entry = table.getLong(at);
            if (L2Entry.placed(entry) && becomesOwn(L2Entry.host(entry))) {
              table.putLong(at, entry | L2Entry.COPIED);
              changed = true;
            }
          }
          long host = L2Entry.host(l1Entry);
          if (changed && rewritten.get(i)) {
            file.write(host, table.rewind()); // nothing names it yet
          } else if (changed) {
            rewritten.set(i);
            replaceTable(host, geometry.clusterSize());
            l1[i] = writeTable(table) | L2Entry.COPIED;
          } else if (becomesOwn(host)) {
            l1[i] = host | L2Entry.COPIED;
          }
        });
  }

  private boolean becomesOwn(long host) throws BlockException {
    long cluster = host >>> geometry.clusterBits();
    int delta = deltas.get(cluster);
    return delta != 0 && refcounts.get(cluster) + delta == 1;
  }

  private long tableBytes() {
    return (long) refcounts.tableClusters() << geometry.clusterBits();
  }

  /// Writes the new refcount blocks: the old ones' counts, and what the trees change.
  private void writeBlocks() throws BlockException {
    boolean counted = deltas.complete();
    if (!counted) {
      deltas.restart();
    }
    var begun = new BitSet();
    do {
      if (!counted) {
        count();
      }
      int place = 0;
      for (int i = blocks.nextSetBit(0); i >= 0; i = blocks.nextSetBit(i + 1)) {
        writeBlock(i, blockPlaces[place], begun);
        place++;
      }
    } while (deltas.next());
  }

  /// Writes as much of a block as lies in the window.
  private void writeBlock(int index, long place, BitSet begun) throws BlockException {
    long first = (long) index << geometry.refcountBlockBits();
    long end = Math.min(first + (1L << geometry.refcountBlockBits()), deltas.endCluster());
    long from = Math.max(first, deltas.firstCluster());
    if (from >= end) {
      return;
    }
    ByteBuffer block =
        begun.get(index) ? file.readAt(place, geometry.clusterSize()) : refcounts.blockCopy(index);
    begun.set(index);
    for (long c = deltas.nextTouched(from); c >= 0 && c < end; c = deltas.nextTouched(c + 1)) {
      int delta = deltas.get(c);
      if (delta != 0) {
        change(block, c, (int) (c - first), delta);
      }
    }
    file.write(place, block.rewind());
  }

  private void change(ByteBuffer block, long cluster, int index, int delta) throws BlockException {
    long old = Refcounts.value(block, index, geometry.refcountOrder());
    // A 64-bit count may pass 2^63 and then looks negative here.
    if (old == 0 || (old > 0 && old + delta < 0)) {
      throw new CorruptImageException(
          file.name()
              + ": refcount of cluster "
              + cluster
              + " is "
              + old
              + ", fewer than its references; check the image");
    }
    if (delta > 0 && (old < 0 || old > refcounts.highest() - delta)) {
      throw new UnsupportedImageException(
          file.name()
              + ": refcount of cluster "
              + cluster
              + " would pass "
              + refcounts.highest()
              + ", the most that "
              + (1 << geometry.refcountOrder())
              + " bits hold");
    }
    Refcounts.set(block, index, geometry.refcountOrder(), old + delta);
    if (old + delta == 0) {
      free(cluster);
    }
  }

  private void free(long cluster) {
    if (!freed.isEmpty()) {
      Freed last = freed.getLast();
      if (last.first() + last.count() == cluster) {
        freed.set(freed.size() - 1, new Freed(last.first(), last.count() + 1));
        return;
      }
    }
    if (freed.size() < MAX_PUNCHED) {
      freed.add(new Freed(cluster, 1));
    }
  }

  private void writeRefcountTable(long offset) throws BlockException {
    long[] table = refcounts.table();
    int place = 0;
    for (int i = blocks.nextSetBit(0); i >= 0; i = blocks.nextSetBit(i + 1)) {
      replaceTable(table[i], geometry.clusterSize());
      table[i] = blockPlaces[place];
      place++;
    }
    ByteBuffer raw = Header.bigEndian(table.length * 8);
    raw.asLongBuffer().put(table);
    file.write(offset, raw);
  }

  /// Writes what is new and leads the header to it.
  private void commit(
      long[] l1, long virtualSize, List<SnapshotTable.Entry> entries, boolean dropL1)
      throws BlockException {
    ByteBuffer table = SnapshotTable.write(file, entries);
    final long snapshotsOffset = takeTable(table.limit());
    final long l1Offset = takeTable(8L * l1.length);
    blockPlaces = new long[blocks.cardinality()];
    for (int i = 0; i < blockPlaces.length; i++) {
      blockPlaces[i] = takeCluster() << geometry.clusterBits();
    }
    long tableOffset;
    long tableBytes;
    while (true) {
      tableBytes = tableBytes();
      tableOffset = takeTable(tableBytes);
      if (tableBytes == tableBytes()) {
        break;
      }
      replaceTable(tableOffset, tableBytes); // the table grew to count its own copy
    }
    final long refcountOffset = tableOffset;
    allocator.close(); // what was counted ahead is given back before counts are copied
    file.write(snapshotsOffset, table);
    L1Table.write(file, l1Offset, l1);
    writeBlocks();
    writeRefcountTable(refcountOffset);
    file.sync();
    Header now = header.now();
    replaceTable(now.snapshotsOffset(), SnapshotTable.read(file, now).bytes());
    replaceTable(now.refcountTableOffset(), tableBytes);
    if (dropL1) {
      replaceTable(now.l1Offset(), 8L * now.l1Entries());
    }
    taken.clear(); // from here on the header may name them
    try {
      header.writeRoots(
          new HeaderFields.Roots(
              virtualSize,
              l1Offset,
              l1.length,
              refcountOffset,
              refcounts.tableClusters(),
              entries.size(),
              snapshotsOffset));
      file.sync();
    } catch (BlockException e) {
      file.fail(new TransportException(file.name() + ": its header may be old or new", e));
      throw e;
    }
  }
}
