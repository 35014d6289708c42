// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.qcow2.ChangeLog.Change;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/// Brings the changes of a log that a killed process left into the tables, before the image is
/// served.
///
/// A change applies when the image still holds its old entry. When not, it must have been written
/// back before the death: then the image holds its new entry, or that of a later change. An image
/// that fits neither was changed by someone else since, and the log is refused: the disk may then
/// be opened without the log's writes only after a person said so by removing it.
///
/// Three more things are held against the image, because another program may have used clusters
/// that the log names: each is counted, none is metadata, and after the replay each has one
/// reference.
///
/// Nothing is written here: the caller runs a [WriteBack] and then removes the log. A death before
/// that finds image and log as they were, or partly written back, and replays again.
final class LogReplay {
  private record Run(long first, int count) {}

  private final Path path;
  private final HostFile file;
  private final Geometry geometry;
  private final MappingTables tables;
  private final Allocator allocator;
  private final MetadataClusters metadata;
  private final Set<Long> unexplainedL1 = new HashSet<>();
  private final Map<Long, Change> unexplained = new HashMap<>();
  private final List<Run> named = new ArrayList<>();
  private final Map<Long, Long> packed = new HashMap<>(); // shared host clusters: their references
  private final TreeMap<Long, Long> pool = new TreeMap<>(); // first to end, of disjoint runs

  LogReplay(
      Path path,
      HostFile file,
      Geometry geometry,
      MappingTables tables,
      Allocator allocator,
      MetadataClusters metadata) {
    this.path = path;
    this.file = file;
    this.geometry = geometry;
    this.tables = tables;
    this.allocator = allocator;
    this.metadata = metadata;
  }

  /// Applies what is not applied. Returns the number of changed entries.
  long run(List<Change> changes) throws BlockException {
    long applied = 0;
    for (Change change : changes) {
      applied +=
          switch (change.kind()) {
            case Change.L1 -> l1(change);
            case Change.L2 -> l2(change);
            case Change.POOL -> pool(change);
            default -> throw unusable("it has a record of kind " + change.kind());
          };
    }
    if (!unexplainedL1.isEmpty() || !unexplained.isEmpty()) {
      throw unusable(mismatch());
    }
    if (applied > 0) {
      checkReferences();
    }
    return applied;
  }

  private int pool(Change change) throws CorruptImageException {
    if (change.index() < 0
        || change.count() < 1
        || change.index() > geometry.clusters(Geometry.MAX_HOST_OFFSET) - change.count()) {
      throw unusable("it names " + change.count() + " clusters from " + change.index());
    }
    long first = change.index();
    long end = first + change.count();
    Map.Entry<Long, Long> before = pool.floorEntry(end);
    while (before != null && before.getValue() >= first) {
      first = Math.min(first, before.getKey());
      end = Math.max(end, before.getValue());
      pool.remove(before.getKey());
      before = pool.floorEntry(end);
    }
    pool.put(first, end);
    return 0;
  }

  /// Whether the dead process had counted this host cluster ahead.
  boolean wasPooled(long cluster) {
    Map.Entry<Long, Long> run = pool.floorEntry(cluster);
    return run != null && cluster < run.getValue();
  }

  private CorruptImageException unusable(String why) {
    return ChangeLog.unusable(path, file.name() + ": " + why);
  }

  private String mismatch() throws BlockException {
    if (!unexplained.isEmpty()) {
      var first = unexplained.entrySet().iterator().next();
      return "the entry of guest cluster "
          + first.getKey()
          + " is 0x"
          + Long.toHexString(tables.entry(first.getKey()))
          + ", so another program changed the image since";
    }
    return "L1 entry "
        + unexplainedL1.iterator().next()
        + " is not as the log left it, so another program changed the image since";
  }

  private int l1(Change change) throws BlockException {
    if (change.index() < 0 || change.index() >= tables.l1Length() || change.count() != 1) {
      throw unusable("it names L1 entry " + change.index() + " of " + tables.l1Length());
    }
    int index = (int) change.index();
    long now = tables.l1Entry(index);
    long old = change.old().entry();
    long fresh = change.fresh().entry();
    if (now == old) {
      checkPlaces(fresh, 1);
      tables.replayL1(index, old, fresh);
      return 1;
    }
    if (now == fresh) {
      unexplainedL1.remove((long) index);
    } else {
      unexplainedL1.add((long) index);
    }
    return 0;
  }

  private long l2(Change change) throws BlockException {
    long end = (long) tables.l1Length() << geometry.l2Bits();
    if (change.index() < 0
        || change.count() < 1
        || change.count() > MappingTables.MAX_CHANGE
        || change.index() > end - change.count()) {
      throw unusable("it names guest cluster " + change.index() + " of " + end);
    }
    long place = change.fresh().entry();
    if (geometry.dataFile()) {
      checkDataFilePlace(change);
    } else if (L2Entry.placed(place)) {
      checkPlaces(place, change.count());
    } else if (L2Entry.kind(place) == L2Entry.Kind.COMPRESSED) {
      checkPacked(place);
    }
    if (geometry.extendedL2()
        ? Subclusters.corrupt(place, change.fresh().bitmap())
        : change.fresh().bitmap() != 0) {
      throw unusable(
          "it gives a subcluster bitmap that contradicts its entry, for guest cluster "
              + change.index());
    }
    long applied = 0;
    for (int i = 0; i < change.count(); i++) {
      long cluster = change.index() + i;
      L2Slot now = tables.slot(cluster);
      L2Slot old = change.old().step(i, geometry);
      L2Slot fresh = change.fresh().step(i, geometry);
      if (now.equals(old)) {
        tables.replayL2(cluster, old, fresh);
        unexplained.remove(cluster);
        applied++;
      } else if (now.equals(fresh)) {
        unexplained.remove(cluster);
      } else {
        unexplained.put(cluster, change);
      }
    }
    return applied;
  }

