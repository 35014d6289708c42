// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ProtocolDriver;
import java.nio.ByteBuffer;
import java.util.Set;

/// QEMU's drivers `null-co` and `null-aio`: bytes that read as zeroes, and forget what is written.
public final class NullProtocol implements ProtocolDriver {
  /// qemu: 7.2, without `size`
  private static final long DEFAULT_SIZE = 1L << 30;

  @Override
  public Set<String> names() {
    return Set.of("null-co", "null-aio");
  }

  @Override
  public Set<String> schemes() {
    return Set.of("null-co", "null-aio");
  }

  @Override
  public BlockNode open(SourceOptions options, OpenOptions how) throws BlockException {
    options.take("filename");
    options.take("latency-ns");
    options.takeFlag("read-zeroes", false);
    long size = options.takeSize("size").orElse(DEFAULT_SIZE);
    RawFormat.roundUp(options.source(), size);
    return new NullNode(options.source(), size, how.readOnly());
  }

  private static final class NullNode implements BlockNode {
    private final String name;
    private final long size;
    private volatile boolean readOnly;

    NullNode(String name, long size, boolean readOnly) {
      this.name = name;
      this.size = size;
      this.readOnly = readOnly;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public long virtualSize() {
      return size;
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
    public void read(long offset, ByteBuffer into) {
      check(offset, into.remaining());
      Zeroes.fill(into);
    }

    @Override
    public void write(long offset, ByteBuffer from) throws BlockException {
      change(offset, from.remaining());
      from.position(from.limit());
    }

    @Override
    public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
      change(offset, length);
    }

    @Override
    public void discard(long offset, long length) throws BlockException {
      change(offset, length);
    }

    private void change(long offset, long length) throws BlockException {
      check(offset, length);
      if (readOnly) {
        throw new ReadOnlyNodeException(name + ": opened read-only");
      }
    }

    private void check(long offset, long length) {
      if (offset < 0 || length < 0 || offset > size - length) {
        throw new IllegalArgumentException(
            name + ": " + length + " bytes at " + offset + " of " + size);
      }
    }

    @Override
    public void flush() {}

    @Override
    public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
      check(offset, length);
      if (length > 0) {
        visitor.visit(new Extent(offset, length, Extent.State.ZERO, -1, false));
      }
    }

    @Override
    public long allocatedBytes() {
      return 0;
    }

    @Override
    public void close() {}
  }
}
