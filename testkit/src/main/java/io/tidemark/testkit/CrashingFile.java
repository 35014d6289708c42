// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/// A file in memory that stands beneath a format where a `FileNode` would, and that loses power.
///
/// What a power cut may leave ([#crash]): every sector of 512 bytes holds what it held at the last
/// flush or anything it has held since; sectors choose independently, so writes are torn, lost and
/// reordered; the size is the flushed one or any since. A sector itself is never torn, and a change
/// of a part of it includes the earlier changes of the rest, as in a page cache.
///
/// Faults are injected by number, counted from the call that asks for them: [#failWrite],
/// [#failFlush], [#cutPowerAt]. A write that fails may have changed any of its sectors. A flush
/// that failed fails from then on, as a `FileNode`'s.
///
/// Any thread may call; calls run one at a time.
public final class CrashingFile implements BlockNode {
  public static final int SECTOR = 512;

  /// How an injected fault looks to the caller.
  public enum Fault {
    OUT_OF_SPACE,
    TRANSPORT
  }

  /// What a sector came to hold by a step; null bytes are zeroes.
  private static final class Version {
    private final long step;
    private final byte @Nullable [] bytes;

    Version(long step, byte @Nullable [] bytes) {
      this.step = step;
      this.bytes = bytes;
    }
  }

  private record SizeVersion(long step, long size) {}

  private static final class Sector {
    private byte @Nullable [] flushed; // null: zeroes
    private final List<Version> since = new ArrayList<>(1);

    byte @Nullable [] current() {
      return since.isEmpty() ? flushed : since.getLast().bytes;
    }
  }

  private final long seed;
  private final Random faults;
  private final TreeMap<Long, Sector> sectors = new TreeMap<>();
  private final Set<Long> unflushed = new HashSet<>();
  private long flushedSize;
  private final List<SizeVersion> sizes = new ArrayList<>();

  private long steps;
  private long writes;
  private long flushes;
  private long failWriteAt;
  private long failFlushAt;
  private long cutAt = Long.MAX_VALUE;
  private Fault writeFault = Fault.TRANSPORT;
  private Fault flushFault = Fault.TRANSPORT;
  private boolean poisoned;
  private boolean closed;

  /// An empty file. The seed decides what injected faults leave, and what [#afterCrash] does.
  public CrashingFile(long seed) {
    this.seed = seed;
    this.faults = new Random(seed);
  }

  /// An all-zero file of `size` bytes, flushed.
  public static CrashingFile ofSize(long seed, long size) {
    var file = new CrashingFile(seed);
    file.flushedSize = size;
    return file;
  }

  // ---- faults

  /// The `n`-th write, zero, discard or resize from now fails (1: the next).
  public synchronized void failWrite(long n, Fault fault) {
    failWriteAt = writes + n;
    writeFault = fault;
  }

  /// The `n`-th flush from now fails (1: the next), and all after it.
  public synchronized void failFlush(long n, Fault fault) {
    failFlushAt = flushes + n;
    flushFault = fault;
  }

  /// At the `n`-th step from now (1: the next; 0: at once) power is cut: that step and every call
  /// after it throws. A step is a write, zero, discard, resize or flush; a change that is cut off
  /// may be there in part, a flush that is cut off has promised nothing.
  public synchronized void cutPowerAt(long n) {
    cutAt = steps + n;
  }

  /// Steps taken so far, for tests that cut power at each of them.
  public synchronized long steps() {
    return steps;
  }

  public synchronized long flushes() {
    return flushes;
  }

  public synchronized boolean powerIsCut() {
    return steps >= cutAt;
  }

  // ---- what a power cut leaves

  /// [#crash] by the file's own seed.
  public CrashingFile afterCrash() {
    return crash(seed);
  }

  /// One of the files that a power cut at this moment may leave; this file stays as it is, so that
  /// several can be looked at. The result is flushed, and can crash again.
  public synchronized CrashingFile crash(long crashSeed) {
    var random = new Random(crashSeed * 0x9E3779B97F4A7C15L + 1);
    Choice choice = choice(random);
    var left = new CrashingFile(crashSeed);
    left.flushedSize = flushedSize;
    for (SizeVersion version : sizes) {
      if (choice.keeps(version.step())) {
        left.flushedSize = version.size();
      }
    }
    for (Map.Entry<Long, Sector> entry : sectors.entrySet()) {
      Sector sector = entry.getValue();
      byte[] bytes = sector.flushed;
      for (Version version : sector.since) {
        if (choice.keeps(version.step)) {
          bytes = version.bytes;
        }
      }
      if (bytes != null && entry.getKey() * SECTOR < left.flushedSize) {
        left.put(entry.getKey(), clip(bytes, left.flushedSize - entry.getKey() * SECTOR));
      }
    }
    return left;
  }

