// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/// Takes the zero flag, which version 2 does not know, out of all L2 tables, of the snapshots too.
///
/// Entries whose cluster nobody shares keep it, filled with zeroes. Others name nothing afterwards
/// where no backing file would shine through, and else a new cluster of zeroes.
///
/// On disk, for each L2 table, synced between: new clusters are counted, and zeroes written; the
/// table. An entry is as before or as now, and means the same. At the end, what is no longer named
/// is for the caller to give back. *Power cut: an image of version 3 as before, and leaks.*
///
/// Not for extended L2 entries or an external data file.
final class ZeroExpansion {
  private final OpenImage now;
  private final boolean backed;
  private final Set<Long> done = new HashSet<>(); // tables, which snapshots may share
  private final List<Freed> unnamed = new ArrayList<>();

  ZeroExpansion(OpenImage now) {
    this.now = now;
    this.backed = now.header.now().backing().isPresent();
  }

  /// Returns the clusters that lost references, once each for each of them.
  List<Freed> run() throws BlockException {
    Header header = now.header.now();
    try {
      run(header.l1Offset(), header.l1Entries());
      for (SnapshotTable.Entry snapshot : now.snapshots.entries()) {
        run(snapshot.l1Offset(), snapshot.l1Entries());
      }
    } finally {
      now.allocator.close(); // what was counted ahead
    }
    return unnamed;
  }

  private void run(long l1Offset, int l1Entries) throws BlockException {
    long[] l1 = L1Table.read(now.file, l1Offset, l1Entries);
    var walk = new TableWalk(now.file, now.header.now());
    walk.tables(
        l1,
        (i, l1Entry, table) -> {
          long host = L2Entry.host(l1Entry);
          walk.references(i, table, (_, _) -> {}); // all it names is inside the file
          if (done.add(host) && expand(host, table)) {
            now.file.sync();
            now.file.write(host, table.rewind());
            now.file.sync();
          }
        });
  }

  /// @return whether the table changed
  private boolean expand(long tableHost, ByteBuffer table) throws BlockException {
    int bits = now.geometry.clusterBits();
    long owners = now.allocator.refcount(tableHost >>> bits);
    boolean changed = false;
    for (int at = 0; at < table.limit(); at += 8) {
      long entry = table.getLong(at);
      boolean compressed = (entry & L2Entry.COMPRESSED) != 0;
      if (compressed || (entry & L2Entry.ZERO) == 0) {
        continue;
      }
      long host = L2Entry.host(entry);
      long fresh;
      if (host != 0 && (entry & L2Entry.COPIED) != 0) {
        now.file.writeZeroes(host, now.geometry.clusterSize());
        fresh = entry & ~L2Entry.ZERO;
      } else {
        for (long owner = 0; host != 0 && owner < owners; owner++) {
          unnamed.add(new Freed(host >>> bits, 1));
        }
        fresh = backed ? zeroCluster(owners) : 0;
      }
      table.putLong(at, fresh);
      changed = true;
    }
    return changed;
  }

  /// An entry that names a new cluster of zeroes.
  private long zeroCluster(long owners) throws BlockException {
    long cluster = now.allocator.take(1).first();
    for (long owner = 1; owner < owners; owner++) {
      now.allocator.share(cluster);
    }
    long host = cluster << now.geometry.clusterBits();
    now.file.writeZeroes(host, now.geometry.clusterSize());
    return owners == 1 ? host | L2Entry.COPIED : host;
  }
}
