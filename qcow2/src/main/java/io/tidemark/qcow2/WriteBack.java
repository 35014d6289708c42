// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.TransportException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/// Brings changed tables into the file, in crash order. A flush is this and nothing else.
///
/// Steps, and what a power cut after each leaves: 0. The changed parts of L2 tables, changed L1
/// entries and freed clusters are taken as they are in memory. Every entry in them names data that
/// was written before.
/// 1. Sync: data, counts, and the first content of new L2 tables are durable. The mapping in the
///    file is the one before; new clusters are leaked.
/// 2. L2 chunks and L1 entries are written, in any order: an L1 entry may come to disk before the
///    chunks of its new table, because the table's first content (all unallocated, or the entries
///    of the table it replaces) is durable and true to the state before. Entries are 8 bytes,
///    aligned, so a torn write leaves each old or new. Any mixture is a mapping in which each guest
///    cluster is as before or as now; both its clusters are counted and hold their data.
/// 3. Sync (for a flush): the new mapping is durable. Replaced clusters are leaked.
/// 4. The log's half is emptied: its changes are in the image.
/// 5. Clusters that lost their reference wait until no request can still use them, then their count
///    goes down and they may be reused. Never before 3: the old mapping still named them.
///
/// Without a log, a writer asks for steps 0 to 2 before it acknowledges; the frees of that round
/// follow the next sync.
///
/// One write-back runs at a time. Who asks while one runs gets the next one, shared by all who
/// wait. Where a limit of what may wait comes near, one is [begun][#begin] on a thread of its own:
/// writers go on in the log's other half meanwhile.
final class WriteBack {
  private static final Logger LOG = System.getLogger(WriteBack.class.getName());

  /// What one of them has to write.
  record Batch(
      List<L2Table.Chunk> chunks,
      List<L2Table> tables,
      List<Integer> l1Indexes,
      List<Long> l1Entries,
      List<Freed> freed,
      int logHalf) {
    boolean isEmpty() {
      return chunks.isEmpty() && l1Indexes.isEmpty() && freed.isEmpty() && logHalf < 0;
    }
  }

  private final HostFile file;
  private final HeaderFields header;
  private final MappingTables tables;
  private final Allocator allocator;
  private final InFlight<List<Freed>> inFlight;

  private final ReentrantLock turn = new ReentrantLock();
  private final Condition done = turn.newCondition();
  // Guarded by turn:
  private long started;
  private long written;
  private long durable;
  private boolean running;
  private boolean beside; // a thread of our own is about to run one, or runs it
  private boolean neverBeside; // one failed
  // Only the runner:
  private final List<Freed> unsynced = new ArrayList<>();

  WriteBack(
      HostFile file,
      HeaderFields header,
      MappingTables tables,
      Allocator allocator,
      InFlight<List<Freed>> inFlight) {
    this.file = file;
    this.header = header;
    this.tables = tables;
    this.allocator = allocator;
    this.inFlight = inFlight;
  }

  /// Writes back everything that changed before this call, and with `sync` makes it durable,
  /// together with all data written before. A failure is final: see [HostFile#fail].
  void run(boolean sync) throws BlockException {
    long mine;
    turn.lock();
    try {
      long wanted = started + 1; // one that begins after now
      while (running) {
        done.awaitUninterruptibly();
        if ((sync ? durable : written) >= wanted) {
          return;
        }
      }
      running = true;
      mine = ++started;
    } finally {
      turn.unlock();
    }
    boolean succeeded = false;
    try {
      once(sync);
      succeeded = true;
    } finally {
      turn.lock();
      try {
        running = false;
        if (succeeded) {
          written = mine;
          durable = sync ? mine : durable;
        }
        done.signalAll();
      } finally {
        turn.unlock();
      }
    }
  }

  /// Begins a [#run] with sync on a thread of its own, unless one that was begun so has not ended,
  /// or one failed: the next flush says that.
  void begin() {
    turn.lock();
    try {
      if (beside || neverBeside) {
        return;
      }
      beside = true;
    } finally {
      turn.unlock();
    }
    try {
      Thread.ofPlatform().daemon().name("write-back " + file.name()).start(this::runBeside);
    } catch (OutOfMemoryError e) { // no more threads: a writer does it at the limit
      LOG.log(Level.WARNING, "{0}: write-back: {1}", file.name(), e.getMessage());
      endBeside(false);
    }
  }

  private void runBeside() {
    boolean succeeded = false;
    try {
      run(true);
      succeeded = true;
    } catch (BlockException e) {
      // Safe because every later flush fails by it.
      LOG.log(Level.WARNING, "{0}: write-back: {1}", file.name(), e.getMessage());
    } finally {
      endBeside(succeeded);
    }
  }

  private void endBeside(boolean succeeded) {
    turn.lock();
    try {
      beside = false;
      neverBeside = !succeeded;
      done.signalAll();
    } finally {
      turn.unlock();
    }
  }

  /// Waits for what [#begin] began. While no request runs, none begins.
  void quiesce() {
    turn.lock();
    try {
      while (beside) {
        done.awaitUninterruptibly();
      }
    } finally {
      turn.unlock();
    }
  }

  /// [#run] without sync, unless nothing waits and nothing is on its way.
  void acknowledge() throws BlockException {
    boolean busy;
    turn.lock();
    try {
      busy = running;
    } finally {
      turn.unlock();
    }
    if (busy || tables.dirty()) {
      run(false);
    }
  }

  private void once(boolean sync) throws BlockException {
    file.check();
    Batch batch = tables.take();
    var free = new ArrayList<Freed>();
    try {
      if (batch.isEmpty()) {
        if (sync) {
          file.sync();
          free.addAll(unsynced);
          unsynced.clear();
        }
      } else {
        file.sync();
        free.addAll(unsynced);
        unsynced.clear();
        write(batch);
        if (sync || batch.logHalf() >= 0) {
          file.sync();
          free.addAll(batch.freed());
        } else {
          unsynced.addAll(batch.freed());
        }
      }
    } catch (BlockException e) {
      file.fail(e);
      throw e;
    } catch (RuntimeException | Error e) {
      file.fail(new TransportException(file.name() + ": metadata was not written", e));
      throw e;
    }
    tables.written(batch);
    if (!free.isEmpty()) {
      inFlight.retire(free);
    }
    release();
  }

  private void write(Batch batch) throws BlockException {
    for (L2Table.Chunk chunk : batch.chunks()) {
      file.write(chunk.hostOffset(), chunk.bytes());
    }
    long l1Offset = header.now().l1Offset();
    for (int i = 0; i < batch.l1Indexes().size(); i++) {
      ByteBuffer raw = Header.bigEndian(8).putLong(0, batch.l1Entries().get(i));
      file.write(l1Offset + 8L * batch.l1Indexes().get(i), raw);
    }
  }

  /// Takes the counts down of clusters that nothing names and nobody uses any more.
  private void release() {
    int leaked = 0;
    String why = "";
    for (List<Freed> runs : inFlight.collect()) {
      for (Freed run : runs) {
        try {
          allocator.release(run.first(), run.count());
        } catch (BlockException e) {
          // Safe because a count that stays is a leak, and the write-back itself succeeded.
          leaked++;
          why = String.valueOf(e.getMessage());
        }
      }
    }
    if (leaked > 0) {
      LOG.log(
          Level.WARNING,
          file.name() + ": " + leaked + " runs of clusters could not be given back: " + why);
    }
  }
}
