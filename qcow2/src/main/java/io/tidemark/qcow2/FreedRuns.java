// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.ArrayList;
import java.util.List;

/// Host clusters that changes of the mapping no longer refer to, until a write-back takes them.
/// Guarded by the lock of [MappingTables].
final class FreedRuns {
  private final Geometry geometry;
  private List<Freed> runs = new ArrayList<>();

  FreedRuns(Geometry geometry) {
    this.geometry = geometry;
  }

  int size() {
    return runs.size();
  }

  /// Notes what a run of entries, `old` and those that follow it, no longer refers to, now that
  /// `fresh` and those that follow it are in their place.
  void dropped(long old, int count, long fresh) {
    if (L2Entry.kind(old) == L2Entry.Kind.COMPRESSED) {
      long offset = L2Entry.compressedOffset(old, geometry);
      long from = offset >>> geometry.clusterBits();
      long last = (offset + L2Entry.compressedLength(old, geometry) - 1) >>> geometry.clusterBits();
      for (int i = 0; i < count; i++) {
        add(from, last - from + 1);
      }
    } else if (L2Entry.placed(old)
        && !geometry.dataFile() // its clusters are not counted
        && !(L2Entry.placed(fresh) && L2Entry.host(old) == L2Entry.host(fresh))) {
      add(L2Entry.host(old) >>> geometry.clusterBits(), count);
    }
  }

  /// Notes a table that nothing names any more; none where the host offset is 0.
  void table(long hostOffset) {
    if (hostOffset != 0) {
      add(hostOffset >>> geometry.clusterBits(), 1);
    }
  }

  private void add(long first, long count) {
    runs.add(new Freed(first, count));
  }

  /// All of them, for whoever gives them back.
  List<Freed> take() {
    List<Freed> taken = runs;
    runs = new ArrayList<>();
    return taken;
  }
}
