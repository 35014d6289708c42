// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;

/// Counts every reference in an image and holds the counts against its refcounts.
///
/// The file is looked at as it is: nothing is cached from before, nothing is written. Memory is
/// bounded by going over host clusters in windows of [#WINDOW]: the first walk reports what is
/// wrong with the tables and counts the first window; each further window with something in it
/// takes another walk.
///
/// Counts and their meaning are `qemu-img check`'s.
final class ImageCheck {
  /// Host clusters counted at a time: 16 MiB of counts.
  static final int WINDOW = 4 << 20;

  /// Windows in one check. Each takes a walk over all tables, and only windows with something in
  /// them are looked at.
  static final int MAX_WINDOWS = 4096;

  /// Told of each leaked cluster.
  interface Leaks {
    void leak(long cluster, long count, long references) throws BlockException;
  }

  private final HostFile file;
  private final Header header;
  private final Geometry geometry;
  private final SnapshotTable snapshots;
  private final Refcounts refcounts;
  private final long fileClusters;
  private final int[] counts;
  private final TreeSet<Long> windows = new TreeSet<>();
  private long window;
  private boolean reporting = true;

  private long checkErrors;
  private long corruptions;
  private long leaks;
  private long allocated;
  private long fragmented;
  private long compressed;
  private long highest = -1;
  private final List<String> findings = new ArrayList<>();

  ImageCheck(HostFile file, SnapshotTable snapshots) throws BlockException {
    this.file = file;
    this.header = Header.parse(file);
    this.geometry = header.geometry();
    this.snapshots = snapshots;
    this.refcounts = new Refcounts(file, header, new MetadataClusters(new long[0]));
    this.fileClusters = geometry.clusters(file.length());
    long[] table = refcounts.table();
    long counted = fileClusters;
    for (int i = 0; i < table.length; i++) {
      if (table[i] != 0) {
        long first = (long) i << geometry.refcountBlockBits();
        for (long w = first / WINDOW;
            w <= (first + (1L << geometry.refcountBlockBits()) - 1) / WINDOW;
            w++) {
          windows.add(w);
        }
        counted = Math.max(counted, first + (1L << geometry.refcountBlockBits()));
      }
    }
    this.counts = new int[(int) Math.min(WINDOW, counted)];
  }

  CheckResult run(Leaks onLeak) throws BlockException {
    walk();
    compare(onLeak);
    reporting = false;
    if (windows.size() > MAX_WINDOWS) {
      throw new UnsupportedImageException(
          file.name()
              + ": used clusters lie in "
              + windows.size()
              + " places too far apart, at most "
              + MAX_WINDOWS
              + " are checked");
    }
    for (long next : windows) {
      if (next != 0) {
        window = next;
        Arrays.fill(counts, 0);
        walk();
        compare(onLeak);
      }
    }
    return new CheckResult(
        checkErrors,
        corruptions,
        leaks,
        allocated,
        geometry.clusters(header.virtualSize()),
        fragmented,
        compressed,
        (highest + 1) << geometry.clusterBits(),
        findings);
  }

  private void corrupt(String what) {
    if (reporting) {
      corruptions++;
      find(what);
    }
  }

  private void find(String what) {
    if (findings.size() < CheckResult.MAX_FINDINGS) {
      findings.add(what);
    }
  }

  /// Counts a reference to every cluster that the host bytes touch.
  private void count(long offset, long bytes, String who) {
    if (bytes == 0) {
      return;
    }
    long first = offset >>> geometry.clusterBits();
    long last = (offset + bytes - 1) >>> geometry.clusterBits();
    if (last >= fileClusters) {
      corrupt(who + " at 0x" + Long.toHexString(offset) + " passes the end of the file");
      return;
    }
    for (long cluster = first; cluster <= last; cluster++) {
      if (reporting) {
        windows.add(cluster / WINDOW);
      }
      if (cluster / WINDOW == window) {
        counts[(int) (cluster % WINDOW)]++;
      }
    }
  }

