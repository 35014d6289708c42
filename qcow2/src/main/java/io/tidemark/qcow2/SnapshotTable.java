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
  /// qemu: QCOW_MAX_SNAPSHOTS_SIZE.
  static final long MAX_BYTES = 64L << 20;

  /// qemu: QCOW_MAX_SNAPSHOT_EXTRA_DATA.
  static final int MAX_EXTRA = 1024;

  /// What an entry of ours holds of extra data: all that the specification knows.
  private static final int EXTRA_KNOWN = 24;

  /// @param l1Offset host bytes
  /// @param raw the entry as the table holds it, or is to
  record Entry(long l1Offset, int l1Entries, InternalSnapshot snapshot, ByteBuffer raw) {}

  /// An entry for a table to come.
  ///
  /// Spec: version 3 wants at least 16 bytes of extra data; qemu writes 24 in both versions.
  static Entry entry(long l1Offset, int l1Entries, InternalSnapshot snapshot) {
    byte[] id = snapshot.id().getBytes(UTF_8);
    byte[] name = snapshot.name().getBytes(UTF_8);
    ByteBuffer raw = Header.bigEndian(padded(At.EXTRA + EXTRA_KNOWN + id.length + name.length));
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

  private static int padded(int bytes) {
    return (bytes + 7) & ~7;
  }

  /// The bytes of a table of these entries; extra data of other software is kept.
  static ByteBuffer write(HostFile file, List<Entry> entries) throws BlockException {
    long bytes = 0;
    for (Entry entry : entries) {
      bytes += entry.raw().limit();
    }
    if (entries.size() > Header.MAX_SNAPSHOTS || bytes > MAX_BYTES) {
      throw new UnsupportedImageException(
          file.name()
              + ": "
              + entries.size()
              + " internal snapshots in a table of "
              + bytes
              + " bytes, at most "
              + Header.MAX_SNAPSHOTS
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

  private static final class At {
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

  static SnapshotTable read(HostFile file, Header header) throws BlockException {
    var entries = new ArrayList<Entry>();
    long at = header.snapshotsOffset();
    for (int i = 0; i < header.snapshotCount(); i++) {
      ByteBuffer fixed = part(file, header, at, At.EXTRA, i);
      int extra = fixed.getInt(At.EXTRA_LENGTH);
      int id = Short.toUnsignedInt(fixed.getShort(At.ID_LENGTH));
      int name = Short.toUnsignedInt(fixed.getShort(At.NAME_LENGTH));
      if (extra < 0 || extra > MAX_EXTRA) {
        throw new UnsupportedImageException(
            file.name()
                + ": internal snapshot "
                + i
                + ": extra data of "
                + Integer.toUnsignedString(extra)
                + " bytes, at most 1024 are handled");
      }
      ByteBuffer rest = part(file, header, at + At.EXTRA, extra + id + name, i);
      entries.add(entry(file, header, fixed, rest, extra, id, i));
      at += (At.EXTRA + extra + id + name + 7) & ~7;
    }
    return new SnapshotTable(List.copyOf(entries), at - header.snapshotsOffset());
  }

  private static ByteBuffer part(HostFile file, Header header, long at, int bytes, int index)
      throws BlockException {
    if (at + bytes > file.length() || at + bytes - header.snapshotsOffset() > MAX_BYTES) {
      throw new CorruptImageException(
          file.name()
              + ": internal snapshot "
              + index
              + " at 0x"
              + Long.toHexString(at)
              + " passes the end of the file or of the largest table");
    }
    return file.readAt(at, bytes);
  }

  private static Entry entry(
      HostFile file, Header header, ByteBuffer fixed, ByteBuffer rest, int extra, int id, int index)
      throws BlockException {
    Geometry geometry = header.geometry();
    long l1Offset = fixed.getLong(At.L1_OFFSET);
    int l1Entries = fixed.getInt(At.L1_ENTRIES);
    long most = geometry.clusters(file.length()) << geometry.clusterBits();
    if (l1Entries < 0 || l1Entries > Geometry.MAX_L1_BYTES / 8) {
      throw new UnsupportedImageException(
          file.name()
              + ": internal snapshot "
              + index
              + ": L1 table of "
              + Integer.toUnsignedString(l1Entries)
              + " entries, at most "
              + Geometry.MAX_L1_BYTES / 8
              + " are handled");
    }
    if (!geometry.aligned(l1Offset)
        || l1Offset < (l1Entries == 0 ? 0 : geometry.clusterSize())
        || l1Offset > most - 8L * l1Entries) {
      throw new CorruptImageException(
          file.name()
              + ": internal snapshot "
              + index
              + ": L1 table at 0x"
              + Long.toHexString(l1Offset)
              + " is not cluster-aligned inside the file");
    }
    boolean hasState = extra >= At.EXTRA_STATE_BYTES + 8;
    boolean hasSize = extra >= At.EXTRA_VIRTUAL_SIZE + 8;
    byte[] idText = new byte[id];
    rest.get(extra, idText);
    byte[] nameText = new byte[rest.remaining() - extra - id];
    rest.get(extra + id, nameText);
    return new Entry(
        l1Offset,
        l1Entries,
        new InternalSnapshot(
            new String(idText, UTF_8),
            new String(nameText, UTF_8),
            Instant.ofEpochSecond(
                Integer.toUnsignedLong(fixed.getInt(At.SECONDS)),
                Integer.toUnsignedLong(fixed.getInt(At.NANOS))),
            Duration.ofNanos(Math.max(0, fixed.getLong(At.GUEST_CLOCK))),
            hasState
                ? rest.getLong(At.EXTRA_STATE_BYTES)
                : Integer.toUnsignedLong(fixed.getInt(At.STATE_BYTES)),
            hasSize ? rest.getLong(At.EXTRA_VIRTUAL_SIZE) : header.virtualSize(),
            instructions(rest, extra)),
        Header.bigEndian(padded(fixed.limit() + rest.limit()))
            .put(fixed.duplicate().rewind())
            .put(rest.duplicate().rewind()));
  }

  private static OptionalLong instructions(ByteBuffer rest, int extra) {
    if (extra < At.EXTRA_INSTRUCTIONS + 8 || rest.getLong(At.EXTRA_INSTRUCTIONS) == -1) {
      return OptionalLong.empty();
    }
    return OptionalLong.of(rest.getLong(At.EXTRA_INSTRUCTIONS));
  }
}
