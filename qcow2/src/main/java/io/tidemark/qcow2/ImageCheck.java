// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/// Counts every reference in an image and holds the counts against its refcounts, as `qemu-img
/// check` does; where it may, puts right what differs.
///
/// The file is looked at as it is: nothing is cached from before. Nothing is written unless a
/// [Mode] says so, and the guest's data never. Memory is bounded by [ClusterCounts]: the first walk
/// over the tables reports what is wrong with them and counts the first window of clusters; each
/// further window takes another walk. An image that lies about its sizes costs time, not memory.
///
/// Figures and lines are `qemu-img check`'s, of 7.2.
///
/// When refcounts are put right, on disk: counts, raised and lowered where they stand (a count that
/// is too high leaks, one that is too low was wrong before); sync; copied flags, which follow the
/// counts; sync. A power cut between leaves an image that is no worse.
///
/// Spec: qcow2.rst, all sections that name host clusters.
final class ImageCheck {
  /// What may be put right.
  record Mode(boolean leaks, boolean errors) {
    static final Mode LOOK = new Mode(false, false);
  }

  /// Told of each leaked cluster.
  interface Leaks {
    void leak(long cluster, long count, long references) throws BlockException;
  }

  private final HostFile file;
  private final Header header;
  private final Geometry geometry;
  private final SnapshotTable snapshots;
  private final Mode mode;
  private final RefcountReader refcounts;
  private final ClusterCounts counts;
  private final long fileClusters;
  private long clusters; // of the file, or one more where a reference passes its end by a part
  private boolean reporting = true;
  private boolean rebuild;

  private long checkErrors;
  private long corruptions;
  private long leaks;
  private long leaksFixed;
  private long corruptionsFixed;
  private long allocated;
  private long fragmented;
  private long compressed;
  private long highest;
  private final List<String> findings;

  /// A look at all of it, the table of snapshots included.
  ///
  /// @throws CorruptImageException when that table cannot be read: what snapshots hold would be
  ///   called leaked
  ImageCheck(HostFile file) throws BlockException {
    this(file, Mode.LOOK, new ArrayList<>(), snapshots(file), new ClusterCounts());
    for (int index : snapshots.incomplete(geometry.version())) {
      corrupt("ERROR snapshot table entry " + index + " is incomplete");
    }
  }

  /// @param findings takes the lines, up to the limit
  /// @param snapshots as they are on disk; not checked by itself
  ImageCheck(
      HostFile file,
      Mode mode,
      List<String> findings,
      SnapshotTable snapshots,
      ClusterCounts counts)
      throws BlockException {
    this.file = file;
    this.counts = counts;
    this.mode = mode;
    this.findings = findings;
    this.snapshots = snapshots;
    this.header = Header.parse(file);
    this.geometry = header.geometry();
    this.refcounts = new RefcountReader(file, header);
    this.fileClusters = geometry.clusters(file.length());
    this.clusters = fileClusters;
  }

  private static SnapshotTable snapshots(HostFile file) throws BlockException {
    try {
      return SnapshotTable.look(file, Header.parse(file));
    } catch (CorruptImageException | UnsupportedImageException e) {
      throw new CorruptImageException(
          e.getMessage()
              + "; not checked, because the clusters of snapshots would be taken for leaked",
          e);
    }
  }

  /// Whether refcounts cannot be put right where they stand: a block is not usable, or a cluster in
  /// use is not counted at all. Known after [#compareAll].
  boolean rebuild() {
    return rebuild;
  }

  long leaksFixed() {
    return leaksFixed;
  }

  long corruptionsFixed() {
    return corruptionsFixed;
  }

  long corruptions() {
    return corruptions;
  }

  long leaks() {
    return leaks;
  }

  CheckResult run() throws BlockException {
    return run((_, _, _) -> {});
  }

  CheckResult run(Leaks onLeak) throws BlockException {
    compareAll(onLeak);
    copiedFlags();
    return result();
  }

  CheckResult result() {
    return new CheckResult(
        checkErrors,
        corruptions,
        leaks,
        allocated,
        geometry.clusters((header.virtualSize() + 511) & ~511L),
        fragmented,
        compressed,
        (highest + 1) << geometry.clusterBits(),
        findings);
  }

  /// Walks over everything, and holds the counts against the refcounts; puts these right where the
  /// mode allows.
  void compareAll(Leaks onLeak) throws BlockException {
    do {
      countReferences();
      blocks();
      compare(onLeak);
      reporting = false;
    } while (counts.next());
  }

  private void corrupt(String line) {
    if (reporting) {
      corruptions++;
      find(line);
    }
  }

  private void find(String line) {
    if (findings.size() < CheckResult.MAX_FINDINGS) {
      findings.add(line);
    }
  }

