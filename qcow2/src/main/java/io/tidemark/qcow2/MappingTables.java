// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// Where each guest cluster is: the active L1 table and a cache of L2 tables, in memory.
///
/// Reading an entry takes no lock, and finds an extended one whole ([L2Table]). Changing one takes
/// `lock`, which is short: nothing slow happens under it. A changed table is dirty until
/// [WriteBack] has written it; a dirty table is never dropped from the cache. What comes out of the
/// file is checked by [StoredTables] before it is in the cache.
///
/// What is on disk after each step of a change ([#change]):
/// 1. The host cluster has its count (written, [Allocator]) and its data (written by the caller).
/// 2. Where the L2 table is new, or shared with a snapshot: its first content, zeroes or the old
///    table's entries, is written to a cluster of its own.
/// 3. The change is in the [ChangeLog], if there is one, and then in memory. Without a log the
///    writer calls [WriteBack] before it acknowledges.
///
/// The tables in the file and what they lead to are untouched by all of this; a power cut here
/// loses clusters, never data.
///
/// Spec: qcow2.rst, "Cluster mapping".
final class MappingTables {
  /// Bytes of L2 tables kept in memory; dirty ones may exceed it, up to [#MAX_DIRTY_BYTES].
  static final int CACHE_BYTES = 32 << 20;

  /// Bytes of changed chunks above which a writer writes them back itself.
  static final int MAX_DIRTY_BYTES = 8 << 20;

  /// Freed runs above which a writer writes back itself.
  static final int MAX_FREED = 64 * 1024;

  /// Guest clusters in one [#change].
  static final int MAX_CHANGE = 1024;

  private static final int STRIPES = 64;

  /// Both tables; replaced together when the disk grows.
  private record Tables(AtomicLongArray l1, AtomicReferenceArray<@Nullable L2Table> slots) {}

  private final HostFile file;
  private final Geometry geometry;
  private final Allocator allocator;
  private final StoredTables stored;
  private volatile Tables tables;
  private final Object[] stripes = new Object[STRIPES]; // a table is loaded or made under its own

  private final ReentrantLock lock = new ReentrantLock();
  // Guarded by lock:
  private @Nullable ChangeLog log; // null: no log
  private volatile boolean logged; // written under lock
  private boolean logHasChanges; // in the half in use, beside words of the pool
  private final ArrayDeque<L2Table> loaded = new ArrayDeque<>();
  private final LinkedHashSet<L2Table> dirtyTables = new LinkedHashSet<>();
  private final LinkedHashSet<Integer> dirtyL1 = new LinkedHashSet<>();
  private final FreedRuns freed;
  private int dirtyBytes;
  private volatile boolean dirty; // written under lock; whether anything waits for a write-back
  private volatile boolean filling; // written under lock; whether a write-back should begin

  MappingTables(
      HostFile file,
      Header header,
      long[] l1,
      Allocator allocator,
      MetadataClusters metadata,
      boolean readOnly) {
    this.file = file;
    this.geometry = header.geometry();
    this.allocator = allocator;
    this.freed = new FreedRuns(header.geometry());
    this.stored = new StoredTables(file, header.geometry(), metadata, readOnly);
    this.tables = new Tables(new AtomicLongArray(l1), new AtomicReferenceArray<>(l1.length));
    for (int i = 0; i < STRIPES; i++) {
      stripes[i] = new Object();
    }
  }

  /// From now on every change is in the log before it is in memory.
  void useLog(ChangeLog newLog) {
    lock.lock();
    try {
      log = newLog;
      logged = true;
      allocator.unused().forEach(run -> logPool(run.first(), run.count()));
    } finally {
      lock.unlock();
    }
    allocator.onRaise(this::logPool);
  }

  /// Leaves word of clusters that are counted and not in use yet. Without room nothing is said:
  /// they are then leaked when the process is killed.
  private void logPool(long first, long count) {
    lock.lock();
    try {
      if (log != null && log.makeRoom(MAX_CHANGE + 1)) {
        log.append(ChangeLog.Change.pool(first, (int) count));
      }
    } finally {
      lock.unlock();
    }
  }

