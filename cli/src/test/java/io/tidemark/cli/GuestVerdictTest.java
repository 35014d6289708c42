// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The proof must convict every kind of wrong copy, or the demo shows nothing.
class GuestVerdictTest {
  private static final int BLOCKS = 256;
  private static final int SEEDED = 64;
  private static final int OPERATIONS = 2000;

  @TempDir Path dir;
  private BlockNode disk;
  private GuestProof proof;

  @BeforeEach
  void writeAsAGuest() throws IOException {
    var file = FileNode.create(dir.resolve("disk"));
    file.resize(BLOCKS * GuestPattern.BLOCK);
    disk = file;
    var block = ByteBuffer.allocate(GuestPattern.BLOCK);
    for (int i = 0; i < SEEDED; i++) {
      GuestPattern.put(block.clear(), i, 0);
      disk.write((long) i * GuestPattern.BLOCK, block.flip());
    }
    proof = GuestProof.create(dir.resolve("proof"), BLOCKS, SEEDED);
  }

  @AfterEach
  void close() throws IOException {
    proof.close();
    disk.close();
  }

  private void write(int operations) throws IOException {
    var guest = new GuestWriter(disk, proof, 7);
    for (int i = 0; i < operations; i++) {
      guest.step();
    }
  }

  @Test
  void findsTheMomentOfAnExactCopy() throws IOException {
    assertThat(GuestVerdict.of(disk, proof).holds(0, 0)).isTrue();
    write(OPERATIONS);
    var verdict = GuestVerdict.of(disk, proof);
    assertThat(verdict.holds(OPERATIONS, OPERATIONS)).as(verdict.toString()).isTrue();
  }

  @Test
  void findsAnEarlierMomentWhenTheGuestWentOn() throws IOException {
    write(500);
    var copy = copy();
    write(500);
    var verdict = GuestVerdict.of(copy, proof);
    assertThat(verdict.differingBlocks()).isZero();
    assertThat(verdict.holds(500, 500)).as(verdict.toString()).isTrue();
    assertThat(verdict.holds(501, 1000)).isFalse();
    copy.close();
  }

  @Test
  void convictsALostWriteATornBlockAndAStaleBlock() throws IOException {
    write(500);
    var copy = copy();
    write(500);
    int[] before = proof.stateAfter(500);
    int[] after = proof.stateAfter(1000);
    int changed = 0;
    while (before[changed] == after[changed] || after[changed] < 0 || before[changed] < 0) {
      changed++;
    }
    long offset = (long) changed * GuestPattern.BLOCK;

    var block = ByteBuffer.allocate(GuestPattern.BLOCK);
    disk.read(offset, block);
    copy.write(offset, block.flip()); // one block of another moment
    assertThat(GuestVerdict.of(copy, proof).differingBlocks()).isPositive();

    GuestPattern.put(block.clear(), changed, before[changed]);
    disk.write(offset, block.flip()); // a write that was lost
    var lost = GuestVerdict.of(disk, proof);
    assertThat(lost.differingBlocks()).isEqualTo(1);
    assertThat(lost.firstDifference()).isEqualTo(offset);

    GuestPattern.put(block.clear(), changed, after[changed]);
    block.put(GuestPattern.BLOCK - 1, (byte) ~block.get(GuestPattern.BLOCK - 1));
    disk.write(offset, block.flip()); // a block that was torn
    assertThat(GuestVerdict.of(disk, proof).firstDifference()).isEqualTo(offset);
    copy.close();
  }

  @Test
  void findsTheMomentAfterAWriteThatZeroesCovered() throws IOException {
    write(500);
    apply(new GuestProof.Operation(GuestProof.Kind.WRITE, 9, 1));
    apply(new GuestProof.Operation(GuestProof.Kind.ZERO, 8, 4));
    apply(new GuestProof.Operation(GuestProof.Kind.WRITE, 9, 2));
    apply(new GuestProof.Operation(GuestProof.Kind.DISCARD, 9, 2));
    assertThat(GuestVerdict.of(disk, proof).differingBlocks()).isZero();
    assertThat(GuestVerdict.of(disk, proof).holds(504, 504)).isTrue();
    assertThat(GuestVerdict.of(disk, proof).holds(503, 503)).isFalse();
  }

  @Test
  void everyMomentOfAGuestIsFound() throws IOException {
    var guest = new GuestWriter(disk, proof, 20261122);
    for (int i = 1; i <= OPERATIONS; i++) {
      guest.step();
      assertThat(GuestVerdict.of(disk, proof).holds(i, i)).as("after operation %d", i).isTrue();
    }
  }

  private void apply(GuestProof.Operation operation) throws IOException {
    long number = proof.note(operation);
    var block = ByteBuffer.allocate(GuestPattern.BLOCK);
    for (int i = 0; i < operation.blocks(); i++) {
      long at = operation.firstBlock() + i;
      block.clear();
      if (!operation.kind().zeroes()) {
        GuestPattern.put(block, at, number);
      } else {
        block.put(new byte[GuestPattern.BLOCK]);
      }
      disk.write(at * GuestPattern.BLOCK, block.flip());
    }
    proof.acknowledge(number);
  }

  private BlockNode copy() throws IOException {
    var copy = FileNode.create(dir.resolve("copy"));
    copy.resize(disk.virtualSize());
    var all = ByteBuffer.allocate((int) disk.virtualSize());
    disk.read(0, all);
    copy.write(0, all.flip());
    return copy;
  }
}
