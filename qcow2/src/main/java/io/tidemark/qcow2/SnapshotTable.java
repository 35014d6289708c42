// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;

/// The internal snapshots of an image: read, counted by a check, and kept.
///
/// Spec: qcow2.rst, "Snapshots".
///
/// @param bytes of the whole table
record SnapshotTable(List<Entry> entries, long bytes) {
  /// qemu: QCOW_MAX_SNAPSHOTS.
  static final int MAX_ENTRIES = 65536;

  /// qemu: QCOW_MAX_SNAPSHOTS_SIZE.
  static final long MAX_BYTES = 64L << 20;

  /// qemu: QCOW_MAX_SNAPSHOT_EXTRA_DATA.
  static final int MAX_EXTRA = 1024;

  /// What an entry of ours holds of extra data: all that the specification knows.
  private static final int EXTRA_KNOWN = 24;

  /// @param l1Offset host bytes
  /// @param raw the entry as the table holds it, or is to
  record Entry(long l1Offset, int l1Entries, InternalSnapshot snapshot, ByteBuffer raw) {
    /// Whether the size of the L1 table is within its limit.
    boolean hasL1Entries() {
      return l1Entries >= 0 && l1Entries <= Geometry.MAX_L1_BYTES / 8;
    }
  }

  /// An entry for a table to come.
  ///
  /// Spec: version 3 wants at least 16 bytes of extra data; qemu writes 24 in both versions.
  static Entry entry(long l1Offset, int l1Entries, InternalSnapshot snapshot) {
    byte[] id = snapshot.id().getBytes(UTF_8);
    byte[] name = snapshot.name().getBytes(UTF_8);
    ByteBuffer raw =
        Header.bigEndian((int) padded(At.EXTRA + EXTRA_KNOWN + id.length + name.length));
    raw.putLong(At.L1_OFFSET, l1Offset);
    raw.putInt(At.L1_ENTRIES, l1Entries);
    raw.putShort(At.ID_LENGTH, (short) id.length);
    raw.putShort(At.NAME_LENGTH, (short) name.length);
    Instant date = snapshot.date();
    raw.putInt(At.SECONDS, (int) date.getEpochSecond());
    raw.putInt(At.NANOS, date.getNano());
    raw.putLong(At.GUEST_CLOCK, snapshot.guestClock().toNanos());
    raw.putInt(At.STATE_BYTES, (int) Math.min(snapshot.vmStateBytes(), 0xffff_ffffL));
    raw.putInt(At.EXTRA_LENGTH, EXTRA_KNOWN);
    raw.putLong(At.EXTRA + At.EXTRA_STATE_BYTES, snapshot.vmStateBytes());
    raw.putLong(At.EXTRA + At.EXTRA_VIRTUAL_SIZE, snapshot.virtualSize());
    raw.putLong(At.EXTRA + At.EXTRA_INSTRUCTIONS, snapshot.instructions().orElse(-1));
    raw.put(At.EXTRA + EXTRA_KNOWN, id);
    raw.put(At.EXTRA + EXTRA_KNOWN + id.length, name);
    return new Entry(l1Offset, l1Entries, snapshot, raw);
  }

  /// The entry as version 3 wants it: with the size of its disk. Extra data that goes past what is
  /// known here stays as it is.
  static Entry forVersion3(Entry entry) {
    return entry.raw().getInt(At.EXTRA_LENGTH) >= At.EXTRA_VIRTUAL_SIZE + 8
        ? entry
        : entry(entry.l1Offset(), entry.l1Entries(), entry.snapshot());
  }

  static long padded(long bytes) {
    return (bytes + 7) & ~7L;
  }

  /// What a table of `count` snapshots takes at least, as far as they are handled.
  static long leastBytes(long count) {
    return At.EXTRA * Math.min(count, MAX_ENTRIES);
  }

  /// The bytes of a table of these entries; extra data of other software is kept.
  static ByteBuffer write(HostFile file, List<Entry> entries) throws BlockException {
    long bytes = 0;
    for (Entry entry : entries) {
      bytes += entry.raw().limit();
    }
    if (entries.size() > MAX_ENTRIES || bytes > MAX_BYTES) {
      throw new UnsupportedImageException(
          file.name()
              + ": "
              + entries.size()
              + " internal snapshots in a table of "
              + bytes
              + " bytes, at most "
              + MAX_ENTRIES
              + " in "
              + MAX_BYTES
              + " are possible");
    }
    ByteBuffer table = Header.bigEndian((int) bytes);
    for (Entry entry : entries) {
      table.put(entry.raw().duplicate().rewind());
    }
    return table.flip();
  }

