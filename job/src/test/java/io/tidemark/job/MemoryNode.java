// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicLong;

/// A layer in memory, in units of 4 KiB, that counts what is asked of it and can be made to fail,
/// to be slow, or to hang.
final class MemoryNode implements FormatNode {
  static final int UNIT = 4096;

  enum Request {
    READ,
    WRITE,
    ZERO,
    DISCARD,
    FLUSH,
    HEADER
  }

  /// Runs before each request, without a lock; may throw, and may take its time.
  interface Hook {
    void before(Request request, long offset, long length) throws BlockException;
  }

  final AtomicLong reads = new AtomicLong();
  final AtomicLong writes = new AtomicLong();
  final AtomicLong zeroes = new AtomicLong();
  final AtomicLong flushes = new AtomicLong();
  final AtomicLong writeBacks = new AtomicLong();
  volatile Hook hook = (_, _, _) -> {};
  private final String name;
  private final byte[] bytes;
  private final Extent.State[] states;
  private volatile Optional<BlockNode> backing;

  /// What its header would record.
  volatile Optional<BackingReference> reference = Optional.empty();

  volatile boolean readOnly;

  MemoryNode(String name, int size, Optional<BlockNode> backing) {
    this.name = name;
    this.bytes = new byte[size];
    this.states = new Extent.State[(size + UNIT - 1) / UNIT];
    this.backing = backing;
    Arrays.fill(states, Extent.State.UNALLOCATED);
  }

  static MemoryNode empty(String name, int size) {
    return new MemoryNode(name, size, Optional.empty());
  }

  @Override
  public String name() {
    return name;
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
  public void reopen(boolean wantReadOnly) {
    readOnly = wantReadOnly;
  }

  @Override
  public String format() {
    return "memory";
  }

  @Override
  public BlockNode file() {
    return this;
  }

  @Override
  public Optional<BackingReference> backingReference() {
    return reference;
  }

  @Override
  public void changeBacking(Optional<BackingReference> newBacking) throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name + " is read-only");
    }
    hook.before(Request.HEADER, 0, 0);
    reference = newBacking;
  }

  @Override
  public void attachBacking(BlockNode node) {
    backing = Optional.of(node);
  }

  @Override
  public Optional<BlockNode> detachBacking() {
    Optional<BlockNode> was = backing;
    backing = Optional.empty();
    return was;
  }

  @Override
  public Optional<BlockNode> backing() {
    return backing;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    reads.incrementAndGet();
    hook.before(Request.READ, offset, into.remaining());
    synchronized (this) {
      for (long at = offset; into.hasRemaining(); ) {
        int length = (int) Math.min(into.remaining(), UNIT - at % UNIT);
        readUnit((int) at, into, length);
        at += length;
      }
    }
  }

  private void readUnit(int at, ByteBuffer into, int length) throws BlockException {
    if (states[at / UNIT] == Extent.State.UNALLOCATED && backing.isPresent()) {
      BlockNode beneath = backing.get();
      int there = Math.clamp(beneath.virtualSize() - at, 0, length);
      ByteBuffer part = into.slice(into.position(), there);
      beneath.read(at, part);
      into.position(into.position() + there).put(new byte[length - there]);
    } else {
      into.put(bytes, at, length);
    }
  }

  @Override
  public void startWriteBack() {
    writeBacks.incrementAndGet();
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    writes.incrementAndGet();
    hook.before(Request.WRITE, offset, from.remaining());
    synchronized (this) {
      int length = from.remaining();
      allocate(offset, length);
      from.get(bytes, (int) offset, length);
    }
  }

  /// Fills units of the range that are not here from beneath.
  private void allocate(long offset, long length) throws BlockException {
    for (long unit = offset / UNIT; unit * UNIT < offset + length; unit++) {
      if (states[(int) unit] == Extent.State.UNALLOCATED) {
        int at = (int) (unit * UNIT);
        int there = Math.min(UNIT, bytes.length - at);
        var old = ByteBuffer.allocate(there);
        readUnit(at, old, there);
        old.flip().get(bytes, at, there);
      }
      states[(int) unit] = Extent.State.DATA;
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    zeroes.incrementAndGet();
    hook.before(Request.ZERO, offset, length);
    zero(offset, length);
  }

  private synchronized void zero(long offset, long length) throws BlockException {
    for (long at = offset; at < offset + length; ) {
      long unit = at / UNIT;
      long end = Math.min(Math.min((unit + 1) * UNIT, bytes.length), offset + length);
      if (at == unit * UNIT && (end == (unit + 1) * UNIT || end == bytes.length)) {
        states[(int) unit] = Extent.State.ZERO;
      } else {
        allocate(at, end - at);
      }
      Arrays.fill(bytes, (int) at, (int) end, (byte) 0);
      at = end;
    }
  }

  /// Whole units become zero; the rest of the range is left as it is, as QEMU's nodes do.
  @Override
  public void discard(long offset, long length) throws BlockException {
    hook.before(Request.DISCARD, offset, length);
    long from = (offset + UNIT - 1) / UNIT * UNIT;
    long to = (offset + length) / UNIT * UNIT;
    if (to > from) {
      zero(from, to - from);
    }
  }

  @Override
  public void flush() throws BlockException {
    flushes.incrementAndGet();
    hook.before(Request.FLUSH, 0, 0);
  }

  @Override
  public synchronized void extents(long offset, long length, ExtentVisitor visitor)
      throws BlockException {
    long at = offset;
    while (at < offset + length) {
      Extent.State state = states[(int) (at / UNIT)];
      long end = at;
      while (end < offset + length && states[(int) (end / UNIT)] == state) {
        end = Math.min((end / UNIT + 1) * UNIT, offset + length);
      }
      if (!visitor.visit(new Extent(at, end - at, state, -1, false))) {
        return;
      }
      at = end;
    }
  }

  synchronized Extent.State state(long offset) {
    return states[(int) (offset / UNIT)];
  }

  byte[] content() throws BlockException {
    byte[] all = new byte[bytes.length];
    read(0, ByteBuffer.wrap(all));
    return all;
  }

  @Override
  public void close() {}
}
