// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Optional;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/// Exclusive locks on ranges of one disk: overlapping holders wait for each other, in order of
/// arrival; others do not.
///
/// All that hold or wait stand in one list in order of arrival. A newcomer counts the entries
/// before it that overlap and waits until each has left, so nobody overtakes an overlapping earlier
/// comer, and a wide range is not starved by narrow ones. The list is short (requests in flight),
/// and its monitor is never held while anyone waits. Not reentrant: a thread that asks for a range
/// that overlaps its own waits for ever.
public final class RangeLock {
  /// A held range; closing lets it go. Closing twice is harmless; any thread may close.
  public interface Held extends AutoCloseable {
    @Override
    void close();
  }

  final class Entry implements Held {
    private long offset;
    private long end;
    private Thread owner = Thread.currentThread();
    private Entry previous = this;
    private Entry next = this;
    private boolean gone;

    /// Overlapping entries that came before and are still there. Written under the lock's monitor.
    private volatile int blockers;

    private Entry(long offset, long end) {
      this.offset = offset;
      this.end = end;
    }

    boolean overlaps(Entry other) {
      return offset < other.end && other.offset < end;
    }

    @Override
    public void close() {
      release(this);
    }
  }

  /// Entries kept for [#take].
  private static final int MAX_SPARE = 64;

  /// The list's anchor: its `next` came first. Lists are changed under `this`.
  private final Entry anchor = new Entry(0, 0);

  /// Entries that nobody holds, one behind the other by `next`; null: none. Guarded by this.
  private @Nullable Entry spare;

  private int spares; // guarded by this

  /// Waits until no other holder overlaps the range, uninterruptibly. An empty range overlaps
  /// nothing.
  public Held lock(long offset, long length) {
    long end = new ByteRange(offset, length).end();
    if (length == 0) {
      return () -> {};
    }
    var entry = new Entry(offset, end);
    enter(entry);
    if (entry.blockers > 0) {
      await(entry);
    }
    return entry;
  }

  /// As [#lock], for a guest's request, which is to cost no new object: the entry goes to [#letGo],
  /// once, and is used again. Null for an empty range.
  @Nullable Entry take(long offset, long length) {
    if (length == 0) {
      return null;
    }
    Entry entry;
    synchronized (this) {
      entry = spareOrNew();
      entry.offset = offset;
      entry.end = Math.addExact(offset, length);
      entry.owner = Thread.currentThread();
      entry.gone = false;
      enter(entry);
    }
    if (entry.blockers > 0) {
      await(entry);
    }
    return entry;
  }

  // Under the monitor.
  private Entry spareOrNew() {
    Entry first = spare;
    if (first == null) {
      return new Entry(0, 0);
    }
    spare = first.next == first ? null : first.next; // the last is its own next
    spares--;
    return first;
  }

  /// Ends what [#take] began.
  void letGo(@Nullable Entry entry) {
    if (entry == null) {
      return;
    }
    synchronized (this) {
      release(entry);
      if (spares < MAX_SPARE) {
        entry.previous = entry;
        entry.next = spare == null ? entry : spare;
        spare = entry;
        spares++;
      }
    }
  }

  private synchronized void enter(Entry entry) {
    int blockers = 0;
    for (Entry e = anchor.next; e != anchor; e = e.next) {
      if (e.overlaps(entry)) {
        blockers++;
      }
    }
    entry.blockers = blockers;
    append(entry);
  }

  /// Holds the range if nobody who holds or waits overlaps it; empty, at once, when someone does.
  public Optional<Held> tryLock(long offset, long length) {
    var entry = new Entry(offset, new ByteRange(offset, length).end());
    synchronized (this) {
      for (Entry e = anchor.next; e != anchor; e = e.next) {
        if (e.overlaps(entry)) {
          return Optional.empty();
        }
      }
      append(entry);
    }
    return Optional.of(entry);
  }

  // Under the monitor.
  private void append(Entry entry) {
    entry.previous = anchor.previous;
    entry.next = anchor;
    anchor.previous.next = entry;
    anchor.previous = entry;
  }

  private static void await(Entry entry) {
    boolean interrupted = false;
    while (entry.blockers > 0) {
      LockSupport.park(entry);
      interrupted |= Thread.interrupted();
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private synchronized void release(Entry entry) {
    if (entry.gone) {
      return;
    }
    entry.gone = true;
    for (Entry e = entry.next; e != anchor; e = e.next) {
      if (e.overlaps(entry)) {
        e.blockers = e.blockers - 1;
        if (e.blockers == 0) {
          LockSupport.unpark(e.owner);
        }
      }
    }
    entry.previous.next = entry.next;
    entry.next.previous = entry.previous;
  }

  /// Ranges held or waited for.
  synchronized int entries() {
    int count = 0;
    for (Entry e = anchor.next; e != anchor; e = e.next) {
      count++;
    }
    return count;
  }
}