  @Nullable ChangeLog log() {
    lock.lock();
    try {
      return log;
    } finally {
      lock.unlock();
    }
  }

  /// Whether changes go into a log. Never goes back to no.
  boolean logged() {
    return logged;
  }

  int l1Index(long guestCluster) {
    return (int) (guestCluster >>> geometry.l2Bits());
  }

  int l2Index(long guestCluster) {
    return (int) (guestCluster & (geometry.l2Entries() - 1));
  }

  int l1Length() {
    return tables.l1().length();
  }

  long l1Entry(int index) {
    return tables.l1().get(index);
  }

  /// A copy of the L1 table.
  long[] l1() {
    AtomicLongArray l1 = tables.l1();
    long[] copy = new long[l1.length()];
    for (int i = 0; i < copy.length; i++) {
      copy[i] = l1.get(i);
    }
    return copy;
  }

  /// Whether an L2 table exists for this guest cluster; when not, all its clusters are unallocated.
  boolean mapped(long guestCluster) {
    return L2Entry.host(tables.l1().get(l1Index(guestCluster))) != 0;
  }

  /// The L2 entry of a guest cluster, of an extended one the first word; 0 where there is no table.
  long entry(long guestCluster) throws BlockException {
    L2Table table = table(l1Index(guestCluster));
    return table == null ? 0 : table.get(l2Index(guestCluster));
  }

  /// What the L2 table says of a guest cluster; empty where there is no table.
  L2Slot slot(long guestCluster) throws BlockException {
    L2Table table = table(l1Index(guestCluster));
    return table == null ? L2Slot.EMPTY : table.slot(l2Index(guestCluster));
  }

  /// What holds for a unit (a cluster, or where there are such a subcluster), as a standard entry
  /// of its cluster would say it.
  ///
  /// @throws CorruptImageException when an entry and its bitmap contradict one another
  long unit(long unit) throws BlockException {
    long atHand = unitAtHand(unit);
    if (atHand != L2Table.CONTRADICTION) {
      return atHand;
    }
    long cluster = unit >>> geometry.unitsBits();
    L2Table table = table(l1Index(cluster));
    if (table == null) {
      return 0;
    }
    long plain = plain(table, unit);
    if (geometry.extendedL2() && plain == L2Table.CONTRADICTION) {
      throw stored.contradiction(cluster, table.slot(l2Index(cluster)));
    }
    return plain;
  }

  /// As [#unit], but does not wait for the disk: [L2Table#CONTRADICTION] where the table is not in
  /// memory, or has that.
  long unitAtHand(long unit) {
    Tables now = tables;
    int l1Index = l1Index(unit >>> geometry.unitsBits());
    L2Table table = now.slots().getAcquire(l1Index);
    if (table == null) {
      return L2Entry.host(now.l1().get(l1Index)) == 0 ? 0 : L2Table.CONTRADICTION;
    }
    table.touch();
    return plain(table, unit);
  }

  private long plain(L2Table table, long unit) {
    int index = l2Index(unit >>> geometry.unitsBits());
    return geometry.extendedL2()
        ? table.plain(index, (int) (unit & (Subclusters.COUNT - 1)))
        : table.get(index);
  }

  private @Nullable L2Table table(int i) throws BlockException {
    Tables now = tables;
    L2Table table = now.slots().getAcquire(i);
    if (table == null) {
      table = L2Entry.host(now.l1().get(i)) == 0 ? null : load(i);
      if (table == null) {
        return null;
      }
    }
    table.touch();
    return table;
  }

  /// Brings a table in; null when there is none. One thread loads, others wait for it: so no stale
  /// copy can come in after a newer one was written and dropped.
  private @Nullable L2Table load(int l1Index) throws BlockException {
    synchronized (stripes[l1Index % STRIPES]) {
      L2Table present = tables.slots().getAcquire(l1Index);
      if (present != null) {
        return present;
      }
      long entry = tables.l1().get(l1Index);
      if (L2Entry.host(entry) == 0) {
        return null;
      }
      L2Table table = stored.read(l1Index, entry);
      lock.lock();
      try {
        install(table);
      } finally {
        lock.unlock();
      }
      return table;
    }
  }

