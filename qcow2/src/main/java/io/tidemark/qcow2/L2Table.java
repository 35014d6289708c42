// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.nio.ByteBuffer;
import java.util.BitSet;
import java.util.concurrent.atomic.AtomicLongArray;

/// One L2 table in memory.
///
/// Entries are read by any thread at any time. Everything else, and every change of an entry, is
/// guarded by the lock of [MappingTables].
final class L2Table {
  /// Bytes of a table that are written together: what one changed entry costs.
  static final int CHUNK = 4096;

  /// A changed part of a table, as it was when it was taken.
  record Chunk(long hostOffset, ByteBuffer bytes) {}

  private final int l1Index;
  private final long hostOffset;
  private final AtomicLongArray entries;
  private final BitSet dirty = new BitSet();
  private boolean writing;
  private volatile boolean used = true;

  /// @param raw the table's cluster
  L2Table(int l1Index, long hostOffset, ByteBuffer raw) {
    this.l1Index = l1Index;
    this.hostOffset = hostOffset;
    long[] values = new long[raw.remaining() / 8];
    raw.asLongBuffer().get(values);
    this.entries = new AtomicLongArray(values);
  }

  int l1Index() {
    return l1Index;
  }

  long hostOffset() {
    return hostOffset;
  }

  int length() {
    return entries.length();
  }

  long get(int index) {
    return entries.getAcquire(index);
  }

  /// Sets an entry. Returns bytes that became dirty by it.
  int set(int index, long entry) {
    entries.setRelease(index, entry);
    int chunk = index * 8 / CHUNK;
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

  /// Copies the dirty chunks out; the table is then clean but being written.
  void take(java.util.List<Chunk> into) {
    int chunkBytes = Math.min(CHUNK, entries.length() * 8);
    for (int chunk = dirty.nextSetBit(0); chunk >= 0; chunk = dirty.nextSetBit(chunk + 1)) {
      ByteBuffer bytes = Header.bigEndian(chunkBytes);
      int first = chunk * CHUNK / 8;
      for (int i = 0; i < chunkBytes / 8; i++) {
        bytes.putLong(i * 8, entries.get(first + i));
      }
      into.add(new Chunk(hostOffset + (long) chunk * CHUNK, bytes));
    }
    dirty.clear();
    writing = true;
  }

  /// The whole table as it is on disk.
  ByteBuffer image() {
    ByteBuffer raw = Header.bigEndian(entries.length() * 8);
    for (int i = 0; i < entries.length(); i++) {
      raw.putLong(i * 8, entries.get(i));
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
