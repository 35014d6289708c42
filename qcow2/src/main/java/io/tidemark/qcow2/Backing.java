// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Borrower;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// What answers for unallocated clusters: the backing node, or zeroes.
///
/// Any thread may read; attaching and detaching happen while no request runs.
final class Backing {
  private volatile boolean recorded; // whether the image names a backing file
  private volatile @Nullable BlockNode node; // null: none attached

  /// The image names a backing file from now on, or none.
  void record(boolean named) {
    recorded = named;
  }

  void attach(BlockNode backing) {
    if (node != null) {
      throw new IllegalStateException("a backing node is attached already: " + node.name());
    }
    node = backing;
  }

  Optional<BlockNode> detach() {
    Optional<BlockNode> was = node();
    node = null;
    return was;
  }

  Optional<BlockNode> node() {
    return Optional.ofNullable(node);
  }

  /// First guest byte for which unallocated means zero, now and when the chain is whole.
  long bound() {
    BlockNode attached = node;
    if (attached != null) {
      return attached.virtualSize();
    }
    return recorded ? Long.MAX_VALUE : 0;
  }

  /// First guest byte for which unallocated reads as zero in the chain as it is.
  long readableBound() {
    BlockNode attached = node;
    return attached == null ? 0 : attached.virtualSize();
  }

  /// Fills `into`; zeroes where there is nothing.
  void read(long offset, ByteBuffer into) throws BlockException {
    BlockNode attached = node;
    if (attached != null) {
      long there = Math.clamp(attached.virtualSize() - offset, 0L, (long) into.remaining());
      if (there > 0) {
        int limit = into.limit();
        into.limit(into.position() + (int) there);
        attached.read(offset, into);
        into.limit(limit);
      }
    }
    Zeroes.fill(into);
  }

  /// See [BlockNode#lend].
  int lend(long offset, int length, Borrower borrower) {
    BlockNode attached = node;
    return attached != null && offset <= attached.virtualSize() - length
        ? attached.lend(offset, length, borrower)
        : 0;
  }

  /// See [BlockNode#begin], of a read.
  boolean begin(QueuedRequest read) throws BlockException {
    BlockNode attached = node;
    long there = attached == null ? 0 : attached.virtualSize();
    if (attached != null && read.offset() <= there - read.length()) {
      return attached.begin(read);
    }
    if (read.offset() < there) {
      return false; // in part
    }
    read.endAsZeroes();
    return true;
  }

  void close() throws BlockException {
    BlockNode attached = node;
    node = null;
    if (attached != null) {
      attached.close();
    }
  }
}
