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

  /// @param l1Offset host bytes
  record Entry(long l1Offset, int l1Entries, InternalSnapshot snapshot) {}

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
            instructions(rest, extra)));
  }

  private static OptionalLong instructions(ByteBuffer rest, int extra) {
    if (extra < At.EXTRA_INSTRUCTIONS + 8 || rest.getLong(At.EXTRA_INSTRUCTIONS) == -1) {
      return OptionalLong.empty();
    }
    return OptionalLong.of(rest.getLong(At.EXTRA_INSTRUCTIONS));
  }
}
