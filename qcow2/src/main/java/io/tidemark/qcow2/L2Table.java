// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.nio.ByteBuffer;
import java.util.BitSet;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.locks.LockSupport;

/// One L2 table in memory.
///
/// Entries are read by any thread at any time, without a lock. Everything else, and every change of
/// an entry, is guarded by the lock of [MappingTables].
///
/// An extended entry is two words, and a reader must never see one of before with one of after: a
/// subcluster would be looked for in a host cluster that never held it. So a change makes `version`
/// odd, sets both words, and makes it even; a reader takes the words between two looks at `version`
/// and takes them again when it was odd or has moved on. The changer holds it odd for two stores.
///
/// Spec: qcow2.rst, "L2 table entry", "Extended L2 Entries".
final class L2Table {
  /// Bytes of a table that are written together: what one changed entry costs.
  static final int CHUNK = 4096;

  /// What no consistent entry reads as, a reserved bit alone: data has a place, and all else is 0,
  /// or has the flag of zero or compressed.
  static final long CONTRADICTION = 2;

  private static final int SPINS = 64;

  /// A changed part of a table, as it was when it was taken.
  record Chunk(long hostOffset, ByteBuffer bytes) {}

  private final int l1Index;
  private final long hostOffset;
  private final boolean extended;
  private final long bias;
  private final AtomicLongArray words; // extended: entry, bitmap, entry, bitmap, ...
  private final AtomicInteger version = new AtomicInteger(); // extended only
  private final BitSet dirty = new BitSet();
  private boolean writing;
  private volatile boolean used = true;

  /// @param raw the table's cluster
  /// @param bias what a place has added here, 0 or [Geometry#DATA_FILE_BIAS]
  L2Table(int l1Index, long hostOffset, ByteBuffer raw, boolean extended, long bias) {
    this.l1Index = l1Index;
    this.hostOffset = hostOffset;
    this.extended = extended;
    long[] values = new long[raw.remaining() / 8];
    raw.asLongBuffer().get(values);
    this.bias = bias;
    for (int i = 0; bias != 0 && i < values.length; i += extended ? 2 : 1) {
      if ((values[i] & (L2Entry.OFFSET | L2Entry.COPIED)) != 0) {
        values[i] |= bias;
      }
    }
    this.words = new AtomicLongArray(values);
  }

  int l1Index() {
    return l1Index;
  }

  long hostOffset() {
    return hostOffset;
  }

  /// Entries.
  int length() {
    return extended ? words.length() / 2 : words.length();
  }

  /// An entry, of an extended one the first word.
  long get(int index) {
    return words.getAcquire(extended ? 2 * index : index);
  }

  /// An extended entry, whole; the bitmap of a standard one is 0.
  L2Slot slot(int index) {
    if (!extended) {
      return new L2Slot(get(index), 0);
    }
    while (true) {
      int before = quiet();
      long entry = words.getAcquire(2 * index);
      long bitmap = words.getAcquire(2 * index + 1);
      if (unchanged(before)) {
        return new L2Slot(entry, bitmap);
      }
    }
  }

  /// What an extended entry says of one of its subclusters, as [Subclusters#plain], without an
  /// object for it; [#CONTRADICTION] where its words contradict one another.
  long plain(int index, int subcluster) {
    while (true) {
      int before = quiet();
      long entry = words.getAcquire(2 * index);
      long bitmap = words.getAcquire(2 * index + 1);
      if (unchanged(before)) {
        return Subclusters.corrupt(entry, bitmap)
            ? CONTRADICTION
            : Subclusters.plain(entry, bitmap, subcluster);
      }
    }
  }

  /// An even version.
  private int quiet() {
    for (int tries = 1; ; tries++) {
      int now = version.getAcquire();
      if ((now & 1) == 0) {
        return now;
      }
      if (tries % SPINS == 0) {
        LockSupport.parkNanos(1000); // the changer has lost its processor
      } else {
        Thread.onSpinWait();
      }
    }
  }

  /// Whether what was read since is of one version. Safe because acquiring reads before it are not
  /// moved past this one.
  private boolean unchanged(int since) {
    return since == version.getOpaque();
  }

  /// Sets an entry. Returns bytes that became dirty by it.
  int set(int index, long entry, long bitmap) {
    if (extended) {
      int now = version.getPlain();
      version.setOpaque(now + 1);
      words.setRelease(2 * index, entry); // not before the odd version
      words.setRelease(2 * index + 1, bitmap);
      version.setRelease(now + 2);
    } else {
      words.setRelease(index, entry);
    }
    int chunk = index * (extended ? 16 : 8) / CHUNK;
    if (dirty.get(chunk)) {
      return 0;
    }
    dirty.set(chunk);
    return CHUNK;
  }

  boolean dirty() {
    return !dirty.isEmpty();
  }

  boolean writing() {
    return writing;
  }

  void written() {
    writing = false;
  }

  /// A word as it is on disk.
  private long stored(int word) {
    long value = words.get(word);
    return extended && (word & 1) != 0 ? value : value & ~bias;
  }

  /// Copies the dirty chunks out; the table is then clean but being written.
  void take(List<Chunk> into) {
    int chunkBytes = Math.min(CHUNK, words.length() * 8);
    for (int chunk = dirty.nextSetBit(0); chunk >= 0; chunk = dirty.nextSetBit(chunk + 1)) {
      ByteBuffer bytes = Header.bigEndian(chunkBytes);
      int first = chunk * CHUNK / 8;
      for (int i = 0; i < chunkBytes / 8; i++) {
        bytes.putLong(i * 8, stored(first + i));
      }
      into.add(new Chunk(hostOffset + (long) chunk * CHUNK, bytes));
    }
    dirty.clear();
    writing = true;
  }

  /// The whole table as it is on disk; for one that nobody changes.
  ByteBuffer image() {
    ByteBuffer raw = Header.bigEndian(words.length() * 8);
    for (int i = 0; i < words.length(); i++) {
      raw.putLong(i * 8, stored(i));
    }
    return raw;
  }

  void touch() {
    if (!used) {
      used = true;
    }
  }

  /// Whether it was used since the last call.
  boolean forgetUse() {
    boolean was = used;
    used = false;
    return was;
  }
}