  private void walk() throws BlockException {
    count(0, geometry.clusterSize(), "header");
    tables(header.l1Offset(), header.l1Entries(), true);
    for (SnapshotTable.Entry snapshot : snapshots.entries()) {
      tables(snapshot.l1Offset(), snapshot.l1Entries(), false);
    }
    count(header.snapshotsOffset(), snapshots.bytes(), "snapshot table");
    count(
        header.refcountTableOffset(),
        (long) header.refcountTableClusters() << geometry.clusterBits(),
        "refcount table");
    blocks();
    bitmaps();
  }

  private void blocks() {
    long[] table = refcounts.table();
    for (int i = 0; i < table.length; i++) {
      if (table[i] == 0) {
        continue;
      }
      if (!geometry.aligned(table[i]) || table[i] < 0) {
        corrupt("refcount block " + i + " at 0x" + Long.toHexString(table[i]) + " is not aligned");
      } else {
        count(table[i], geometry.clusterSize(), "refcount block " + i);
        checkOwnCount(i, table[i]);
      }
    }
  }

  private void checkOwnCount(int index, long block) {
    if (!reporting) {
      return;
    }
    try {
      long own = refcounts.get(block >>> geometry.clusterBits());
      if (own != 1) {
        corrupt("refcount block " + index + " has refcount " + own + ", wanted 1");
      }
    } catch (BlockException _) {
      // Safe because comparing reports every cluster whose count cannot be read.
    }
  }

  private void tables(long l1Offset, int l1Entries, boolean active) throws BlockException {
    count(l1Offset, 8L * l1Entries, "L1 table");
    long[] l1 = MappingTables.readL1(file, l1Offset, l1Entries);
    for (int i = 0; i < l1.length; i++) {
      long table = L2Entry.host(l1[i]);
      if (table == 0) {
        continue;
      }
      if (!geometry.aligned(table) || table >= file.length()) {
        corrupt(
            "L1 entry "
                + i
                + ": L2 table at 0x"
                + Long.toHexString(table)
                + " is not cluster-aligned inside the file");
        continue;
      }
      count(table, geometry.clusterSize(), "L2 table " + i);
      if (active) {
        copied(l1[i], table, "L2 table " + i);
      }
      entries(table, i, active);
    }
  }

  /// Spec: COPIED is set exactly where the refcount is 1, in tables reachable from the active L1.
  private void copied(long entry, long host, String who) {
    if (!reporting) {
      return;
    }
    long count;
    try {
      count = refcounts.get(host >>> geometry.clusterBits());
    } catch (BlockException _) {
      return; // reported with the refcount block
    }
    boolean flag = (entry & L2Entry.COPIED) != 0;
    if (flag != (count == 1)) {
      corrupt(
          who
              + " at 0x"
              + Long.toHexString(host)
              + ": copied flag is "
              + flag
              + " and refcount is "
              + count);
    }
  }

