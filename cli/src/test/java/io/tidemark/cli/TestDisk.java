// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A disk in memory whose units of 512 bytes are stored, zero or left to a backing disk.
final class TestDisk implements BlockNode {
  static final int UNIT = 512;

  final byte[] bytes;
  final Extent.State[] states;
  private final @Nullable TestDisk backing;
  long failAt = Long.MAX_VALUE; // requests that reach this offset fail
  long written; // bytes given to write

  TestDisk(int units, @Nullable TestDisk backing) {
    this.bytes = new byte[units * UNIT];
    this.states = new Extent.State[units];
    this.backing = backing;
    Arrays.fill(states, Extent.State.UNALLOCATED);
  }

  /// Stores `value` in these units.
  TestDisk fill(int from, int to, int value) {
    Arrays.fill(states, from, to, Extent.State.DATA);
    Arrays.fill(bytes, from * UNIT, to * UNIT, (byte) value);
    return this;
  }

  /// What a guest reads.
  byte[] content() {
    return content(0, bytes.length);
  }

  private byte[] content(int offset, int length) {
    byte[] all = new byte[length];
    for (int at = offset; at < offset + length; at += UNIT) {
      switch (states[at / UNIT]) {
        case DATA -> System.arraycopy(bytes, at, all, at - offset, UNIT);
        case ZERO -> {}
        case UNALLOCATED -> {
          if (backing != null && at < backing.bytes.length) {
            System.arraycopy(backing.content(at, UNIT), 0, all, at - offset, UNIT);
          }
        }
      }
    }
    return all;
  }

  @Override
  public String name() {
    return "test disk";
  }

  @Override
  public long virtualSize() {
    return bytes.length;
  }

  @Override
  public boolean readOnly() {
    return false;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    if (offset + into.remaining() > failAt) {
      throw new TransportException("test disk: read at " + offset);
    }
    into.put(content((int) offset, into.remaining()));
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    if (offset + from.remaining() > failAt) {
      throw new OutOfSpaceException("test disk: write at " + offset);
    }
    written += from.remaining();
    int length = from.remaining();
    requireUnits(offset, length);
    from.get(bytes, (int) offset, length);
    Arrays.fill(states, (int) offset / UNIT, (int) (offset + length) / UNIT, Extent.State.DATA);
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) {
    requireUnits(offset, length);
    Arrays.fill(states, (int) offset / UNIT, (int) (offset + length) / UNIT, Extent.State.ZERO);
  }

  private static void requireUnits(long offset, long length) {
    if (offset % UNIT != 0 || length % UNIT != 0) {
      throw new AssertionError(offset + "+" + length + " is not whole units");
    }
  }

  @Override
  public void discard(long offset, long length) {
    throw new UnsupportedOperationException();
  }

  @Override
  public void flush() {}

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    for (long at = offset; at < offset + length; at += UNIT) {
      Extent.State state = states[(int) (at / UNIT)];
      long place = state == Extent.State.DATA ? at : -1;
      if (!visitor.visit(new Extent(at, UNIT, state, place, false))) {
        return;
      }
    }
  }

  @Override
  public Optional<BlockNode> backing() {
    return Optional.ofNullable(backing);
  }

  @Override
  public void close() {}
}
