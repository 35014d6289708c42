// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// A disk that is plainly right: what was written to it, what of that is flushed, and therefore
/// what the real one may show after the death of its process or a power cut.
///
/// Each change is told in two steps: [#attempt] before the real disk is asked, [#acknowledge] when
/// it has answered; [#write] is both. One thread at a time.
public final class ModelDisk {
  private static final int SECTOR = 512;

  /// One sector's past: `versions[0]` is flushed content; what follows was written since.
  private static final class Sector {
    private final List<byte[]> versions = new ArrayList<>(2);
    private int acknowledged; // index into versions
  }

  private final long size;
  private final byte[] content; // acknowledged, or attempted since
  private final Map<Integer, Sector> changed = new HashMap<>(); // since the last flush

  /// An all-zero disk. At most 1 GiB: it is kept in memory.
  public ModelDisk(long size) {
    if (size < 0 || size > 1 << 30) {
      throw new IllegalArgumentException("model disk of " + size + " bytes, at most 1 GiB");
    }
    this.size = size;
    this.content = new byte[(int) ((size + SECTOR - 1) / SECTOR * SECTOR)];
  }

  /// A disk that holds, flushed, what the node does now.
  public static ModelDisk of(BlockNode node) throws BlockException {
    var model = new ModelDisk(node.virtualSize());
    node.read(0, ByteBuffer.wrap(model.content, 0, (int) model.size));
    return model;
  }

  public long size() {
    return size;
  }

  /// The latest content of a range.
  public byte[] read(long offset, int length) {
    return Arrays.copyOfRange(content, (int) offset, (int) offset + length);
  }

  /// A change that the real disk is about to be asked for.
  public void attempt(long offset, byte[] bytes) {
    if (bytes.length == 0) {
      return;
    }
    int first = (int) (offset / SECTOR);
    int last = (int) ((offset + bytes.length - 1) / SECTOR);
    for (int index = first; index <= last; index++) {
      Sector sector = changed.computeIfAbsent(index, this::unchanged);
      int from = (int) Math.max(offset, (long) index * SECTOR);
      int to = (int) Math.min(offset + bytes.length, (long) (index + 1) * SECTOR);
      System.arraycopy(bytes, (int) (from - offset), content, from, to - from);
      sector.versions.add(sectorNow(index));
    }
  }

  private Sector unchanged(int index) {
    var sector = new Sector();
    sector.versions.add(sectorNow(index));
    return sector;
  }

  private byte[] sectorNow(int index) {
    return Arrays.copyOfRange(content, index * SECTOR, (index + 1) * SECTOR);
  }

  /// The last [#attempt] on this range was answered well.
  public void acknowledge(long offset, long length) {
    if (length == 0) {
      return;
    }
    for (int i = (int) (offset / SECTOR); i <= (int) ((offset + length - 1) / SECTOR); i++) {
      Sector sector = changed.get(i);
      if (sector != null) {
        sector.acknowledged = sector.versions.size() - 1;
      }
    }
  }

  public void write(long offset, byte[] bytes) {
    attempt(offset, bytes);
    acknowledge(offset, bytes.length);
  }

  public void zero(long offset, int length) {
    write(offset, new byte[length]);
  }

  /// The last [#attempt] on this range left each byte as it was or as it was to be: a discard,
  /// whose units the format chooses, or a request that failed. Which it is, is read from the disk,
  /// checked and remembered.
  public void settle(BlockNode disk, long offset, int length) throws BlockException {
    byte[] now = new byte[length];
    disk.read(offset, ByteBuffer.wrap(now));
    for (int i = 0; i < length; i++) {
      int at = (int) offset + i;
      byte wanted = content[at];
      byte before = before(at);
      if (now[i] != wanted && now[i] != before) {
        throw new AssertionError(
            "%s: byte 0x%x is %d, neither %d as before nor %d as asked for"
                .formatted(disk.name(), at, now[i], before, wanted));
      }
    }
    write(offset, now);
  }

  private byte before(int at) {
    Sector sector = changed.get(at / SECTOR);
    if (sector == null) {
      return content[at];
    }
    return sector.versions.get(Math.max(0, sector.versions.size() - 2))[at % SECTOR];
  }

