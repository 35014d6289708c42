// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.Errno;
import io.tidemark.linux.LinuxException;
import io.tidemark.linux.LinuxFile;
import io.tidemark.linux.Ring;
import java.io.EOFException;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import org.jspecify.annotations.Nullable;

/// A host file past the page cache (O_DIRECT), for requests of any alignment.
///
/// What the storage takes as it is goes straight to it. Everything else goes by a buffer of our
/// own: reads are widened to whole blocks, and of a write the blocks at either end are read,
/// changed and written back. Nothing of this file lies in the page cache by our doing, so there are
/// no two copies to keep alike; what another program has there the kernel writes out before a
/// direct read, and drops before a direct write.
///
/// Two writes of different parts of one block would each write the other's bytes as they were. So
/// every change holds its range, widened to blocks, until it is done.
///
/// A write into the last, partial block of a file makes the file longer, up to the end of that
/// block, by zeroes; whoever knows the size cuts it again. A power cut or kill between the two
/// leaves the zeroes.
final class DirectFile implements AutoCloseable {
  private static final Logger LOG = System.getLogger(DirectFile.class.getName());

  /// Bytes of a buffer for what is not aligned; such requests go in pieces of it.
  static final int BOUNCE_BYTES = 256 << 10;

  /// Such buffers kept for all files.
  private static final int KEPT = 16;

  /// What addresses are multiples of: enough for all storage.
  static final int PAGE = 4096;

  private static final ArrayBlockingQueue<ByteBuffer> BUFFERS = new ArrayBlockingQueue<>(KEPT);

  private final LinuxFile file;
  private final int block;
  private final String name;
  private final RangeLock changes = new RangeLock();

  private DirectFile(LinuxFile file, int block, String name) {
    this.file = file;
    this.block = block;
    this.name = name;
  }

  /// Opens a file that is open already; empty, with a warning, where its file system has no way
  /// past the page cache.
  static Optional<DirectFile> open(LinuxFile open, boolean readOnly, String name)
      throws IOException {
    LinuxFile.Access access =
        readOnly ? LinuxFile.Access.READ_DIRECT : LinuxFile.Access.READ_WRITE_DIRECT;
    Path path = open.reopenPath();
    LinuxFile file;
    try {
      file = LinuxFile.open(path, access);
    } catch (LinuxException e) {
      if (e.errno() != Errno.EINVAL && !e.unsupported()) {
        throw e;
      }
      LOG.log(Level.WARNING, name + ": the file system has no O_DIRECT: the page cache is used");
      return Optional.empty();
    }
    try {
      return Optional.of(new DirectFile(file, file.directAlignment(), name));
    } catch (IOException e) {
      file.close();
      throw e;
    }
  }

  /// Bytes of which offsets and lengths are multiples.
  int block() {
    return block;
  }

  private boolean aligned(long offset, int length) {
    return ((offset | length) & (block - 1)) == 0;
  }

  private boolean straight(long offset, ByteBuffer bytes, int length) {
    return aligned(offset, length)
        && bytes.isDirect()
        && bytes.alignmentOffset(bytes.position(), PAGE) == 0;
  }

  private static ByteBuffer takeBuffer() {
    ByteBuffer kept = BUFFERS.poll();
    return kept != null
        ? kept.clear()
        : ByteBuffer.allocateDirect(BOUNCE_BYTES + PAGE).alignedSlice(PAGE).slice(0, BOUNCE_BYTES);
  }

  private static void giveBuffer(ByteBuffer buffer) {
    boolean _ = BUFFERS.offer(buffer);
  }

  void read(long offset, ByteBuffer into) throws IOException {
    if (straight(offset, into, into.remaining())) {
      readStraight(offset, into);
      return;
    }
    ByteBuffer buffer = takeBuffer();
    try {
      while (into.hasRemaining()) {
        int before = (int) (offset & (block - 1));
        int length = Math.min(into.remaining(), BOUNCE_BYTES - before);
        buffer.clear().limit(roundUp(before + length));
        readBlocks(offset - before, buffer);
        if (buffer.position() < before + length) {
          throw new EOFException("file ends at " + (offset - before + buffer.position()));
        }
        int end = into.position() + length;
        into.put(into.position(), buffer, before, length).position(end);
        offset += length;
      }
    } finally {
      giveBuffer(buffer);
    }
  }

  private void readStraight(long offset, ByteBuffer into) throws IOException {
    while (into.hasRemaining()) {
      int count = file.read(into, offset);
      offset += count;
      if (count == 0) {
        throw new EOFException("file ends at " + offset);
      }
      if (!aligned(offset, into.remaining())) { // the last block of a file is not whole
        if (into.hasRemaining()) {
          throw new EOFException("file ends at " + offset);
        }
      }
    }
  }

  /// As far as the file goes.
  private void readBlocks(long offset, ByteBuffer into) throws IOException {
    int count;
    do {
      count = file.read(into, offset + into.position());
    } while (count > 0 && into.hasRemaining() && aligned(count, 0));
  }

