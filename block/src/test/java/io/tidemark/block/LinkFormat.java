// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ImageFormat;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A format of a test: line 2 of the file names the backing file (`-`: none), line 3 its format
/// (may be empty); the guest sees the backing file.
public final class LinkFormat implements ImageFormat {
  @Override
  public String name() {
    return "link";
  }

  @Override
  public boolean probe(ByteBuffer head) {
    return StandardCharsets.UTF_8.decode(head).toString().startsWith("LINK\n");
  }

  @Override
  public FormatNode open(BlockNode file, OpenOptions options) throws BlockException {
    ByteBuffer text = ByteBuffer.allocate((int) file.virtualSize());
    file.read(0, text);
    List<String> lines = StandardCharsets.UTF_8.decode(text.flip()).toString().lines().toList();
    Optional<BackingReference> reference =
        lines.get(1).equals("-")
            ? Optional.empty()
            : Optional.of(
                new BackingReference(
                    lines.get(1), Optional.of(lines.get(2)).filter(f -> !f.isEmpty())));
    return new LinkNode(file, reference);
  }

  @Override
  public void create(BlockNode file, CreateOptions options) throws BlockException {
    throw new OutOfSpaceException(file.name() + ": create: no space");
  }

  private static final class LinkNode extends MemoryNode implements FormatNode {
    private final BlockNode file;
    private final Optional<BackingReference> reference;
    private @Nullable BlockNode backing; // null until attached

    LinkNode(BlockNode file, Optional<BackingReference> reference) {
      super(file.name(), 512);
      this.file = file;
      this.reference = reference;
    }

    @Override
    public String format() {
      return "link";
    }

    @Override
    public BlockNode file() {
      return file;
    }

    @Override
    public boolean readOnly() {
      return file.readOnly();
    }

    @Override
    public Optional<BackingReference> backingReference() {
      return reference;
    }

    @Override
    public void attachBacking(BlockNode node) {
      backing = node;
    }

    @Override
    public Optional<BlockNode> detachBacking() {
      Optional<BlockNode> was = backing();
      backing = null;
      return was;
    }

    @Override
    public Optional<BlockNode> backing() {
      return Optional.ofNullable(backing);
    }

    @Override
    public void read(long offset, ByteBuffer into) throws BlockException {
      if (backing != null) {
        backing.read(offset, into);
      }
    }

    @Override
    public void close() throws BlockException {
      file.close();
      if (backing != null) {
        backing.close();
      }
    }
  }
}