  /// As after a clean end of all: everything is flushed.
  public synchronized CrashingFile copy() {
    var copy = new CrashingFile(seed);
    copy.flushedSize = virtualSize();
    sectors.forEach((index, sector) -> {
      byte[] bytes = sector.current();
      if (bytes != null) {
        copy.put(index, bytes);
      }
    });
    return copy;
  }

  private void put(long index, byte[] bytes) {
    var sector = new Sector();
    sector.flushed = bytes;
    sectors.put(index, sector);
  }

  private static byte[] clip(byte[] bytes, long length) {
    if (length >= SECTOR) {
      return bytes;
    }
    var clipped = new byte[SECTOR];
    System.arraycopy(bytes, 0, clipped, 0, (int) length);
    return clipped;
  }

  private interface Choice {
    boolean keeps(long step);
  }

  /// Faults that matter show under different shapes of loss, so there are several.
  private Choice choice(Random random) {
    long upTo = steps == 0 ? 0 : random.nextLong(steps + 1);
    double share = random.nextDouble();
    long salt = random.nextLong();
    return switch (random.nextInt(8)) {
      case 0 -> _ -> false;
      case 1 -> _ -> true;
      case 2 -> step -> step <= upTo; // in order up to a moment
      case 3 -> step -> step > upTo; // the oldest are the ones not yet written back
      case 4, 5 -> step -> new Random(step ^ salt).nextDouble() < share; // whole steps
      default -> _ -> random.nextDouble() < share; // each sector for itself
    };
  }