  // Under lock.
  private void install(L2Table table) {
    tables.slots().setRelease(table.l1Index(), table);
    loaded.add(table);
    int most = Math.max(4, CACHE_BYTES >>> geometry.clusterBits());
    for (int tries = 2 * loaded.size(); loaded.size() > most && tries > 0; tries--) {
      L2Table oldest = loaded.remove();
      if (tables.slots().get(oldest.l1Index()) != oldest) {
        continue; // replaced by a copy
      }
      if (oldest == table || oldest.dirty() || oldest.writing() || oldest.forgetUse()) {
        loaded.add(oldest);
      } else {
        tables.slots().setRelease(oldest.l1Index(), null);
      }
    }
  }

  /// Makes the L2 table of a guest cluster our own before the cluster gets its place: so that the
  /// clusters of a disk that is filled in order lie side by side.
  ///
  /// qemu: the table comes first; 7.2.
  void ensureTable(long guestCluster, WriteBack writeBack) throws BlockException {
    while (writableTable(l1Index(guestCluster)) == null) {
      writeBack.run(true);
    }
  }

  /// Gives `count` guest clusters new entries, `fresh` and those that follow it (counting up when
  /// it names a host cluster), each for its whole cluster. The caller holds them in [ClusterLocks],
  /// and they lie in one L2 table. Either all change or, on an exception, none.
  void change(long guestCluster, int count, long fresh, WriteBack writeBack) throws BlockException {
    change(guestCluster, count, NewSlots.all(L2Slot.whole(fresh, geometry)), writeBack);
  }

  /// As above, to slots of any kind.
  void change(long guestCluster, int count, NewSlots fresh, WriteBack writeBack)
      throws BlockException {
    int i = l1Index(guestCluster);
    while (true) {
      L2Table table = writableTable(i);
      if (table != null && enterIfRoom(table, guestCluster, count, fresh)) {
        return;
      }
      if (table == null || tables.slots().get(i) == table) { // the log is full
        writeBack.run(true);
      } // else it was dropped from the cache meanwhile
    }
  }

  /// As [#change], but does not wait for the disk: false when it would have to, and nothing has
  /// changed.
  boolean changeAtHand(long guestCluster, int count, long fresh) throws BlockException {
    L2Table table = ownTableAtHand(guestCluster);
    var slots = NewSlots.all(L2Slot.whole(fresh, geometry));
    return table != null && enterIfRoom(table, guestCluster, count, slots);
  }

  /// Whether [#changeAtHand] is worth trying.
  boolean changesAtHand(long guestCluster) {
    return ownTableAtHand(guestCluster) != null;
  }

  private @Nullable L2Table ownTableAtHand(long guestCluster) {
    Tables now = tables;
    int i = l1Index(guestCluster);
    return (now.l1().get(i) & L2Entry.COPIED) == 0 ? null : now.slots().getAcquire(i);
  }

  /// Changes nothing where the table is no longer in the cache, or the log is full.
  private boolean enterIfRoom(L2Table table, long guestCluster, int count, NewSlots fresh)
      throws BlockException {
    lock.lock();
    try {
      file.check();
      boolean room =
          tables.slots().get(table.l1Index()) == table && (log == null || log.makeRoom(count));
      if (room) {
        enter(table, guestCluster, count, fresh);
      }
      return room;
    } finally {
      lock.unlock();
    }
  }

  // Under lock. Runs of slots that are alike become one record.
  private void enter(L2Table table, long guestCluster, int count, NewSlots fresh) {
    int first = l2Index(guestCluster);
    for (int done = 0; done < count; ) {
      L2Slot old = table.slot(first + done);
      long bitmap = fresh.bitmap(done, count);
      int run = 1;
      while (done + run < count
          && fresh.bitmap(done + run, count) == bitmap
          && table.slot(first + done + run).equals(old.step(run, geometry))) {
        run++;
      }
      var slot = new L2Slot(L2Entry.step(fresh.entry(), done, geometry), bitmap);
      if (log != null) {
        log.append(new ChangeLog.Change(ChangeLog.Change.L2, run, guestCluster + done, old, slot));
        logHasChanges = true;
      }
      set(table, first + done, run, slot);
      freed.dropped(old.entry(), run, slot.entry());
      done += run;
    }
    filling = dirtyBytes > MAX_DIRTY_BYTES / 2 || (log != null && log.filling());
  }

