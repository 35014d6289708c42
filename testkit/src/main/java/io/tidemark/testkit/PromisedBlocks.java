// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicIntegerArray;

/// Several writers of one disk, each with blocks of its own, and what the disk has promised each of
/// the blocks by answering: that what a forced write wrote, and what anyone had written when
/// somebody's flush was sent, is there after a power cut.
///
/// Block by block the writes are numbered in order, so that what is found says by itself whether it
/// is older than what was promised. One thread a writer; [#verify] when all have ended.
public final class PromisedBlocks {
  public static final int BLOCK = 512;

  private static final int MAX_BLOCKS_OF_A_WRITE = 24;

  /// How a writer reaches the disk.
  public interface Guest {
    /// @param forced whether it is on stable storage when it is answered
    void write(long offset, byte[] bytes, boolean forced) throws IOException;

    void zero(long offset, int length, boolean forced) throws IOException;

    void flush() throws IOException;
  }

  private final int blocksOfAWriter;
  private final List<List<Long>> contents = new ArrayList<>(); // of each block, zero first
  private final AtomicIntegerArray answered; // into `contents`
  private final AtomicIntegerArray promised;

  public PromisedBlocks(int writers, int blocksOfAWriter) {
    this.blocksOfAWriter = blocksOfAWriter;
    int blocks = writers * blocksOfAWriter;
    for (int block = 0; block < blocks; block++) {
      contents.add(new ArrayList<>(List.of(0L)));
    }
    answered = new AtomicIntegerArray(blocks);
    promised = new AtomicIntegerArray(blocks);
  }

  public int size() {
    return contents.size() * BLOCK;
  }

  /// Writes until the disk fails.
  public void write(int writer, long seed, Guest guest) {
    var random = new Random(seed * 31 + writer);
    try {
      for (long number = 1; ; number++) {
        if (random.nextInt(8) == 0) {
          flush(guest);
        } else {
          change(writer, number, random, guest);
        }
      }
    } catch (IOException _) {
      // Power is cut: what had no answer has promised nothing.
    }
  }

  private void flush(Guest guest) throws IOException {
    int[] before = new int[answered.length()];
    for (int block = 0; block < before.length; block++) {
      before[block] = answered.get(block);
    }
    guest.flush();
    for (int block = 0; block < before.length; block++) {
      promised.accumulateAndGet(block, before[block], Math::max);
    }
  }

  private void change(int writer, long number, Random random, Guest guest) throws IOException {
    int count = 1 + random.nextInt(MAX_BLOCKS_OF_A_WRITE);
    int first = writer * blocksOfAWriter + random.nextInt(blocksOfAWriter - count + 1);
    boolean zero = random.nextInt(5) == 0;
    boolean forced = random.nextInt(4) == 0;
    long value = zero ? 0 : number << 8 | writer;
    for (int block = first; block < first + count; block++) {
      contents.get(block).add(value);
    }
    if (zero) {
      guest.zero((long) first * BLOCK, count * BLOCK, forced);
    } else {
      guest.write((long) first * BLOCK, bytes(value, count), forced);
    }
    for (int block = first; block < first + count; block++) {
      int last = contents.get(block).size() - 1;
      answered.set(block, last);
      if (forced) {
        promised.accumulateAndGet(block, last, Math::max);
      }
    }
  }

  private static byte[] bytes(long value, int count) {
    ByteBuffer bytes = ByteBuffer.allocate(count * BLOCK);
    while (bytes.hasRemaining()) {
      bytes.putLong(value);
    }
    return bytes.array();
  }

  /// How many blocks hold a promise.
  public int promises() {
    int count = 0;
    for (int block = 0; block < promised.length(); block++) {
      count += promised.get(block) > 0 ? 1 : 0;
    }
    return count;
  }

  /// After a power cut: every block holds what was promised or something that was sent later.
  public void verify(BlockNode disk) throws BlockException {
    ByteBuffer bytes = ByteBuffer.allocate(size());
    disk.read(0, bytes);
    LongBuffer words = bytes.flip().asLongBuffer();
    for (int block = 0; block < contents.size(); block++) {
      long found = words.get();
      for (int word = 1; word < BLOCK / Long.BYTES; word++) {
        if (words.get() != found) {
          throw new AssertionError("%s: block %d is torn".formatted(disk.name(), block));
        }
      }
      List<Long> lawful =
          contents.get(block).subList(promised.get(block), contents.get(block).size());
      if (!lawful.contains(found)) {
        throw new AssertionError(
            "%s: block %d holds 0x%x, promised was 0x%x, sent later %s"
                .formatted(
                    disk.name(),
                    block,
                    found,
                    lawful.getFirst(),
                    lawful.subList(1, lawful.size())));
      }
    }
  }
}