  private static String hex(long value) {
    return Long.toHexString(value);
  }

  /// Counts a reference to every cluster that the host bytes touch.
  private void count(long offset, long bytes) {
    if (bytes <= 0) {
      return;
    }
    // The last cluster of a file may be cut short.
    if (offset < 0 || offset > file.length() - bytes + geometry.clusterSize() - 1) {
      corrupt(
          "ERROR: counting reference for region exceeding the end of the file by one cluster or"
              + " more: offset 0x"
              + hex(offset)
              + " size 0x"
              + hex(bytes));
      return;
    }
    long first = offset >>> geometry.clusterBits();
    long last = (offset + bytes - 1) >>> geometry.clusterBits();
    clusters = Math.max(clusters, last + 1);
    for (long cluster = first; cluster <= last; cluster++) {
      if (geometry.refcountOrder() < 5 && counts.get(cluster) == refcounts.highest()) {
        overflow(cluster);
      } else {
        counts.add(cluster, 1);
      }
    }
  }

  private void overflow(long cluster) {
    corruptions++;
    find("ERROR: overflow cluster offset=0x" + hex(cluster << geometry.clusterBits()));
    find(
        "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a"
            + " clean copy if the image cannot be opened for writing");
  }

  /// Counts all but refcount blocks into the window.
  private void countReferences() throws BlockException {
    countWithoutRefcounts();
    count(
        header.refcountTableOffset(),
        (long) header.refcountTableClusters() << geometry.clusterBits());
  }

  /// What a new refcount structure has to count, before itself.
  void countWithoutRefcounts() throws BlockException {
    count(0, geometry.clusterSize());
    tables(header.l1Offset(), header.l1Entries(), true);
    boolean dataFile = header.has(Feature.EXTERNAL_DATA_FILE);
    if (dataFile && !snapshots.entries().isEmpty()) {
      corrupt("ERROR " + snapshots.entries().size() + " snapshots in image with data file");
    }
    for (SnapshotTable.Entry snapshot : snapshots.entries()) {
      if (!geometry.aligned(snapshot.l1Offset())) {
        corruptSnapshot(
            snapshot,
            "l1_offset=0x" + hex(snapshot.l1Offset()) + ": L1 table is not cluster aligned");
      } else if (!snapshot.hasL1Entries()) {
        corruptSnapshot(
            snapshot,
            "l1_size=0x" + hex(snapshot.l1Entries() & 0xffff_ffffL) + ": L1 table is too large");
      } else if (snapshot.l1Offset() < 0 || snapshot.l1Offset() >= file.length()) {
        count(snapshot.l1Offset(), 8L * snapshot.l1Entries()); // says where it lies
      } else {
        tables(snapshot.l1Offset(), snapshot.l1Entries(), false);
      }
    }
    count(header.snapshotsOffset(), snapshots.bytes());
    bitmaps();
  }

  private void corruptSnapshot(SnapshotTable.Entry entry, String what) {
    InternalSnapshot snapshot = entry.snapshot();
    corrupt(
        "ERROR snapshot "
            + snapshot.id()
            + " ("
            + snapshot.name()
            + ") "
            + what
            + "; snapshot table entry corrupted");
  }

  ClusterCounts counts() {
    return counts;
  }

  private void tables(long l1Offset, int l1Entries, boolean active) throws BlockException {
    count(l1Offset, 8L * l1Entries);
    long[] l1 = L1Table.read(file, l1Offset, l1Entries);
    long tables = 0;
    for (long entry : l1) {
      if (entry == 0) {
        continue;
      }
      if (++tables > fileClusters) {
        corrupt("ERROR L1 table at 0x" + hex(l1Offset) + " names more tables than the file holds");
        return;
      }
      if ((entry & L2Entry.L1_RESERVED) != 0) {
        corrupt("ERROR found L1 entry with reserved bits set: " + hex(entry));
      }
      long table = L2Entry.host(entry);
      count(table, geometry.clusterSize());
      if (!geometry.aligned(table)) {
        corrupt(
            "ERROR l2_offset=" + hex(table) + ": Table is not cluster aligned; L1 entry corrupted");
      }
      if (table < file.length()) {
        entries(file.readAt(table, geometry.clusterSize()), active);
      }
    }
  }

