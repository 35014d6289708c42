// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import java.nio.ByteBuffer;

/// A copy of a guest's disk held against its proof.
///
/// @param operation the moment the copy shows: the state after this operation, before the next
/// @param differingBlocks blocks that are not as the proof says for that moment; 0 when the copy is
///   exact
/// @param firstDifference guest offset in bytes of the first of them, or -1
public record GuestVerdict(long operation, long differingBlocks, long firstDifference) {
  private static final int CHUNK_BLOCKS = 256;

  /// Whether the copy is exactly one moment, and one that lies in `[notBefore, notAfter]`.
  public boolean holds(long notBefore, long notAfter) {
    return differingBlocks == 0 && operation >= notBefore && operation <= notAfter;
  }

  /// Finds the moment `copy` shows, and compares every byte with it.
  ///
  /// The moment is the highest operation found in any block; operations after it that only zeroed
  /// are counted in as far as their blocks read as zeroes.
  public static GuestVerdict of(BlockNode copy, GuestProof proof) throws BlockException {
    long blocks = proof.diskBlocks();
    if (copy.virtualSize() != blocks * GuestPattern.BLOCK) {
      return new GuestVerdict(-1, blocks, 0);
    }
    long newest = newest(copy, blocks);
    if (newest > proof.noted()) {
      return new GuestVerdict(newest, blocks, 0); // a block from a future the guest never had
    }
    while (newest < proof.noted()
        && proof.operation(newest + 1).kind().zeroes()
        && isZero(copy, proof.operation(newest + 1))) {
      newest++;
    }
    return compare(copy, proof.stateAfter(newest), newest);
  }

  private static long newest(BlockNode copy, long blocks) throws BlockException {
    long newest = 0;
    var buffer = ByteBuffer.allocateDirect(CHUNK_BLOCKS * GuestPattern.BLOCK);
    for (long block = 0; block < blocks; block += CHUNK_BLOCKS) {
      int count = read(copy, buffer, block, blocks);
      for (int i = 0; i < count; i++) {
        newest =
            Math.max(newest, GuestPattern.operation(buffer, i * GuestPattern.BLOCK, block + i));
      }
    }
    return newest;
  }

  private static GuestVerdict compare(BlockNode copy, int[] state, long moment)
      throws BlockException {
    long differing = 0;
    long first = -1;
    var found = ByteBuffer.allocateDirect(CHUNK_BLOCKS * GuestPattern.BLOCK);
    var wanted = ByteBuffer.allocateDirect(GuestPattern.BLOCK);
    for (long block = 0; block < state.length; block += CHUNK_BLOCKS) {
      int count = read(copy, found, block, state.length);
      for (int i = 0; i < count; i++) {
        wanted.clear();
        GuestProof.expect(wanted, block + i, state[(int) block + i]);
        if (!wanted.flip().equals(found.slice(i * GuestPattern.BLOCK, GuestPattern.BLOCK))) {
          differing++;
          first = first < 0 ? (block + i) * GuestPattern.BLOCK : first;
        }
      }
    }
    return new GuestVerdict(moment, differing, first);
  }

  private static boolean isZero(BlockNode copy, GuestProof.Operation operation)
      throws BlockException {
    var buffer = ByteBuffer.allocate(operation.blocks() * GuestPattern.BLOCK);
    copy.read(operation.firstBlock() * GuestPattern.BLOCK, buffer);
    return buffer.flip().mismatch(ByteBuffer.allocate(buffer.remaining())) < 0;
  }

  private static int read(BlockNode copy, ByteBuffer buffer, long block, long blocks)
      throws BlockException {
    int count = (int) Math.min(CHUNK_BLOCKS, blocks - block);
    buffer.clear().limit(count * GuestPattern.BLOCK);
    copy.read(block * GuestPattern.BLOCK, buffer);
    buffer.flip();
    return count;
  }
}
