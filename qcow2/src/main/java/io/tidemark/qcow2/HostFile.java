// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Borrower;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.FileNode;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.Preallocation;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
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
  private final long bias;
  private final @Nullable HostFile dataFile; // null: data is in this file
  private volatile long length;
  private volatile @Nullable BlockException failure; // null until a sync failed
  private volatile @Nullable CorruptImageException corruption; // null until found

  HostFile(BlockNode node) {
    this(node, 0, null);
  }

  /// The file of an image whose data is in another one: syncs reach both, the data file first.
  HostFile(BlockNode node, HostFile dataFile) {
    this(node, 0, dataFile);
  }

  /// An external data file: offsets asked for are [Geometry#DATA_FILE_BIAS] too high.
  static HostFile ofData(BlockNode node) {
    return new HostFile(node, Geometry.DATA_FILE_BIAS, null);
  }

  private HostFile(BlockNode node, long bias, @Nullable HostFile dataFile) {
    this.node = node;
    this.bias = bias;
    this.dataFile = dataFile;
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
  void read(long hostOffset, ByteBuffer into) throws BlockException {
    long offset = hostOffset - bias;
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

  /// See [BlockNode#lend].
  int lend(long hostOffset, int bytes, Borrower borrower) {
    long offset = hostOffset - bias;
    return offset <= length - bytes ? node.lend(offset, bytes, borrower) : 0;
  }

  /// See [BlockNode#begin]; nothing past the end of the file.
  boolean begin(long hostOffset, QueuedRequest request) throws BlockException {
    long offset = hostOffset - bias;
    if (offset > length - request.length()) {
      return false;
    }
    request.moveTo(offset);
    return node.begin(request);
  }

  /// A new big-endian buffer with `bytes` bytes from `offset`.
  ByteBuffer readAt(long offset, int bytes) throws BlockException {
    ByteBuffer buffer = Header.bigEndian(bytes);
    read(offset, buffer);
    return buffer.flip();
  }

  /// Writes all of `from`, growing the file when it must.
  void write(long hostOffset, ByteBuffer from) throws BlockException {
    long offset = hostOffset - bias;
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

  /// As above, and space may be given back or has to be kept.
  void writeZeroes(long hostOffset, long bytes, ZeroMode mode) throws BlockException {
    long offset = hostOffset - bias;
    grow(offset + bytes);
    node.writeZeroes(offset, bytes, mode);
  }

  /// Takes space for bytes that read as zeroes, or only makes the file hold them.
  void preallocate(long hostOffset, long bytes, Preallocation preallocation) throws BlockException {
    switch (preallocation) {
      case OFF, METADATA -> grow(hostOffset - bias + bytes);
      case FALLOC -> writeZeroes(hostOffset, bytes, ZeroMode.NO_UNMAP);
      case FULL -> writeZeroes(hostOffset, bytes);
    }
  }

  /// Makes the file of exactly this size; a device that cannot have another may be larger.
  synchronized void resize(long size) throws BlockException {
    if (size == length) {
      return;
    }
    try {
      node.resize(size);
      length = size;
    } catch (UnsupportedImageException e) {
      if (length < size) {
        throw e;
      }
    }
  }

  /// Cuts what lies past `end` off, where the file has no size of its own: a device keeps it.
  synchronized void truncate(long end) throws BlockException {
    if (node instanceof FileNode file && file.isDevice()) {
      return;
    }
    node.resize(end);
    length = end;
  }

  /// Gives the space of a range back where that is possible; its bytes are then undefined here.
  void punch(long hostOffset, long bytes) {
    long offset = hostOffset - bias;
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
      if (dataFile != null) {
        dataFile.sync();
      }
      node.flush();
    } catch (BlockException e) {
      failure = e;
      throw e;
    }
  }

  /// See [BlockNode#startWriteBack].
  void startWriteBack() throws BlockException {
    node.startWriteBack();
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