  private void entries(ByteBuffer raw, boolean active) {
    long expected = 0;
    for (int i = 0; i < geometry.l2Entries(); i++) {
      long entry = raw.getLong(i * geometry.l2EntryBytes());
      long bitmap = geometry.extendedL2() ? raw.getLong(i * 16 + 8) : 0;
      if ((entry | bitmap) == 0) {
        continue;
      }
      if ((entry & L2Entry.COMPRESSED) != 0) {
        compressed(i, entry, bitmap, active);
        continue;
      }
      if ((entry & L2Entry.L2_RESERVED) != 0) {
        corrupt("ERROR found l2 entry with reserved bits set: " + hex(entry));
      }
      long host = L2Entry.host(entry);
      if (host == 0 && !placedAtZero(entry)) {
        if (Subclusters.data(bitmap) != 0) {
          corrupt("ERROR: Unallocated cluster has non-zero subcluster allocation map");
        }
        continue;
      }
      if ((Subclusters.data(bitmap) & Subclusters.zero(bitmap)) != 0) {
        corrupt(
            "ERROR offset="
                + hex(host)
                + ": Allocated cluster has corrupted subcluster allocation bitmap");
      }
      if (!geometry.aligned(host)) {
        corrupt(
            "ERROR offset="
                + hex(host)
                + (holdsData(entry, bitmap) ? ": Data cluster" : ": Preallocated cluster")
                + " is not properly aligned; L2 entry corrupted.");
      }
      if (active && reporting) {
        allocated++;
        if (expected != 0 && host != expected) {
          fragmented++;
        }
        expected = host + geometry.clusterSize();
      }
      if (!header.has(Feature.EXTERNAL_DATA_FILE)) {
        count(host, geometry.clusterSize());
      }
    }
  }

  /// In an external data file offset 0 is a place as any other; the copied flag says so.
  private boolean placedAtZero(long entry) {
    return header.has(Feature.EXTERNAL_DATA_FILE) && (entry & L2Entry.COPIED) != 0;
  }

  private boolean holdsData(long entry, long bitmap) {
    return geometry.extendedL2() ? Subclusters.data(bitmap) != 0 : (entry & L2Entry.ZERO) == 0;
  }

  private void compressed(int index, long entry, long bitmap, boolean active) {
    long offset = L2Entry.compressedOffset(entry, geometry);
    if ((entry & L2Entry.COPIED) != 0) {
      corrupt(
          "ERROR: coffset=0x"
              + hex(offset)
              + ": copied flag must never be set for compressed clusters");
    }
    if (header.has(Feature.EXTERNAL_DATA_FILE)) {
      corrupt("ERROR compressed cluster " + index + " with data file, entry=0x" + hex(entry));
      return;
    }
    if (bitmap != 0) {
      corrupt(
          "ERROR compressed cluster "
              + index
              + " with non-zero subcluster allocation bitmap, entry=0x"
              + hex(entry));
      return;
    }
    count(offset, L2Entry.compressedLength(entry, geometry));
    if (active && reporting) {
      allocated++;
      compressed++;
      fragmented++;
    }
  }

  private void bitmaps() {
    BitmapDirectory directory;
    try {
      directory = BitmapDirectory.read(file, header);
    } catch (BlockException e) {
      if (reporting) {
        checkErrors++;
        corruptions++;
        find("ERROR " + e.getMessage());
      }
      return;
    }
    count(directory.offset(), directory.bytes());
    for (BitmapDirectory.Entry entry : directory.entries()) {
      count(entry.tableOffset(), 8L * entry.tableEntries());
      try {
        for (long offset : BitmapDirectory.table(file, geometry, entry)) {
          if ((offset & L2Entry.OFFSET) != 0) {
            count(offset, geometry.clusterSize());
          }
        }
      } catch (BlockException e) {
        corrupt("ERROR " + e.getMessage());
      }
    }
  }

  private void blocks() {
    for (int i = 0; i < refcounts.blocks(); i++) {
      long entry = refcounts.entry(i);
      long offset = refcounts.block(i);
      if ((entry & RefcountReader.RESERVED) != 0) {
        corrupt("ERROR refcount table entry " + i + " has reserved bits set");
        rebuild = true;
      } else if (!geometry.aligned(offset)) {
        corrupt(
            "ERROR refcount block "
                + i
                + " is not cluster aligned; refcount table entry corrupted");
        rebuild = true;
      } else if (offset < 0 || offset >>> geometry.clusterBits() >= clusters) {
        corrupt("ERROR refcount block " + i + " is outside image");
        rebuild = true;
      } else if (offset != 0) {
        block(i, offset);
      }
    }
  }

  private void block(int index, long offset) {
    long cluster = offset >>> geometry.clusterBits();
    count(offset, geometry.clusterSize());
    boolean inWindow = cluster >= counts.firstCluster() && cluster < counts.endCluster();
    if (inWindow && counts.get(cluster) != 1) {
      corruptions++;
      find("ERROR refcount block " + index + " refcount=" + counts.get(cluster));
      rebuild = true;
    }
  }