  // Under lock.
  private void set(L2Table table, int first, int count, L2Slot slot) {
    int bytes = 0;
    for (int i = 0; i < count; i++) {
      long entry = L2Entry.step(slot.entry(), i, geometry);
      bytes += table.set(first + i, entry, slot.bitmap());
    }
    dirtyTables.add(table);
    dirtyBytes += bytes;
    dirty = true;
  }

  /// Takes a whole L2 table out, with all it names. The caller keeps changes out, and has written
  /// back what was changed in it.
  void drop(int l1Index) throws BlockException {
    synchronized (stripes[l1Index % STRIPES]) {
      L2Table table = load(l1Index);
      if (table == null) {
        return;
      }
      lock.lock();
      try {
        for (int i = 0; i < table.length(); ) {
          long old = table.get(i);
          int run = 1;
          while (i + run < table.length()
              && table.get(i + run) == L2Entry.step(old, run, geometry)) {
            run++;
          }
          freed.dropped(old, run, 0);
          i += run;
        }
        freed.table(table.hostOffset());
        tables.l1().set(l1Index, 0);
        tables.slots().set(l1Index, null);
        dirtyTables.remove(table);
        dirtyL1.add(l1Index);
        dirty = true;
      } finally {
        lock.unlock();
      }
    }
  }

  /// The table for an L1 index, made or copied when there is none of our own. Null when the log
  /// must be emptied first.
  private @Nullable L2Table writableTable(int l1Index) throws BlockException {
    long entry = tables.l1().get(l1Index);
    if (L2Entry.host(entry) != 0 && (entry & L2Entry.COPIED) != 0) {
      L2Table present = tables.slots().getAcquire(l1Index);
      if (present == null) {
        present = load(l1Index);
      }
      if (present != null) {
        return present;
      }
    }
    synchronized (stripes[l1Index % STRIPES]) {
      entry = tables.l1().get(l1Index);
      if (L2Entry.host(entry) != 0 && (entry & L2Entry.COPIED) != 0) {
        L2Table present = load(l1Index);
        if (present != null) {
          return present;
        }
      }
      return makeTable(l1Index, entry);
    }
  }

  /// A new table: empty, or a copy of one that a snapshot shares. In the copy every data cluster is
  /// shared too, and says so already. Null when the log has no room.
  private @Nullable L2Table makeTable(int l1Index, long oldEntry) throws BlockException {
    ByteBuffer content = Header.bigEndian(geometry.clusterSize());
    L2Table shared = L2Entry.host(oldEntry) == 0 ? null : load(l1Index);
    if (shared != null) {
      content = shared.image();
    }
    Allocator.Run home = allocator.take(1);
    long host = home.first() << geometry.clusterBits();
    try {
      // Written even when it is all zeroes and the cluster is fresh: the space is then taken, and a
      // full disk is found here and not at a flush.
      file.write(host, content.duplicate());
    } catch (BlockException e) {
      allocator.giveBack(home);
      throw e;
    }
    L2Table table = stored.table(l1Index, host, content);
    long entry = host | L2Entry.COPIED;
    lock.lock();
    try {
      if (log != null) {
        if (!log.makeRoom(1)) {
          allocator.giveBack(home);
          return null;
        }
        log.append(ChangeLog.Change.l1(l1Index, oldEntry, entry));
        logHasChanges = true;
      }
      enterTable(table, oldEntry, entry);
    } finally {
      lock.unlock();
    }
    return table;
  }

  // Under lock.
  private void enterTable(L2Table table, long oldEntry, long entry) {
    tables.l1().set(table.l1Index(), entry);
    install(table);
    dirtyL1.add(table.l1Index());
    dirty = true;
    freed.table(L2Entry.host(oldEntry));
  }

