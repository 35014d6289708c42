// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;

/// What a guest did, in order, in a file that outlives it: each operation is noted before it is
/// sent, and counted as acknowledged when its answer came. One writer, one operation at a time; any
/// process may read beside it.
///
/// The state of the disk after operation N follows from the file alone, so a copy of the disk can
/// be compared with it bit for bit, for every N.
///
/// Layout, big-endian: disk blocks, seeded blocks (those that held operation 0 at the start),
/// acknowledged count, then one 64-bit word per operation from 1: kind (8 bits), count of blocks
/// (16), first block (40).
public final class GuestProof implements AutoCloseable {
  /// Operations a proof can hold: 8 bytes each, in a sparse file.
  public static final int MAX_OPERATIONS = 16 * 1024 * 1024;

  private static final int DISK_BLOCKS = 0;
  private static final int SEEDED_BLOCKS = 8;
  private static final int ACKNOWLEDGED = 16;
  private static final int NOTED = 24;
  private static final int OPERATIONS = 32;

  /// What an operation does to its blocks.
  public enum Kind {
    WRITE(1),
    ZERO(2),
    DISCARD(3);

    private final int code;

    Kind(int code) {
      this.code = code;
    }

    static Kind of(int code) {
      return switch (code) {
        case 1 -> WRITE;
        case 2 -> ZERO;
        case 3 -> DISCARD;
        default -> throw new IllegalStateException("proof holds an operation of kind " + code);
      };
    }

    /// Whether the blocks read as zeroes afterwards.
    boolean zeroes() {
      return this != WRITE;
    }
  }

  /// One operation of the guest.
  public record Operation(Kind kind, long firstBlock, int blocks) {}

  private final FileChannel channel;
  private final MappedByteBuffer map;

  private GuestProof(FileChannel channel, MappedByteBuffer map) {
    this.channel = channel;
    this.map = map;
  }

  /// Makes an empty proof for a disk of `diskBlocks`, whose first `seededBlocks` hold operation 0
  /// and whose others are zero.
  public static GuestProof create(Path file, long diskBlocks, long seededBlocks)
      throws IOException {
    var proof =
        map(
            FileChannel.open(
                file,
                StandardOpenOption.CREATE_NEW,
                StandardOpenOption.READ,
                StandardOpenOption.WRITE));
    proof.map.putLong(DISK_BLOCKS, diskBlocks);
    proof.map.putLong(SEEDED_BLOCKS, seededBlocks);
    return proof;
  }

  /// Opens a proof that another process may be writing.
  public static GuestProof open(Path file) throws IOException {
    return map(FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE));
  }

  private static GuestProof map(FileChannel channel) throws IOException {
    try {
      var map = channel.map(FileChannel.MapMode.READ_WRITE, 0, OPERATIONS + 8L * MAX_OPERATIONS);
      map.order(ByteOrder.BIG_ENDIAN);
      return new GuestProof(channel, map);
    } catch (IOException e) {
      channel.close();
      throw e;
    }
  }

  public long diskBlocks() {
    return map.getLong(DISK_BLOCKS);
  }

  public long seededBlocks() {
    return map.getLong(SEEDED_BLOCKS);
  }

  /// The last operation that was answered.
  public long acknowledged() {
    return map.getLong(ACKNOWLEDGED);
  }

  /// The last operation that was sent, or is about to be.
  public long noted() {
    return map.getLong(NOTED);
  }

  /// Notes an operation before it is sent; returns its number.
  long note(Operation operation) {
    long number = noted() + 1;
    if (number > MAX_OPERATIONS) {
      throw new IllegalStateException("proof is full at " + MAX_OPERATIONS + " operations");
    }
    map.putLong(
        at(number),
        ((long) operation.kind().code << 56)
            | ((long) operation.blocks() << 40)
            | operation.firstBlock());
    map.putLong(NOTED, number);
    return number;
  }

  void acknowledge(long number) {
    map.putLong(ACKNOWLEDGED, number);
  }

  /// Operation `number`, from 1 to [#noted].
  public Operation operation(long number) {
    long word = map.getLong(at(number));
    return new Operation(
        Kind.of((int) (word >>> 56)), word & ((1L << 40) - 1), (int) (word >>> 40) & 0xFFFF);
  }

  private static int at(long number) {
    return OPERATIONS + Math.toIntExact((number - 1) * 8);
  }

  /// For each block the operation it holds after operation `number`; -1 where it reads as zeroes.
  public int[] stateAfter(long number) {
    var state = new int[Math.toIntExact(diskBlocks())];
    Arrays.fill(state, (int) seededBlocks(), state.length, -1);
    for (long n = 1; n <= number; n++) {
      apply(state, n);
    }
    return state;
  }

  void apply(int[] state, long number) {
    Operation op = operation(number);
    Arrays.fill(
        state,
        (int) op.firstBlock(),
        (int) op.firstBlock() + op.blocks(),
        op.kind().zeroes() ? -1 : (int) number);
  }

  /// What a block holds after the given operation, -1 for zeroes.
  static void expect(ByteBuffer into, long block, int operation) {
    if (operation < 0) {
      into.put(new byte[GuestPattern.BLOCK]);
    } else {
      GuestPattern.put(into, block, operation);
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