  /// Writes what reads show now into a file that must not exist, for other programs to look at.
  public synchronized void writeTo(Path path) throws IOException {
    try (FileChannel channel =
        FileChannel.open(path, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      long size = virtualSize();
      for (Map.Entry<Long, Sector> entry : sectors.entrySet()) {
        byte[] bytes = entry.getValue().current();
        long offset = entry.getKey() * SECTOR;
        if (bytes != null && offset < size) {
          ByteBuffer part = ByteBuffer.wrap(bytes, 0, (int) Math.min(SECTOR, size - offset));
          while (part.hasRemaining()) {
            offset += channel.write(part, offset);
          }
        }
      }
      if (channel.size() < size) {
        channel.write(ByteBuffer.allocate(1), size - 1);
      }
    }
  }

  // ---- the node

  @Override
  public String name() {
    return "crashing-" + seed;
  }

  @Override
  public synchronized long virtualSize() {
    return sizes.isEmpty() ? flushedSize : sizes.getLast().size();
  }

  @Override
  public boolean readOnly() {
    return false;
  }

  /// It stays writable: who it belongs to is what refuses.
  @Override
  public void reopen(boolean wantReadOnly) {}

  @Override
  public synchronized void read(long offset, ByteBuffer into) throws BlockException {
    alive();
    check(offset, into.remaining());
    long at = offset;
    while (into.hasRemaining()) {
      int in = (int) (at % SECTOR);
      int length = Math.min(SECTOR - in, into.remaining());
      byte[] bytes = current(at / SECTOR);
      if (bytes == null) {
        Zeroes.fill(into.slice(into.position(), length));
        into.position(into.position() + length);
      } else {
        into.put(bytes, in, length);
      }
      at += length;
    }
  }

  private byte @Nullable [] current(long index) {
    Sector sector = sectors.get(index);
    return sector == null ? null : sector.current();
  }

  @Override
  public synchronized void write(long offset, ByteBuffer from) throws BlockException {
    alive();
    check(offset, from.remaining());
    BlockException fault = nextWrite();
    int kept = keptBy(fault, from.remaining());
    long at = offset;
    while (from.hasRemaining()) {
      int in = (int) (at % SECTOR);
      int length = Math.min(SECTOR - in, from.remaining());
      if (at - offset < kept) {
        byte[] old = current(at / SECTOR);
        byte[] bytes = old == null ? new byte[SECTOR] : old.clone();
        from.get(bytes, in, length);
        change(at / SECTOR, bytes);
      } else {
        from.position(from.position() + length);
      }
      at += length;
    }
    if (fault != null) {
      throw fault;
    }
  }

  /// Bytes from the start of a change that happen although it fails.
  private int keptBy(@Nullable BlockException fault, long length) {
    int all = (int) Math.min(length, Integer.MAX_VALUE);
    return fault == null ? all : faults.nextInt(all + 1);
  }

  @Override
  public synchronized void writeZeroes(long offset, long length, ZeroMode mode)
      throws BlockException {
    alive();
    check(offset, length);
    BlockException fault = nextWrite();
    if (fault == null || faults.nextBoolean()) {
      zero(offset, offset + length);
    }
    if (fault != null) {
      throw fault;
    }
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
  }

  private void zero(long offset, long end) {
    if (offset >= end) {
      return;
    }
    for (long index :
        List.copyOf(sectors.subMap(offset / SECTOR, (end + SECTOR - 1) / SECTOR).keySet())) {
      byte[] old = current(index);
      if (old == null) {
        continue;
      }
      int from = (int) Math.max(0, offset - index * SECTOR);
      int to = (int) Math.min(SECTOR, end - index * SECTOR);
      if (to - from == SECTOR) {
        change(index, null);
      } else {
        byte[] bytes = old.clone();
        Arrays.fill(bytes, from, to, (byte) 0);
        change(index, bytes);
      }
    }
  }

  private void change(long index, byte @Nullable [] bytes) {
    sectors.computeIfAbsent(index, _ -> new Sector()).since.add(new Version(steps, bytes));
    unflushed.add(index);
  }

  @Override
  public synchronized void resize(long newSize) throws BlockException {
    alive();
    if (newSize < 0) {
      throw new IllegalArgumentException(name() + ": size " + newSize);
    }
    BlockException fault = nextWrite();
    if (fault != null) {
      throw fault;
    }
    zero(newSize, Math.max(newSize, virtualSize()));
    sizes.add(new SizeVersion(steps, newSize));
  }

  @Override
  public synchronized void flush() throws BlockException {
    alive();
    steps++;
    flushes++;
    alive();
    if (flushes == failFlushAt) {
      poisoned = true;
      throw exception(flushFault, "flush");
    }
    if (poisoned) {
      throw new TransportException(name() + ": an earlier flush failed");
    }
    flushedSize = virtualSize();
    sizes.clear();
    for (long index : unflushed) {
      Sector sector = sectors.get(index);
      if (sector != null) {
        sector.flushed = sector.current();
        sector.since.clear();
        if (sector.flushed == null) {
          sectors.remove(index);
        }
      }
    }
    unflushed.clear();
  }

  /// Counts a change.
  ///
  /// @return what it is to fail with, or null
  private @Nullable BlockException nextWrite() {
    steps++;
    writes++;
    if (steps >= cutAt) {
      return powerCut();
    }
    return writes == failWriteAt ? exception(writeFault, "write") : null;
  }

  private void alive() throws TransportException {
    if (steps >= cutAt) {
      throw powerCut();
    }
    if (closed) {
      throw new TransportException(name() + ": node is closed");
    }
  }

  private TransportException powerCut() {
    return new TransportException(name() + ": power is cut");
  }

  private BlockException exception(Fault fault, String what) {
    return switch (fault) {
      case OUT_OF_SPACE -> new OutOfSpaceException(name() + ": " + what + ": injected: no space");
      case TRANSPORT ->
          new TransportException(name() + ": " + what + ": injected: input/output error");
    };
  }

  @Override
  public synchronized void extents(long offset, long length, ExtentVisitor visitor)
      throws BlockException {
    alive();
    check(offset, length);
    long end = offset + length;
    long at = offset;
    while (at < end) {
      boolean data = current(at / SECTOR) != null;
      long next = at;
      while (next < end && (current(next / SECTOR) != null) == data) {
        Long after = data ? Long.valueOf(next / SECTOR + 1) : sectors.higherKey(next / SECTOR);
        next = after == null ? end : Math.min(end, after * SECTOR);
      }
      var state = data ? Extent.State.DATA : Extent.State.ZERO;
      if (!visitor.visit(new Extent(at, next - at, state, at, false))) {
        return;
      }
      at = next;
    }
  }

  @Override
  public synchronized long allocatedBytes() {
    return sectors.values().stream().filter(s -> s.current() != null).count() * SECTOR;
  }

  private void check(long offset, long length) {
    long size = virtualSize();
    if (offset < 0 || length < 0 || offset > size - length) {
      throw new IllegalArgumentException(
          name() + ": " + length + " bytes at " + offset + " of " + size);
    }
  }

  /// Flushes nothing. The file can still crash, be copied and be opened again by [#reopen].
  @Override
  public synchronized void close() {
    closed = true;
  }

  /// Makes a closed file usable again, as after the end of a process without a power cut: all that
  /// was written is there, flushed or not.
  public synchronized CrashingFile reopen() {
    closed = false;
    poisoned = false;
    return this;
  }
}