  private void checkDataFilePlace(Change change) throws CorruptImageException {
    long place = change.fresh().entry();
    long wanted = Geometry.DATA_FILE_BIAS + (change.index() << geometry.clusterBits());
    if (L2Entry.placed(place) && L2Entry.host(place) != wanted) {
      throw unusable(
          "it gives guest cluster " + change.index() + " another place in the data file");
    }
  }

  private void checkPacked(long entry) throws BlockException {
    long from = L2Entry.compressedOffset(entry, geometry) >>> geometry.clusterBits();
    long end = L2Entry.compressedEnd(entry, geometry);
    if (from < 1
        || end > geometry.clusters(file.length()) << geometry.clusterBits()
        || metadata.firstIn(from, ((end - 1) >>> geometry.clusterBits()) - from + 1) >= 0) {
      throw unusable(
          "it names compressed data up to 0x" + Long.toHexString(end) + ", which is none");
    }
    for (long c = from; c <= (end - 1) >>> geometry.clusterBits(); c++) {
      packed.put(c, 0L);
    }
  }

  private void checkPlaces(long entry, int count) throws BlockException {
    long host = L2Entry.host(entry);
    long first = host >>> geometry.clusterBits();
    if (!geometry.aligned(host)
        || first < 1
        || first > geometry.clusters(file.length()) - count
        || metadata.firstIn(first, count) >= 0) {
      throw unusable("it names host offset 0x" + Long.toHexString(host) + ", which is no data");
    }
    if ((entry & L2Entry.COPIED) != 0) { // else only subclusters of a shared cluster changed
      named.add(new Run(first, count));
    }
  }

  /// Every host cluster in use that the log named is counted, and has one reference.
  private void checkReferences() throws BlockException {
    named.sort(Comparator.comparingLong(Run::first));
    var starts = new ArrayList<Long>(); // of disjoint runs
    var offsets = new ArrayList<Integer>(); // bit of each run's first cluster
    long end = -1;
    int bits = 0;
    for (Run run : named) {
      long first = Math.max(run.first(), end);
      long runEnd = run.first() + run.count();
      if (first < runEnd) {
        starts.add(first);
        offsets.add(bits);
        bits = Math.addExact(bits, (int) (runEnd - first));
        end = runEnd;
      }
    }
    var seen = new BitSet(bits);
    for (int i = 0; i < tables.l1Length(); i++) {
      long table = L2Entry.host(tables.l1Entry(i));
      if (table == 0) {
        continue;
      }
      reference(table, starts, offsets, bits, seen);
      for (int j = 0; j < geometry.l2Entries(); j++) {
        long entry = tables.entry(((long) i << geometry.l2Bits()) + j);
        if (L2Entry.placed(entry)) {
          reference(L2Entry.host(entry), starts, offsets, bits, seen);
        } else if (!packed.isEmpty() && L2Entry.kind(entry) == L2Entry.Kind.COMPRESSED) {
          long last = (L2Entry.compressedEnd(entry, geometry) - 1) >>> geometry.clusterBits();
          long first = L2Entry.compressedOffset(entry, geometry) >>> geometry.clusterBits();
          for (long c = first; c <= last; c++) {
            packed.computeIfPresent(c, (_, count) -> count + 1);
          }
        }
      }
    }
    for (Map.Entry<Long, Long> shared : packed.entrySet()) {
      if (allocator.refcount(shared.getKey()) < shared.getValue()) {
        throw unusable(
            "the refcount of host cluster "
                + shared.getKey()
                + " is less than its "
                + shared.getValue()
                + " references");
      }
    }
  }

  private void reference(long host, List<Long> starts, List<Integer> offsets, int bits, BitSet seen)
      throws BlockException {
    long cluster = host >>> geometry.clusterBits();
    int at = java.util.Collections.binarySearch(starts, cluster);
    at = at < 0 ? -at - 2 : at;
    if (at < 0) {
      return;
    }
    int length = (at + 1 < offsets.size() ? offsets.get(at + 1) : bits) - offsets.get(at);
    if (cluster - starts.get(at) >= length) {
      return;
    }
    int bit = offsets.get(at) + (int) (cluster - starts.get(at));
    if (seen.get(bit)) {
      throw unusable("host offset 0x" + Long.toHexString(host) + " is in use twice");
    }
    seen.set(bit);
    if (allocator.refcount(cluster) != 1) {
      throw unusable("the refcount of host offset 0x" + Long.toHexString(host) + " is not 1");
    }
  }
}
