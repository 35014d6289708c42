// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.BitSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/// A disk in memory that knows its holes in blocks of 4096 bytes, and can be told to fail or wait.
final class MemoryNode implements BlockNode {
  static final int BLOCK = 4096;

  private final byte[] bytes;
  private final BitSet allocated = new BitSet();
  private final boolean readOnly;
  final AtomicInteger flushes = new AtomicInteger();
  final AtomicInteger reads = new AtomicInteger();
  final AtomicInteger waiting = new AtomicInteger();

  volatile int writeUnit = 1;

  /// Thrown by every request while set.
  volatile @Nullable BlockException failure;

  /// Requests wait for it while set.
  volatile @Nullable CountDownLatch gate;

  MemoryNode(int size) {
    this(size, false);
  }

  MemoryNode(int size, boolean readOnly) {
    this.bytes = new byte[size];
    this.readOnly = readOnly;
  }

  @Override
  public int writeUnit() {
    return writeUnit;
  }

  synchronized byte[] copy(int offset, int length) {
    return Arrays.copyOfRange(bytes, offset, offset + length);
  }

  private void enter(long offset, long length) throws BlockException {
    if (offset < 0 || length < 0 || offset > bytes.length - length) {
      throw new IllegalArgumentException(length + " bytes at " + offset);
    }
    CountDownLatch latch = gate;
    if (latch != null) {
      waiting.incrementAndGet();
      try {
        latch.await();
      } catch (InterruptedException e) {
        throw new AssertionError("a data path thread was interrupted", e);
      } finally {
        waiting.decrementAndGet();
      }
    }
    BlockException fault = failure;
    if (fault != null) {
      throw fault;
    }
  }

  private void enterChange(long offset, long length) throws BlockException {
    enter(offset, length);
    if (readOnly) {
      throw new ReadOnlyNodeException("memory: read-only");
    }
  }

  @Override
  public String name() {
    return "memory";
  }

  @Override
  public long virtualSize() {
    return bytes.length;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    enter(offset, into.remaining());
    reads.incrementAndGet();
    synchronized (this) {
      into.put(bytes, (int) offset, into.remaining());
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    enterChange(offset, from.remaining());
    synchronized (this) {
      int count = from.remaining();
      allocated.set((int) offset / BLOCK, (int) (offset + count + BLOCK - 1) / BLOCK);
      from.get(bytes, (int) offset, count);
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    enterChange(offset, length);
    synchronized (this) {
      Arrays.fill(bytes, (int) offset, (int) (offset + length), (byte) 0);
      if (mode == ZeroMode.MAY_UNMAP) {
        int first = (int) (offset + BLOCK - 1) / BLOCK;
        int last = (int) (offset + length) / BLOCK;
        allocated.clear(Math.min(first, last), last);
      } else {
        allocated.set((int) offset / BLOCK, (int) (offset + length + BLOCK - 1) / BLOCK);
      }
    }
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
  }

  @Override
  public void flush() throws BlockException {
    enter(0, 0);
    flushes.incrementAndGet();
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    enter(offset, length);
    long at = offset;
    long end = offset + length;
    while (at < end) {
      boolean data;
      long to;
      synchronized (this) {
        int block = (int) (at / BLOCK);
        data = allocated.get(block);
        int next = data ? allocated.nextClearBit(block) : allocated.nextSetBit(block);
        to = next < 0 ? end : Math.min(end, (long) next * BLOCK);
      }
      Extent.State state = data ? Extent.State.DATA : Extent.State.UNALLOCATED;
      if (!visitor.visit(new Extent(at, to - at, state, data ? at : -1, false))) {
        return;
      }
      at = to;
    }
  }

  @Override
  public void close() {}
}
