// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.SplittableRandom;
import java.util.function.BooleanSupplier;

/// A guest that changes its disk without pause, one operation after the other, and notes each in a
/// [GuestProof].
///
/// Most operations go to the first sixteenth of the disk and one in fifty anywhere, as guests' do.
/// One in sixteen zeroes, one in sixteen discards, one in 64 is followed by a flush.
public final class GuestWriter {
  private static final int MAX_BLOCKS = 16;
  private static final int FLUSH_EVERY = 64;

  private final BlockNode disk;
  private final GuestProof proof;
  private final SplittableRandom random;
  private final ByteBuffer buffer = ByteBuffer.allocateDirect(MAX_BLOCKS * GuestPattern.BLOCK);

  public GuestWriter(BlockNode disk, GuestProof proof, long seed) {
    this.disk = disk;
    this.proof = proof;
    this.random = new SplittableRandom(seed);
  }

  /// Writes until `stop` says so. An operation is acknowledged in the proof when the disk answered
  /// it.
  public void run(BooleanSupplier stop) throws BlockException {
    while (!stop.getAsBoolean()) {
      step();
    }
  }

  /// One operation.
  public void step() throws BlockException {
    GuestProof.Operation operation = next();
    long number = proof.note(operation);
    long offset = operation.firstBlock() * GuestPattern.BLOCK;
    long length = (long) operation.blocks() * GuestPattern.BLOCK;
    switch (operation.kind()) {
      case WRITE -> {
        buffer.clear();
        for (int i = 0; i < operation.blocks(); i++) {
          GuestPattern.put(buffer, operation.firstBlock() + i, number);
        }
        disk.write(offset, buffer.flip());
      }
      case ZERO -> disk.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
      case DISCARD -> disk.discard(offset, length);
    }
    proof.acknowledge(number);
    if (number % FLUSH_EVERY == 0) {
      disk.flush();
    }
  }

  private GuestProof.Operation next() {
    long blocks = proof.diskBlocks();
    int count = 1 + random.nextInt(random.nextInt(4) == 0 ? MAX_BLOCKS : 1);
    long area = random.nextInt(50) == 0 ? blocks : Math.max(MAX_BLOCKS * 2L, blocks / 16);
    long first = random.nextLong(Math.min(area, blocks) - count + 1);
    int draw = random.nextInt(16);
    var kind =
        draw == 0
            ? GuestProof.Kind.ZERO
            : draw == 1 ? GuestProof.Kind.DISCARD : GuestProof.Kind.WRITE;
    return new GuestProof.Operation(kind, first, count);
  }
}
