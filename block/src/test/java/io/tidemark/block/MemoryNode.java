// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/// A node over bytes in memory, with extents that the test states.
class MemoryNode implements BlockNode {
  final byte[] bytes;
  final AtomicInteger flushes = new AtomicInteger();
  final List<Extent> layout = new ArrayList<>();
  private final String name;
  private @Nullable BlockNode backing; // null: none
  volatile boolean closed;

  MemoryNode(String name, int size) {
    this.name = name;
    this.bytes = new byte[size];
  }

  MemoryNode over(BlockNode node) {
    backing = node;
    return this;
  }

  /// States the next extent, right after the last one.
  MemoryNode extent(long length, Extent.State state) {
    long offset = layout.isEmpty() ? 0 : layout.getLast().end();
    long host = state == Extent.State.DATA ? offset : -1;
    layout.add(new Extent(offset, length, state, host, false));
    return this;
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
    return false;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    into.put(bytes, (int) offset, into.remaining());
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    from.get(bytes, (int) offset, from.remaining());
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    write(offset, ByteBuffer.allocate((int) length));
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    write(offset, ByteBuffer.allocate((int) length));
  }

  @Override
  public void flush() throws BlockException {
    flushes.incrementAndGet();
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    List<Extent> stated =
        layout.isEmpty()
            ? List.of(new Extent(0, bytes.length, Extent.State.DATA, 0, false))
            : layout;
    for (Extent e : stated) {
      long from = Math.max(offset, e.offset());
      long to = Math.min(offset + length, e.end());
      long host = e.hostOffset() < 0 ? -1 : e.hostOffset() + from - e.offset();
      if (from < to && !visitor.visit(new Extent(from, to - from, e.state(), host, false))) {
        return;
      }
    }
  }

  @Override
  public Optional<BlockNode> backing() {
    return Optional.ofNullable(backing);
  }

  @Override
  public void close() throws BlockException {
    closed = true;
  }
}
