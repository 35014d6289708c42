// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The file beneath an image, as the format needs it: bytes past its end read as zeroes, it grows
/// on demand, and a sync that failed once fails from then on (rule 8).
///
/// Any thread may call any method.
final class HostFile {
  private final BlockNode node;
  private volatile long length;
  private volatile @Nullable BlockException failure; // null until a sync failed
  private volatile @Nullable CorruptImageException corruption; // null until found

  HostFile(BlockNode node) {
    this.node = node;
    this.length = node.virtualSize();
  }

  BlockNode node() {
    return node;
  }

  String name() {
    return node.name();
  }

  /// Bytes of the file, as far as this program made or found it.
  long length() {
    return length;
  }

  /// Fills `into`; what lies past the end of the file is zero.
  void read(long offset, ByteBuffer into) throws BlockException {
    int wanted = into.remaining();
    if (offset > length - wanted) {
      length = Math.max(length, node.virtualSize()); // a writer beside a --force-share reader
    }
    long there = Math.clamp(length - offset, 0L, (long) wanted);
    int limit = into.limit();
    if (there > 0) {
      into.limit(into.position() + (int) there);
      node.read(offset, into);
      into.limit(limit);
    }
    Zeroes.fill(into);
  }

  /// A new big-endian buffer with `bytes` bytes from `offset`.
  ByteBuffer readAt(long offset, int bytes) throws BlockException {
    ByteBuffer buffer = Header.bigEndian(bytes);
    read(offset, buffer);
    return buffer.flip();
  }

  /// Writes all of `from`, growing the file when it must.
  void write(long offset, ByteBuffer from) throws BlockException {
    if (offset > length - from.remaining()) {
      grow(offset + from.remaining());
    }
    node.write(offset, from);
  }

  void writeZeroes(long offset, long bytes) throws BlockException {
    for (long done = 0; done < bytes; ) {
      int step = (int) Math.min(Zeroes.BLOCK, bytes - done);
      write(offset + done, Zeroes.of(step));
      done += step;
    }
  }

  /// Makes the file at least `end` bytes long. Returns whether it was shorter.
  synchronized boolean grow(long end) throws BlockException {
    if (end <= length) {
      return false;
    }
    try {
      node.resize(end);
    } catch (UnsupportedImageException e) {
      throw new OutOfSpaceException(name() + ": full at " + length + " bytes", e);
    }
    length = end;
    return true;
  }

  synchronized void truncate(long end) throws BlockException {
    node.resize(end);
    length = end;
  }

  /// Gives the space of a range back where that is possible; its bytes are then undefined here.
  void punch(long offset, long bytes) {
    long end = Math.min(offset + bytes, length);
    if (end <= offset) {
      return;
    }
    try {
      node.discard(offset, end - offset);
    } catch (BlockException _) {
      // Safe because a range that keeps its space is only larger than it must be.
    }
  }

  /// Everything written is on stable storage.
  void sync() throws BlockException {
    check();
    try {
      node.flush();
    } catch (BlockException e) {
      failure = e;
      throw e;
    }
  }

  /// Throws when metadata can no longer be trusted to reach the disk.
  void check() throws BlockException {
    BlockException earlier = failure;
    if (earlier != null) {
      throw new TransportException(
          name() + ": an earlier write of metadata failed; reopen the image and check it", earlier);
    }
  }

  /// From now on [#sync] and [#check] fail: metadata could not be written.
  void fail(BlockException cause) {
    failure = cause;
  }

  /// What to throw where metadata of the image itself was found so wrong that writing on would
  /// destroy more. The first is remembered: [#corruption].
  synchronized CorruptImageException corrupt(String what) {
    var found = new CorruptImageException(name() + ": " + what);
    if (corruption == null) {
      corruption = found;
    }
    return found;
  }

  /// The first corruption found since the image was opened.
  Optional<CorruptImageException> corruption() {
    return Optional.ofNullable(corruption);
  }
}
