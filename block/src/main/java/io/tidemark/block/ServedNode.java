// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Optional;

/// What a guest or an NBD client sees of a node: its bytes, with manners of its own for what they
/// change. The node stays its owner's.
///
/// Spec: qemu `qapi/block-core.json`, `discard`, `detect-zeroes`.
public final class ServedNode implements BlockNode {
  /// When a change is on stable storage.
  public enum Cache {
    /// When the client flushes.
    WRITEBACK,
    /// Before it is answered.
    WRITETHROUGH,
    /// When the image is closed; a client's flush does nothing.
    UNSAFE
  }

  /// @param discard whether discards, and zeroing that may unmap, give space back
  /// @param detectZeroes how written zeroes are taken; absent: as data
  public record Manners(Cache cache, boolean discard, Optional<ZeroMode> detectZeroes) {
    /// Whether a node served so would be as it is without.
    public boolean plain() {
      return cache == Cache.WRITEBACK && discard && detectZeroes.isEmpty();
    }
  }

  private final BlockNode node;
  private final Manners manners;

  public ServedNode(BlockNode node, Manners manners) {
    this.node = node;
    this.manners = manners;
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    if (manners.detectZeroes().isPresent() && from.hasRemaining() && Zeroes.isZero(from)) {
      node.writeZeroes(offset, from.remaining(), manners.detectZeroes().get());
      from.position(from.limit());
    } else {
      node.write(offset, from);
    }
    changed();
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    node.writeZeroes(offset, length, manners.discard() ? mode : ZeroMode.NO_UNMAP);
    changed();
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    if (manners.discard()) {
      node.discard(offset, length);
      changed();
    }
  }

  @Override
  public int writeUnit() {
    return node.writeUnit();
  }

  @Override
  public boolean queues() {
    return node.queues();
  }

  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    boolean asItIs =
        !request.write()
            || (manners.cache() != Cache.WRITETHROUGH && manners.detectZeroes().isEmpty());
    return asItIs && node.begin(request);
  }

  private void changed() throws BlockException {
    if (manners.cache() == Cache.WRITETHROUGH) {
      node.flush();
    }
  }

  @Override
  public void flush() throws BlockException {
    if (manners.cache() != Cache.UNSAFE) {
      node.flush();
    }
  }

  @Override
  public String name() {
    return node.name();
  }

  @Override
  public long virtualSize() {
    return node.virtualSize();
  }

  @Override
  public boolean readOnly() {
    return node.readOnly();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    node.read(offset, into);
  }

  @Override
  public int lend(long offset, int length, Borrower borrower) {
    return node.lend(offset, length, borrower);
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    node.extents(offset, length, visitor);
  }

  @Override
  public void layers(long offset, long length, Extents.LayerVisitor visitor) throws BlockException {
    node.layers(offset, length, visitor);
  }

  @Override
  public Optional<BlockNode> backing() {
    return node.backing();
  }

  @Override
  public void close() {}
}