  static final class At {
    static final int L1_OFFSET = 0; //     u64, host bytes, cluster-aligned
    static final int L1_ENTRIES = 8; //    u32
    static final int ID_LENGTH = 12; //    u16
    static final int NAME_LENGTH = 14; //  u16
    static final int SECONDS = 16; //      u32, since the epoch
    static final int NANOS = 20; //        u32
    static final int GUEST_CLOCK = 24; //  u64, nanoseconds
    static final int STATE_BYTES = 32; //  u32
    static final int EXTRA_LENGTH = 36; // u32
    static final int EXTRA = 40;
    static final int EXTRA_STATE_BYTES = 0; //  u64, in the extra data
    static final int EXTRA_VIRTUAL_SIZE = 8; // u64
    static final int EXTRA_INSTRUCTIONS = 16; // u64, all ones: not counted
  }

  /// Reads the table, and holds it against the limits and the file.
  static SnapshotTable read(HostFile file, Header header) throws BlockException {
    SnapshotTable table = look(file, header);
    table.requireL1Tables(file, header);
    return table;
  }

  /// The same, but where the snapshots' L1 tables lie remains to be checked.
  static SnapshotTable look(HostFile file, Header header) throws BlockException {
    SnapshotSalvage found = SnapshotSalvage.read(file, header);
    found.requireWhole(file);
    return found.table();
  }

  /// Indexes of the entries that lack what a version wants.
  ///
  /// Spec: version 3 wants the 64-bit size of the state, and the size of the disk.
  List<Integer> incomplete(int version) {
    var found = new ArrayList<Integer>();
    for (int i = 0; version >= 3 && i < entries.size(); i++) {
      if (entries.get(i).raw().getInt(At.EXTRA_LENGTH) < At.EXTRA_VIRTUAL_SIZE + 8) {
        found.add(i);
      }
    }
    return found;
  }

  /// The L1 tables lie cluster-aligned inside the file, and are no larger than they may be.
  void requireL1Tables(HostFile file, Header header) throws BlockException {
    Geometry geometry = header.geometry();
    long most = geometry.clusters(file.length()) << geometry.clusterBits();
    for (int i = 0; i < entries.size(); i++) {
      Entry entry = entries.get(i);
      if (!entry.hasL1Entries()) {
        throw new UnsupportedImageException(
            file.name()
                + ": internal snapshot "
                + i
                + ": L1 table of "
                + Integer.toUnsignedString(entry.l1Entries())
                + " entries, at most "
                + Geometry.MAX_L1_BYTES / 8
                + " are handled");
      }
      if (!geometry.aligned(entry.l1Offset())
          || entry.l1Offset() < (entry.l1Entries() == 0 ? 0 : geometry.clusterSize())
          || entry.l1Offset() > most - 8L * entry.l1Entries()) {
        throw new CorruptImageException(
            file.name()
                + ": internal snapshot "
                + i
                + ": L1 table at 0x"
                + Long.toHexString(entry.l1Offset())
                + " is not cluster-aligned inside the file");
      }
    }
  }

  /// @param raw a whole entry, padded
  static Entry parse(ByteBuffer raw, Header header) {
    int extra = raw.getInt(At.EXTRA_LENGTH);
    int id = Short.toUnsignedInt(raw.getShort(At.ID_LENGTH));
    int name = Short.toUnsignedInt(raw.getShort(At.NAME_LENGTH));
    boolean hasState = extra >= At.EXTRA_STATE_BYTES + 8;
    boolean hasSize = extra >= At.EXTRA_VIRTUAL_SIZE + 8;
    boolean hasInstructions = extra >= At.EXTRA_INSTRUCTIONS + 8;
    long instructions = hasInstructions ? raw.getLong(At.EXTRA + At.EXTRA_INSTRUCTIONS) : -1;
    return new Entry(
        raw.getLong(At.L1_OFFSET),
        raw.getInt(At.L1_ENTRIES),
        new InternalSnapshot(
            text(raw, At.EXTRA + extra, id),
            text(raw, At.EXTRA + extra + id, name),
            Instant.ofEpochSecond(
                Integer.toUnsignedLong(raw.getInt(At.SECONDS)),
                Integer.toUnsignedLong(raw.getInt(At.NANOS))),
            Duration.ofNanos(Math.max(0, raw.getLong(At.GUEST_CLOCK))),
            hasState
                ? raw.getLong(At.EXTRA + At.EXTRA_STATE_BYTES)
                : Integer.toUnsignedLong(raw.getInt(At.STATE_BYTES)),
            hasSize ? raw.getLong(At.EXTRA + At.EXTRA_VIRTUAL_SIZE) : header.virtualSize(),
            instructions == -1 ? OptionalLong.empty() : OptionalLong.of(instructions)),
        raw);
  }

  /// qemu: ends at the first byte 0.
  private static String text(ByteBuffer raw, int at, int length) {
    byte[] bytes = new byte[length];
    raw.get(at, bytes);
    int end = 0;
    while (end < length && bytes[end] != 0) {
      end++;
    }
    return new String(bytes, 0, end, UTF_8);
  }
}
