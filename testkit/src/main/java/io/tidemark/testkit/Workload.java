// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.Random;

/// Random guest requests from a seed: writes, zeroes, discards, flushes and reads; some on hot
/// spots, some all over the disk; aligned to sectors, pages or clusters, or to nothing.
///
/// Every write has content of its own, so that stale and misplaced bytes are told apart. Every read
/// is compared with the model.
public final class Workload {
  /// Requests after which [#runUntilCrash] gives up waiting for one.
  public static final int MAX_OPERATIONS = 100_000;

  private static final int[] ALIGNMENTS = {1, 512, 4096, 65536};

  private final Random random;
  private int maxLength = 256 * 1024;
  private boolean discards = true;
  private int flushPercent = 6;
  private int compressedPercent;
  private long[] hot = {};
  private long count;

  // The range of the last change asked for, for settling it when it fails.
  private long lastOffset;
  private int lastLength;

  private Workload(long seed) {
    random = new Random(seed);
  }

  public static Workload random(long seed) {
    return new Workload(seed);
  }

  /// The longest request in bytes; 256 KiB unless told.
  public Workload maxLength(int bytes) {
    maxLength = bytes;
    return this;
  }

  /// For nodes whose discards the model cannot follow.
  public Workload withoutDiscards() {
    discards = false;
    return this;
  }

  /// Flushes in a hundred requests; 6 unless told.
  public Workload flushPercent(int percent) {
    flushPercent = percent;
    return this;
  }

  /// Of a hundred writes, those of one whole cluster that may shrink, written compressed to a
  /// format that can; none unless told.
  public Workload compressedPercent(int percent) {
    compressedPercent = percent;
    return this;
  }

  /// Runs `operations` requests on the disk and the model. When one fails the model knows it as
  /// attempted only, and the failure goes to the caller.
  public void run(BlockNode disk, ModelDisk model, int operations) throws BlockException {
    for (int i = 0; i < operations; i++) {
      step(disk, model);
    }
  }

  /// As [#run], but goes on after a request that failed, as a guest does on a full disk; the disk
  /// must still be readable.
  ///
  /// @return how many failed
  public int runThroughFailures(BlockNode disk, ModelDisk model, int operations)
      throws BlockException {
    int failures = 0;
    for (int i = 0; i < operations; i++) {
      lastLength = 0;
      try {
        step(disk, model);
      } catch (BlockException _) {
        failures++;
        model.settle(disk, lastOffset, lastLength);
      }
    }
    return failures;
  }

  /// Runs until a request fails.
  ///
  /// @return the failure
  public BlockException runUntilCrash(BlockNode disk, ModelDisk model) {
    try {
      run(disk, model, MAX_OPERATIONS);
    } catch (BlockException crash) {
      return crash;
    }
    throw new AssertionError("no request of " + MAX_OPERATIONS + " failed");
  }

  private void step(BlockNode disk, ModelDisk model) throws BlockException {
    int kind = random.nextInt(100);
    if (kind < flushPercent) {
      disk.flush();
      model.flushed();
      return;
    }
    int length = length(model.size());
    long offset = offset(model.size(), length);
    if (kind < 83) {
      lastOffset = offset;
      lastLength = length;
    }
    if (kind < 65
        && compressedPercent > 0
        && random.nextInt(100) < compressedPercent
        && disk instanceof FormatNode image
        && image.canWriteCompressed()) {
      writeCompressed(image, model, offset);
    } else if (kind < 65) {
      write(disk, model, offset, length);
    } else if (kind < 75) {
      byte[] zeroes = new byte[length];
      model.attempt(offset, zeroes);
      disk.writeZeroes(
          offset, length, random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP);
      model.acknowledge(offset, length);
    } else if (kind < 83 && discards) {
      model.attempt(offset, new byte[length]);
      discard(disk, model, offset, length);
    } else {
      read(disk, model, offset, length);
    }
  }

  private void write(BlockNode disk, ModelDisk model, long offset, int length)
      throws BlockException {
    byte[] bytes = content(length);
    model.attempt(offset, bytes);
    ByteBuffer from =
        random.nextBoolean()
            ? ByteBuffer.wrap(bytes)
            : ByteBuffer.allocateDirect(length).put(bytes).flip();
    disk.write(offset, from);
    if (from.hasRemaining()) {
      throw new AssertionError(disk.name() + ": write left " + from.remaining() + " bytes");
    }
    model.acknowledge(offset, length);
  }

  private void writeCompressed(FormatNode image, ModelDisk model, long within)
      throws BlockException {
    long clusterSize = image.clusterSize();
    lastOffset = within / clusterSize * clusterSize;
    lastLength = (int) Math.min(clusterSize, model.size() - lastOffset);
    byte[] bytes = content(lastLength);
    int kept = random.nextInt(lastLength + 1); // the rest packs well
    for (int at = kept; at < lastLength; at++) {
      bytes[at] = (byte) (count + at / 512);
    }
    model.attempt(lastOffset, bytes);
    image.writeCompressed(lastOffset, ByteBuffer.wrap(bytes));
    model.acknowledge(lastOffset, lastLength);
  }

  private static void discard(BlockNode disk, ModelDisk model, long offset, int length)
      throws BlockException {
    disk.discard(offset, length);
    model.settle(disk, offset, length);
  }

  private static void read(BlockNode disk, ModelDisk model, long offset, int length)
      throws BlockException {
    byte[] bytes = new byte[length];
    disk.read(offset, ByteBuffer.wrap(bytes));
    int differs = java.util.Arrays.mismatch(bytes, model.read(offset, length));
    if (differs >= 0) {
      throw new AssertionError(
          "%s: read of %d bytes at 0x%x differs at 0x%x"
              .formatted(disk.name(), length, offset, offset + differs));
    }
  }

  /// Mostly bytes that name their write; now and then zeroes, as guests write them.
  private byte[] content(int length) {
    byte[] bytes = new byte[length];
    count++;
    if (random.nextInt(12) != 0) {
      new Random(count * 31 + length).nextBytes(bytes);
      ByteBuffer view = ByteBuffer.wrap(bytes);
      for (int at = 0; at + Long.BYTES <= length; at += 512) {
        view.putLong(at, count | 1L << 62);
      }
    }
    return bytes;
  }

  private int length(long size) {
    int most = (int) Math.min(maxLength, size);
    int alignment = ALIGNMENTS[random.nextInt(ALIGNMENTS.length)];
    int length = 1 + (int) (most * Math.pow(random.nextDouble(), 4));
    length = (length + alignment - 1) / alignment * alignment;
    return Math.max(1, Math.min(length, most));
  }

  private long offset(long size, int length) {
    if (hot.length == 0) {
      hot = new long[4];
      for (int i = 0; i < hot.length; i++) {
        hot[i] = size == 0 ? 0 : random.nextLong(size);
      }
    }
    long room = size - length;
    long any =
        random.nextInt(3) == 0
            ? random.nextLong(room + 1)
            : hot[random.nextInt(hot.length)] + random.nextLong(4L * 65536);
    int alignment = ALIGNMENTS[random.nextInt(ALIGNMENTS.length)];
    return Math.clamp(any / alignment * alignment, 0, room);
  }
}