  /// Whether a writer should write back before it goes on: a limit of what may wait is reached.
  boolean pressed() {
    if (!dirty) {
      return false;
    }
    lock.lock();
    try {
      long pinned = (long) dirtyTables.size() << geometry.clusterBits();
      return dirtyBytes > MAX_DIRTY_BYTES
          || (pinned > CACHE_BYTES && dirtyTables.size() > 4)
          || freed.size() > MAX_FREED;
    } finally {
      lock.unlock();
    }
  }

  /// Whether a limit of what may wait is near: a write-back that begins now may spare writers the
  /// wait for it.
  boolean filling() {
    return filling;
  }

  /// Whether a change waits for a write-back to begin.
  boolean dirty() {
    return dirty;
  }

  /// Takes everything that changed until now, for writing; the log goes on in its other half.
  WriteBack.Batch take() {
    lock.lock();
    try {
      var chunks = new ArrayList<L2Table.Chunk>();
      for (L2Table table : dirtyTables) {
        table.take(chunks);
      }
      var indexes = new ArrayList<Integer>(dirtyL1);
      var entries = new ArrayList<Long>();
      for (int i : indexes) {
        entries.add(tables.l1().get(i));
      }
      int half = log != null && logHasChanges ? turnLog(log) : -1;
      var batch =
          new WriteBack.Batch(
              chunks, new ArrayList<>(dirtyTables), indexes, entries, freed.take(), half);
      dirtyTables.clear();
      dirtyL1.clear();
      dirtyBytes = 0;
      dirty = false;
      filling = false;
      return batch;
    } finally {
      lock.unlock();
    }
  }

  // Under lock. The other half begins with what the pool holds now.
  private int turnLog(ChangeLog present) {
    int left = present.turn();
    logHasChanges = false;
    allocator.unused().forEach(run -> logPool(run.first(), run.count()));
    return left;
  }

  /// The batch is in the file, and durable where it used a half of the log.
  void written(WriteBack.Batch batch) {
    lock.lock();
    try {
      batch.tables().forEach(L2Table::written);
      if (log != null && batch.logHalf() >= 0) {
        log.reset(batch.logHalf());
      }
    } finally {
      lock.unlock();
    }
  }

  /// Replay: puts an L1 entry in place of another. The table it names is in the file.
  void replayL1(int index, long old, long entry) {
    lock.lock();
    try {
      tables.l1().set(index, entry);
      dirtyL1.add(index);
      dirty = true;
      freed.table(L2Entry.host(old));
    } finally {
      lock.unlock();
    }
  }

  /// Replay: changes one L2 slot; the table exists and is not shared.
  void replayL2(long guestCluster, L2Slot old, L2Slot fresh) throws BlockException {
    int i = l1Index(guestCluster);
    L2Table table = tables.slots().get(i);
    if (table == null) {
      table = load(i);
    }
    if (table == null) {
      throw new CorruptImageException(
          file.name() + ": guest cluster " + guestCluster + " has no L2 table");
    }
    lock.lock();
    try {
      set(table, l2Index(guestCluster), 1, fresh);
      freed.dropped(old.entry(), 1, fresh.entry());
    } finally {
      lock.unlock();
    }
  }

  /// Makes the L1 table longer in memory. The caller keeps changes out meanwhile; readers may go on
  /// with the old one.
  void growL1(int entries) throws BlockException {
    if (entries > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          file.name()
              + ": L1 table of "
              + entries
              + " entries, at most "
              + Geometry.MAX_L1_BYTES / 8
              + " are handled");
    }
    lock.lock();
    try {
      Tables old = tables;
      var l1 = new AtomicLongArray(entries);
      var slots = new AtomicReferenceArray<@Nullable L2Table>(entries);
      for (int i = 0; i < old.l1().length(); i++) {
        l1.set(i, old.l1().get(i));
        slots.set(i, old.slots().get(i));
      }
      tables = new Tables(l1, slots);
    } finally {
      lock.unlock();
    }
  }
}