  private void compare(Leaks onLeak) throws BlockException {
    long end = Math.min(clusters, counts.endCluster());
    for (long cluster = counts.firstCluster(); cluster < end; ) {
      long blockEnd = Math.min(refcounts.endOfBlock(cluster), end);
      if (refcounts.empty(cluster)) {
        // No block: all counts are 0, and only what is referred to matters.
        for (long c = counts.nextTouched(cluster);
            c >= 0 && c < blockEnd;
            c = counts.nextTouched(c + 1)) {
          compare(c, 0, counts.get(c), onLeak);
        }
      } else {
        for (long c = cluster; c < blockEnd; c++) {
          long count = refcounts.get(c);
          if (refcounts.unreadable(c, count)) {
            checkErrors++;
            find("Can't get refcount for cluster " + c + ": Input/output error");
          } else {
            compare(c, count, counts.get(c), onLeak);
          }
        }
        refcounts.writeChanged();
      }
      cluster = blockEnd;
    }
  }

  private void compare(long cluster, long count, long references, Leaks onLeak)
      throws BlockException {
    if (count != 0 || references != 0) {
      highest = Math.max(highest, cluster);
    }
    if (Long.compareUnsigned(count, references) == 0) {
      return;
    }
    boolean low = Long.compareUnsigned(count, references) < 0;
    boolean fix = count != 0 && (low ? mode.errors() : mode.leaks());
    rebuild |= count == 0;
    find(
        (fix ? "Repairing" : low ? "ERROR" : "Leaked")
            + " cluster "
            + cluster
            + " refcount="
            + Long.toUnsignedString(count)
            + " reference="
            + references);
    if (fix) {
      refcounts.set(cluster, references);
    }
    if (low) {
      corruptions += fix ? 0 : 1;
      corruptionsFixed += fix ? 1 : 0;
    } else {
      leaks += fix ? 0 : 1;
      leaksFixed += fix ? 1 : 0;
      onLeak.leak(cluster, count, references);
    }
  }

  /// Spec: the copied flag is set exactly where the refcount is 1, in tables reachable from the
  /// active L1 table.
  void copiedFlags() throws BlockException {
    boolean fix =
        mode.errors() || (mode.leaks() && checkErrors == 0 && corruptions == 0 && leaks == 0);
    if (fix) {
      file.sync();
    }
    long[] l1 = L1Table.read(file, header.l1Offset(), header.l1Entries());
    for (int i = 0; i < l1.length; i++) {
      long host = L2Entry.host(l1[i]);
      if (host == 0) {
        continue;
      }
      long count = refcounts.get(host >>> geometry.clusterBits());
      if (refcounts.unreadable(host >>> geometry.clusterBits(), count)) {
        continue;
      }
      if ((count == 1) != ((l1[i] & L2Entry.COPIED) != 0)) {
        copied("L2 cluster: l1_index=" + i + " l1_entry=" + hex(l1[i]), count, fix);
        if (fix) {
          ByteBuffer raw = Header.bigEndian(8).putLong(0, l1[i] ^ L2Entry.COPIED);
          file.write(header.l1Offset() + 8L * i, raw);
        }
      }
      if (host < file.length()) {
        copiedFlags(host, fix);
      }
    }
  }

  private void copied(String what, long count, boolean fix) {
    find(
        (fix ? "Repairing" : "ERROR")
            + " OFLAG_COPIED "
            + what
            + " refcount="
            + Long.toUnsignedString(count));
    corruptions += fix ? 0 : 1;
    corruptionsFixed += fix ? 1 : 0;
  }

  private void copiedFlags(long host, boolean fix) throws BlockException {
    ByteBuffer table = file.readAt(host, geometry.clusterSize());
    boolean writable = fix && geometry.aligned(host) && !refcounts.holds(host);
    boolean changed = false;
    for (int i = 0; i < geometry.l2Entries(); i++) {
      int at = i * geometry.l2EntryBytes();
      long entry = table.getLong(at);
      if ((entry & L2Entry.COMPRESSED) != 0 || (L2Entry.host(entry) == 0 && !placedAtZero(entry))) {
        continue;
      }
      long cluster = L2Entry.host(entry) >>> geometry.clusterBits();
      boolean external = header.has(Feature.EXTERNAL_DATA_FILE);
      long count = external ? 1 : refcounts.get(cluster);
      boolean known = external || !refcounts.unreadable(cluster, count);
      if (known && (count == 1) != ((entry & L2Entry.COPIED) != 0)) {
        copied("data cluster: l2_entry=" + hex(entry), count, writable);
        table.putLong(at, entry ^ L2Entry.COPIED);
        changed = true;
      }
    }
    if (changed && writable) {
      file.write(host, table);
    } else if (changed && fix) {
      checkErrors++;
      find("ERROR: Could not write L2 table; metadata overlap check failed: Input/output error");
    }
  }
}
