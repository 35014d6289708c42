// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/// A copy of a guest's disk held against its proof.
///
/// @param moments the moments the copy shows, ascending: it is the state after each of these
///   operations. More than one where operations changed nothing, as zeroes over zeroes do; at least
///   one
/// @param differingBlocks blocks that are not as the proof says for that moment; 0 when the copy is
///   exact
/// @param firstDifference guest offset in bytes of the first of them, or -1
public record GuestVerdict(List<Long> moments, long differingBlocks, long firstDifference) {
  public GuestVerdict {
    moments = List.copyOf(moments);
  }

  private static final int CHUNK_BLOCKS = 256;

  /// Operations after the newest visible one that may have left no trace of their own: zeroes,
  /// discards, and writes that one of these covered.
  private static final int MAX_TRACELESS = 64;

  /// What a block of the copy shows: an operation's number, or one of these.
  private static final int ZEROES = -1;

  private static final int NOT_THE_GUESTS = -2;

  /// The first moment the copy shows.
  public long operation() {
    return moments.getFirst();
  }

  /// Whether the copy is exactly one moment, and one that lies in `[notBefore, notAfter]`.
  public boolean holds(long notBefore, long notAfter) {
    return differingBlocks == 0 && moments.stream().anyMatch(m -> m >= notBefore && m <= notAfter);
  }

  /// Finds the moment `copy` shows, and compares every byte with it.
  ///
  /// It is the highest operation found in any block, or one of the next that left no trace of their
  /// own: each at which every block that these touched is as the proof says.
  public static GuestVerdict of(BlockNode copy, GuestProof proof) throws BlockException {
    long blocks = proof.diskBlocks();
    if (copy.virtualSize() != blocks * GuestPattern.BLOCK) {
      return new GuestVerdict(List.of(-1L), blocks, 0);
    }
    long newest = newest(copy, blocks);
    if (newest > proof.noted()) {
      return new GuestVerdict(
          List.of(newest), blocks, 0); // a block from a future the guest never had
    }
    List<Long> moments = moments(copy, proof, newest);
    return compare(copy, proof.stateAfter(moments.getFirst()), moments);
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

  private static GuestVerdict compare(BlockNode copy, int[] state, List<Long> moments)
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
    return new GuestVerdict(moments, differing, first);
  }

  private static List<Long> moments(BlockNode copy, GuestProof proof, long newest)
      throws BlockException {
    long last = Math.min(proof.noted(), newest + MAX_TRACELESS);
    Map<Integer, Integer> shown = new HashMap<>();
    for (long n = newest + 1; n <= last; n++) {
      GuestProof.Operation operation = proof.operation(n);
      for (int i = 0; i < operation.blocks(); i++) {
        int block = (int) operation.firstBlock() + i;
        shown.put(block, shows(copy, block));
      }
    }
    var moments = new ArrayList<Long>();
    int[] state = proof.stateAfter(newest);
    for (long n = newest; n <= last; n++) {
      if (n > newest) {
        proof.apply(state, n);
      }
      if (shown.entrySet().stream().allMatch(block -> state[block.getKey()] == block.getValue())) {
        moments.add(n);
      }
    }
    return moments.isEmpty() ? List.of(newest) : moments;
  }

  private static int shows(BlockNode copy, int block) throws BlockException {
    var buffer = ByteBuffer.allocate(GuestPattern.BLOCK);
    copy.read((long) block * GuestPattern.BLOCK, buffer);
    buffer.flip();
    if (buffer.mismatch(ByteBuffer.allocate(GuestPattern.BLOCK)) < 0) {
      return ZEROES;
    }
    long operation = GuestPattern.operation(buffer, 0, block);
    return operation < 0 ? NOT_THE_GUESTS : (int) operation;
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
