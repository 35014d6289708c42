// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/// A host file or block device, byte for byte: what lies beneath every local format node (QEMU: the
/// protocol node).
///
/// Writes past the end are refused; a format grows its file with [#resize].
///
/// Reads and writes are positional and run beside each other. A thread in one of them must never be
/// interrupted: the channel would close for everyone. Writes lie in the page cache when they return
/// and survive the death of the process; [#flush] makes them survive power. Flushes run one at a
/// time, because the kernel reports a failed write-back once: two at a time could tell it to one
/// and success to the other. Those that wait share the next one.
public final class FileNode implements BlockNode {
  private static final int S_IFMT = 0170000;
  private static final int S_IFREG = 0100000;
  private static final int S_IFBLK = 0060000;

  private final Path path;
  private final String name;
  private final boolean readOnly;
  private final boolean device;
  private final FileChannel channel;
  private volatile long size;

  private final Object flushing = new Object();
  private final AtomicLong flushesAsked = new AtomicLong();
  private long flushesDone; // guarded by flushing

  /// Why every flush fails from now on (rule 8); null while none has failed. Guarded by flushing.
  private @Nullable BlockException poison;

  private FileNode(Path path, boolean readOnly, boolean device, FileChannel channel)
      throws IOException {
    this.path = path;
    this.name = path.toString();
    this.readOnly = readOnly;
    this.device = device;
    this.channel = channel;
    this.size = channel.size();
  }

  /// Opens an existing file or device, and locks it as `options` say.
  ///
  /// @throws ImageBusyException when another holder's image lock excludes this use
  /// @throws TransportException when it is missing or may not be opened
  /// @throws UnsupportedImageException when it is neither a regular file nor a block device
  public static FileNode open(Path path, OpenOptions options) throws BlockException {
    try {
      boolean device = requireImageFile(path);
      Set<OpenOption> how =
          options.readOnly()
              ? Set.of(StandardOpenOption.READ)
              : Set.of(StandardOpenOption.READ, StandardOpenOption.WRITE);
      return opened(path, options.readOnly(), device, FileChannel.open(path, how));
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  /// Creates an empty file that must not exist (mode 0600 less the umask), opens it read-write and
  /// locks it.
  public static FileNode create(Path path) throws BlockException {
    try {
      FileChannel channel =
          FileChannel.open(
              path,
              Set.of(
                  StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.CREATE_NEW),
              PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
      return opened(path, false, false, channel);
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  private static FileNode opened(Path path, boolean readOnly, boolean device, FileChannel channel)
      throws IOException {
    try {
      return new FileNode(path, readOnly, device, channel);
    } catch (IOException e) {
      channel.close();
      throw e;
    }
  }

  /// Refuses what is neither a regular file nor a block device. Asked before opening, because
  /// opening a pipe would wait for its other end.
  ///
  /// @return whether it is a block device
  static boolean requireImageFile(Path path) throws IOException {
    Map<String, Object> attributes = Files.readAttributes(path, "unix:mode", new LinkOption[0]);
    int type = attributes.get("mode") instanceof Integer mode ? mode & S_IFMT : 0;
    if (type != S_IFREG && type != S_IFBLK) {
      throw new UnsupportedImageException(
          path
              + ": neither a regular file nor a block device (file type 0"
              + Integer.toOctalString(type)
              + ")");
    }
    return type == S_IFBLK;
  }

  /// The file's path.
  public Path path() {
    return path;
  }

  /// Whether this is a block device, whose size is given.
  public boolean isDevice() {
    return device;
  }

  @Override
  public String name() {
    return name;
  }

  /// Bytes in the file.
  @Override
  public long virtualSize() {
    return size;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    check(offset, into.remaining());
    try {
      long at = offset;
      while (into.hasRemaining()) {
        int count = channel.read(into, at);
        if (count < 0) {
          throw new TransportException(
              place("read", offset) + ": file ends at " + at + ", it had " + size + " bytes");
        }
        at += count;
      }
    } catch (IOException e) {
      throw HostErrors.of(place("read", offset), e);
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    checkWritable();
    check(offset, from.remaining());
    try {
      writeFully(offset, from);
    } catch (IOException e) {
      throw HostErrors.of(place("write", offset), e);
    }
  }

  private void writeFully(long offset, ByteBuffer from) throws IOException {
    long at = offset;
    while (from.hasRemaining()) {
      at += channel.write(from, at);
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    checkWritable();
    check(offset, length);
    try {
      long end = offset + length;
      for (long at = offset; at < end; ) {
        int part = (int) Math.min(Zeroes.BLOCK, end - at);
        writeFully(at, Zeroes.of(part));
        at += part;
      }
    } catch (IOException e) {
      throw HostErrors.of(place("zero", offset), e);
    }
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
  }

  @Override
  public void flush() throws BlockException {
    long ticket = flushesAsked.incrementAndGet();
    synchronized (flushing) {
      if (poison != null) {
        throw new TransportException(
            name + ": an earlier flush failed; reopen and check the image", poison);
      }
      if (flushesDone >= ticket || readOnly) {
        return;
      }
      long covered = flushesAsked.get();
      try {
        channel.force(false);
      } catch (IOException e) {
        poison = HostErrors.of(name + ": flush", e);
        throw poison;
      }
      flushesDone = covered;
    }
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    check(offset, length);
    if (length > 0) {
      visitor.visit(new Extent(offset, length, Extent.State.DATA, offset, false));
    }
  }

  @Override
  public void resize(long newSize) throws BlockException {
    checkWritable();
    if (newSize < 0) {
      throw new IllegalArgumentException(name + ": size " + newSize);
    }
    if (device) {
      throw new UnsupportedImageException(
          name + ": a block device has its size, " + size + " bytes, and cannot be resized");
    }
    try {
      synchronized (this) {
        if (newSize < size) {
          channel.truncate(newSize);
        } else if (newSize > size) {
          // The last byte is a hole's end: the file grows without taking space for what is between.
          writeFully(newSize - 1, Zeroes.of(1));
        }
        size = newSize;
      }
    } catch (IOException e) {
      throw HostErrors.of(name + ": resize to " + newSize + " bytes", e);
    }
  }

  @Override
  public void close() throws BlockException {
    try {
      channel.close();
    } catch (IOException e) {
      throw HostErrors.of(name + ": close", e);
    }
  }

  /// A read-only node may look at a file that its writer lets grow, so the end is asked again
  /// before a request is called the caller's bug.
  private void check(long offset, long length) throws BlockException {
    if (offset >= 0 && length >= 0 && offset <= size - length) {
      return;
    }
    if (readOnly && offset >= 0 && length >= 0) {
      try {
        size = channel.size();
      } catch (IOException e) {
        throw HostErrors.of(name, e);
      }
      if (offset <= size - length) {
        return;
      }
    }
    throw new IllegalArgumentException(
        name + ": " + length + " bytes at " + offset + " of " + size);
  }

  private void checkWritable() throws BlockException {
    if (readOnly) {
      throw new ReadOnlyNodeException(name + ": opened read-only");
    }
  }

  private String place(String what, long offset) {
    return name + ": " + what + " at 0x" + Long.toHexString(offset);
  }
}