  private int roundUp(int length) {
    return (int) roundUp((long) length);
  }

  long roundUp(long offset) {
    return (offset + block - 1) & -block;
  }

  private RangeLock.Held hold(long offset, long length) {
    long start = offset & -block;
    return changes.lock(start, ((offset + length + block - 1) & -block) - start);
  }

  /// Writes all of `from`.
  void write(long offset, ByteBuffer from) throws IOException {
    try (var _ = hold(offset, from.remaining())) {
      if (straight(offset, from, from.remaining())) {
        writeStraight(offset, from);
        return;
      }
      ByteBuffer buffer = takeBuffer();
      try {
        while (from.hasRemaining()) {
          int before = (int) (offset & (block - 1));
          int length = Math.min(from.remaining(), BOUNCE_BYTES - before);
          merge(offset - before, before, length, from, buffer);
          writeStraight(offset - before, buffer);
          offset += length;
        }
      } finally {
        giveBuffer(buffer);
      }
    }
  }

  /// Fills the buffer with whole blocks: what is there, and over it `length` bytes of `from`.
  private void merge(long start, int before, int length, ByteBuffer from, ByteBuffer buffer)
      throws IOException {
    int whole = roundUp(before + length);
    int tail = whole - block;
    if (before > 0 || whole != before + length) {
      if (before > 0 || tail == 0) {
        readOld(start, 0, buffer);
      }
      if (tail > 0 && whole != before + length) {
        readOld(start, tail, buffer);
      }
    }
    buffer.clear().limit(whole);
    buffer.put(before, from, from.position(), length);
    from.position(from.position() + length);
  }

  /// Reads one block; past the file's end it is zero.
  private void readOld(long start, int at, ByteBuffer buffer) throws IOException {
    buffer.clear().limit(at + block).position(at);
    file.read(buffer, start + at);
    Zeroes.fill(buffer);
  }

  private void writeStraight(long offset, ByteBuffer from) throws IOException {
    while (from.hasRemaining()) {
      int count = file.write(from, offset);
      offset += count;
      if (count == 0 || !aligned(offset, 0)) {
        throw new IOException("a direct write stopped short at " + offset);
      }
    }
  }

  /// What changes a range by other calls, whole blocks only.
  interface Change {
    boolean run(long offset, long length) throws IOException;
  }

  /// Changes the whole blocks of a range by `middle`, and where that succeeded the rest of it to
  /// zeroes, by writing. Returns what `middle` said; true when there is no whole block.
  boolean zero(long offset, long length, Change middle) throws IOException {
    long end = offset + length;
    long from = Math.min(end, (offset + block - 1) & -block);
    long to = Math.max(from, end & -block);
    if (to > from) {
      try (var _ = hold(from, to - from)) {
        if (!middle.run(from, to - from)) {
          return false;
        }
      }
    }
    if (from > offset) {
      write(offset, Zeroes.of((int) (from - offset)));
    }
    if (end > to) {
      write(to, Zeroes.of((int) (end - to)));
    }
    return true;
  }

  // ---- queued requests

  /// Puts a request into its queue; false when it is not aligned, or would have to wait.
  boolean begin(QueuedRequest request) {
    if (request.length() == 0 || !straight(request.offset(), request.bytes(), request.length())) {
      return false;
    }
    int mark = request.mark();
    RangeLock.Held range = null;
    if (request.write()) {
      Optional<RangeLock.Held> free = changes.tryLock(request.offset(), request.length());
      if (free.isEmpty()) {
        return false;
      }
      range = free.get();
      request.atEnd(DirectFile::release, 0, range);
    }
    request.begunIn(this);
    if (request.queue().put(file, request)) {
      return true;
    }
    request.forget(mark);
    if (range != null) {
      range.close();
    }
    return false;
  }

  private static void release(
      QueuedRequest request, boolean done, long number, RangeLock.@Nullable Held held) {
    if (held != null) {
      held.close();
    }
  }

  /// The kernel is done with a request: with all of it, a part, or an error. A part is rare (a
  /// signal, a full disk); the rest is done here and now, and meets the error if there is one.
  void finish(QueuedRequest request, int result) throws BlockException {
    ByteBuffer bytes = request.bytes();
    String call = request.write() ? "write" : "read";
    String place = name + ": " + call + " at 0x" + Long.toHexString(request.offset());
    try {
      if (result < 0 && result != -Errno.EAGAIN && result != -Errno.EINTR) {
        throw Ring.failure(name, call, result);
      }
      int done = Math.max(result, 0) & -block;
      if (done < request.length()) {
        ByteBuffer rest = bytes.duplicate();
        rest.position(bytes.position() + done);
        if (request.write()) {
          writeStraight(request.offset() + done, rest);
        } else {
          read(request.offset() + done, rest);
        }
      }
    } catch (IOException e) {
      throw HostErrors.of(place, e);
    }
  }

  @Override
  public void close() throws IOException {
    file.close();
  }
}