  private void entries(long table, int l1Index, boolean active) throws BlockException {
    ByteBuffer raw = file.readAt(table, geometry.clusterSize());
    long expected = 0;
    for (int i = 0; i < geometry.l2Entries(); i++) {
      long entry = raw.getLong(i * geometry.l2EntryBytes());
      if (geometry.extendedL2()) {
        long bitmap = raw.getLong(i * geometry.l2EntryBytes() + 8);
        boolean atZero = geometry.dataFile() && (entry & L2Entry.COPIED) != 0;
        long place = atZero ? entry | Geometry.DATA_FILE_BIAS : entry;
        bitmap(place, bitmap, "L2 entry " + i + " of table " + l1Index);
        entry = Subclusters.wholeEntry(entry);
      }
      if (entry == 0) {
        continue;
      }
      if (geometry.dataFile() && (entry & L2Entry.COPIED) != 0) {
        entry |= Geometry.DATA_FILE_BIAS; // offset 0 is a place there
      }
      switch (L2Entry.kind(entry)) {
        case COMPRESSED -> {
          if ((entry & L2Entry.COPIED) != 0) {
            corrupt(
                "L2 entry " + i + " of table " + l1Index + ": compressed with the copied flag set");
          }
          count(
              L2Entry.compressedOffset(entry, geometry),
              L2Entry.compressedLength(entry, geometry),
              "compressed cluster");
          if (active && reporting) {
            allocated++;
            compressed++;
            fragmented++;
          }
        }
        case DATA, ZERO_ALLOCATED -> {
          long host = L2Entry.host(entry);
          if (active && reporting) {
            allocated++;
            if (expected != 0 && host != expected) {
              fragmented++;
            }
            expected = host + geometry.clusterSize();
          }
          if (!geometry.aligned(host)) {
            corrupt(
                "L2 entry "
                    + i
                    + " of table "
                    + l1Index
                    + ": host offset 0x"
                    + Long.toHexString(host)
                    + " is not cluster-aligned");
          }
          if (geometry.dataFile()) {
            continue; // clusters of the data file are not counted
          }
          count(host, geometry.clusterSize(), "data cluster");
          if (active && geometry.aligned(host)) {
            copied(entry, host, "data cluster");
          }
        }
        case ZERO_PLAIN, UNALLOCATED -> {}
      }
    }
  }

  /// Spec: "Extended L2 Entries": no subcluster is both data and zero, none is data without a host
  /// cluster, and a compressed cluster has none.
  private void bitmap(long entry, long bitmap, String who) {
    boolean compressed = (entry & L2Entry.COMPRESSED) != 0;
    if (compressed ? bitmap != 0 : Subclusters.corrupt(entry, bitmap)) {
      corrupt(
          who
              + (compressed ? ": compressed with" : ": contradicts its")
              + " subcluster bitmap 0x"
              + Long.toHexString(bitmap));
    }
  }

  private void bitmaps() throws BlockException {
    BitmapDirectory directory;
    try {
      directory = BitmapDirectory.read(file, header);
    } catch (BlockException e) {
      if (reporting) {
        checkErrors++;
        find(String.valueOf(e.getMessage()));
      }
      return;
    }
    count(directory.offset(), directory.bytes(), "bitmap directory");
    for (BitmapDirectory.Entry entry : directory.entries()) {
      count(entry.tableOffset(), 8L * entry.tableEntries(), "bitmap table");
      try {
        for (long offset : BitmapDirectory.table(file, geometry, entry)) {
          if ((offset & L2Entry.OFFSET) != 0) {
            count(offset, geometry.clusterSize(), "bitmap data");
          }
        }
      } catch (BlockException e) {
        corrupt(String.valueOf(e.getMessage()));
      }
    }
  }

  private void compare(Leaks onLeak) throws BlockException {
    long start = window * WINDOW;
    long end = start + counts.length;
    for (long cluster = start; cluster < end; ) {
      long blockEnd =
          ((cluster >>> geometry.refcountBlockBits()) + 1) << geometry.refcountBlockBits();
      blockEnd = Math.min(blockEnd, end);
      try {
        refcounts.get(cluster);
      } catch (BlockException e) {
        checkErrors++; // once for the block: none of its counts can be read
        find(String.valueOf(e.getMessage()));
        cluster = blockEnd;
        continue;
      }
      for (; cluster < blockEnd; cluster++) {
        compare(cluster, refcounts.get(cluster), counts[(int) (cluster - start)], onLeak);
      }
    }
  }

  private void compare(long cluster, long count, int references, Leaks onLeak)
      throws BlockException {
    if (references == 0 && cluster >= fileClusters) {
      return; // qemu: a count past the end of the file holds no space, and is no leak
    }
    if (count != 0 || references != 0) {
      highest = Math.max(highest, cluster);
    }
    if (count < references) {
      corruptions++;
      find("cluster " + cluster + ": refcount " + count + ", references " + references);
    } else if (count > references) {
      leaks++;
      find("leaked cluster " + cluster + ": refcount " + count + ", references " + references);
      onLeak.leak(cluster, count, references);
    }
  }
}