  /// A flush was acknowledged: all acknowledged writes are promised.
  public void flushed() {
    changed.values().removeIf(sector -> sector.acknowledged == sector.versions.size() - 1);
    for (Sector sector : changed.values()) {
      sector.versions.subList(0, sector.acknowledged).clear();
      sector.acknowledged = 0;
    }
  }

  /// After the death of the process: each sector holds the last acknowledged content, or a later
  /// attempt's.
  public void holdsAcknowledged(BlockNode disk) throws BlockException {
    compare(disk, false);
  }

  /// After a power cut: each sector holds the flushed content or something written later.
  public void holdsAtLeastFlushed(BlockNode disk) throws BlockException {
    compare(disk, true);
  }

  /// Whether the disk holds, in the sector at `offset`, something that it may have held before the
  /// last [#attempt] on it.
  public boolean holdsEarlier(BlockNode disk, long offset) throws BlockException {
    int index = (int) (offset / SECTOR);
    Sector sector = changed.get(index);
    if (sector == null) {
      return true;
    }
    byte[] now = new byte[(int) Math.min(SECTOR, size - (long) index * SECTOR)];
    disk.read((long) index * SECTOR, ByteBuffer.wrap(now));
    for (byte[] version : sector.versions.subList(0, Math.max(1, sector.versions.size() - 1))) {
      if (Arrays.equals(now, 0, now.length, version, 0, now.length)) {
        return true;
      }
    }
    return false;
  }

  /// While all is well: the disk reads as the model does, byte for byte.
  public void holdsExactly(BlockNode disk) throws BlockException {
    requireSize(disk);
    int step = 1 << 20;
    byte[] now = new byte[step];
    for (long at = 0; at < size; at += step) {
      int length = (int) Math.min(step, size - at);
      disk.read(at, ByteBuffer.wrap(now, 0, length));
      int differs = Arrays.mismatch(now, 0, length, content, (int) at, (int) at + length);
      if (differs >= 0) {
        throw new AssertionError(
            "%s: byte 0x%x is %d, wanted %d"
                .formatted(disk.name(), at + differs, now[differs], content[(int) at + differs]));
      }
    }
  }

  private void requireSize(BlockNode disk) {
    if (disk.virtualSize() != size) {
      throw new AssertionError(
          disk.name() + ": has " + disk.virtualSize() + " bytes, wanted " + size);
    }
  }

  private void compare(BlockNode disk, boolean sinceFlush) throws BlockException {
    requireSize(disk);
    int step = 1 << 20;
    byte[] now = new byte[step];
    for (long at = 0; at < size; at += step) {
      int length = (int) Math.min(step, size - at);
      disk.read(at, ByteBuffer.wrap(now, 0, length));
      for (int in = 0; in < length; in += SECTOR) {
        compareSector(disk, (int) (at / SECTOR) + in / SECTOR, now, in, sinceFlush);
      }
    }
  }

  private void compareSector(BlockNode disk, int index, byte[] now, int in, boolean sinceFlush) {
    int length = (int) Math.min(SECTOR, size - (long) index * SECTOR);
    Sector sector = changed.get(index);
    if (sector == null) {
      int from = index * SECTOR;
      if (!Arrays.equals(now, in, in + length, content, from, from + length)) {
        throw wrong(disk, index, "the flushed content", now, in);
      }
      return;
    }
    int oldest = sinceFlush ? 0 : sector.acknowledged;
    for (byte[] version : sector.versions.subList(oldest, sector.versions.size())) {
      if (Arrays.equals(now, in, in + length, version, 0, length)) {
        return;
      }
    }
    throw wrong(
        disk,
        index,
        "one of " + (sector.versions.size() - oldest) + " contents it may have",
        now,
        in);
  }

  private static AssertionError wrong(
      BlockNode disk, int index, String wanted, byte[] now, int in) {
    return new AssertionError(
        "%s: sector %d at 0x%x does not hold %s; it starts with %s"
            .formatted(
                disk.name(),
                index,
                (long) index * SECTOR,
                wanted,
                java.util.HexFormat.of().formatHex(now, in, in + 16)));
  }
}
