// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Optional;
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
///
/// How the file is open, and by what else while a node that was opened read-only is
/// [reopened][#reopen] for writing, is [OpenFile]'s. Only the channel that writes is synced, so
/// only one of the descriptors hears of failed write-back. Opened for writing and reopened
/// read-only the node keeps what it has, and refuses to write.
///
/// Requests that change the file are inside `changes`; a reopening shuts it, so that what they
/// write by is one thing from start to end. This object's monitor orders what sets the file's size.
/// Of the locks: `changes` → `flushing` → this → those of [OpenFile].
public final class FileNode implements BlockNode {
  private final OpenFile file;
  private final String name;
  private final boolean device;
  private final boolean unsynced; // flushes do nothing
  private final HostAccess access;

  /// The file's: for reads, and for writes too when the node was opened for writing.
  private final FileChannel channel;

  /// The file's way past the page cache, with the access that the node was opened with; null: none.
  private final @Nullable DirectFile direct;

  private volatile boolean readOnly;

  /// The way to write while a node that was opened read-only is writable; else null.
  private volatile @Nullable FileWriting writing;

  private final Gate changes = new Gate(); // requests that change the file
  private volatile long size;
  private final FileSpace space;
  private volatile @Nullable HostMapping mapping; // null until something is lent

  private final Object flushing = new Object();
  private final AtomicLong flushesAsked = new AtomicLong();
  private long flushesDone; // guarded by flushing

  /// Why every flush fails from now on (rule 8); null while none has failed. Guarded by flushing.
  private @Nullable BlockException poison;

  private FileNode(OpenFile file, OpenOptions options) {
    this.file = file;
    this.name = file.name();
    this.device = file.device();
    this.unsynced = options.durability() == Durability.UNSAFE;
    this.access = options.access();
    this.channel = file.channel();
    this.direct = file.direct();
    this.readOnly = options.readOnly();
    this.size = file.openedSize();
    this.space = new FileSpace(device, file::descriptor, this::writeDescriptor);
  }

  /// Does ahead what the first file that is locked would wait for. For a thread of its own while a
  /// program starts.
  public static void bindSystemCalls() {
    LinuxFile.bindSystemCalls();
  }

  /// Opens an existing file or device, and locks it as `options` say.
  ///
  /// @throws ImageBusyException when another holder's image lock excludes this use
  /// @throws TransportException when it is missing or may not be opened
  /// @throws UnsupportedImageException when it is neither a regular file nor a block device
  public static FileNode open(Path path, OpenOptions options) throws BlockException {
    try {
      return new FileNode(OpenFile.existing(path, options), options);
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  /// Creates an empty file that must not exist (mode 0600 less the umask), opens it read-write and
  /// locks it.
  public static FileNode create(Path path) throws BlockException {
    try {
      return new FileNode(OpenFile.created(path), OpenOptions.readWrite());
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  /// The file's path.
  public Path path() {
    return file.path();
  }

  /// Which file it is, for whoever keeps something of it elsewhere; empty where the file system
  /// does not keep when a file was made, and so its inode number may mean another file later.
  public Optional<FileTrace> trace() throws BlockException {
    try {
      return file.trace();
    } catch (IOException e) {
      throw HostErrors.of(name, e);
    }
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
      if (direct != null) {
        direct.read(offset, into);
        return;
      }
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

  /// What lies in the page cache.
  @Override
  public int lend(long offset, int length, Borrower borrower) {
    boolean there = offset >= 0 && length >= 0 && offset <= size - length;
    return there && direct == null ? mapping().lend(offset, length, borrower) : 0;
  }

  private HostMapping mapping() {
    HostMapping made = mapping;
    if (made != null) {
      return made;
    }
    synchronized (this) {
      if (mapping == null) {
        mapping = new HostMapping(file::descriptor);
      }
      return Objects.requireNonNull(mapping);
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    int ticket = changes.enter();
    try {
      checkWritable();
      check(offset, from.remaining());
      writeFully(offset, from);
    } catch (IOException e) {
      throw HostErrors.of(place("write", offset), e);
    } finally {
      changes.leave(ticket);
    }
  }

  /// Past the page cache each part would wait for the disk.
  @Override
  public int writeUnit() {
    return direct == null ? 1 : UNCUT;
  }

  @Override
  public boolean queues() {
    return direct != null && access == HostAccess.DIRECT_QUEUED;
  }

  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    if (!queues() || request.offset() < 0 || request.offset() > size - request.length()) {
      return false;
    }
    if (!request.write()) {
      return direct != null && direct.begin(request);
    }
    int ticket = changes.tryEnter();
    if (ticket < 0) {
      return false;
    }
    boolean begun = false;
    int mark = request.mark();
    try {
      DirectFile into = readOnly ? null : directWriter();
      request.atEnd((_, _, number, _) -> changes.leave((int) number), ticket, null);
      begun = into != null && into.begin(request);
      return begun;
    } finally {
      if (!begun) {
        request.forget(mark);
        changes.leave(ticket);
      }
    }
  }

  private @Nullable DirectFile directWriter() {
    FileWriting added = writing;
    return added == null ? direct : added.direct();
  }

  private void writeFully(long offset, ByteBuffer from) throws IOException {
    DirectFile past = directWriter();
    if (past != null) {
      long end = offset + from.remaining();
      past.write(offset, from);
      keepSize(past, end);
      return;
    }
    FileChannel into = writeChannel();
    long at = offset;
    while (from.hasRemaining()) {
      at += into.write(from, at);
    }
  }

  /// May-unmap punches a hole where the file system can; else, and for no-unmap, the range is
  /// zeroed in place, by the file system or by writing.
  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    int ticket = changes.enter();
    try {
      checkWritable();
      check(offset, length);
      if (length == 0) {
        return;
      }
      if (mode == ZeroMode.MAY_UNMAP && inBlocks(offset, length, space::punch)) {
        return;
      }
      if (inBlocks(offset, length, space::zeroRange)) {
        return;
      }
      long end = offset + length;
      for (long at = offset; at < end; ) {
        int part = (int) Math.min(Zeroes.BLOCK, end - at);
        writeFully(at, Zeroes.of(part));
        at += part;
      }
    } catch (IOException e) {
      throw HostErrors.of(place("zero", offset), e);
    } finally {
      changes.leave(ticket);
    }
  }

  /// Punches a hole; where the file system cannot, nothing changes.
  @Override
  public void discard(long offset, long length) throws BlockException {
    int ticket = changes.enter();
    try {
      checkWritable();
      check(offset, length);
      boolean _ = inBlocks(offset, length, space::punch);
    } catch (IOException e) {
      throw HostErrors.of(place("discard", offset), e);
    } finally {
      changes.leave(ticket);
    }
  }

  /// Past the page cache, the file system is asked for whole blocks only: parts of them it would
  /// change in the page cache.
  private boolean inBlocks(long offset, long length, DirectFile.Change change) throws IOException {
    DirectFile past = directWriter();
    if (past == null) {
      return change.run(offset, length);
    }
    if (!space.changes() || !past.zero(offset, length, change)) {
      return false;
    }
    keepSize(past, offset + length);
    return true;
  }

  /// After a change past the page cache that ends at `end`: where that is in a last block that is
  /// not whole, all of the block was written. The size is what it is now, and a file that grows
  /// meanwhile keeps what it gains.
  private void keepSize(DirectFile past, long end) throws IOException {
    if (past.roundUp(end) > size && !device) {
      synchronized (this) {
        writeDescriptor().truncate(size);
      }
    }
  }

  private FileChannel writeChannel() {
    FileWriting added = writing;
    return added == null ? channel : added.channel();
  }

  private LinuxFile writeDescriptor() throws IOException {
    FileWriting added = writing;
    return added == null ? file.descriptor() : added.descriptor();
  }

  /// Changes the locks first when writing begins, and last when it ends.
  @Override
  public void reopen(boolean wantReadOnly) throws BlockException {
    changes.shut();
    try {
      if (wantReadOnly != readOnly) {
        if (wantReadOnly) {
          endWriting();
        } else {
          beginWriting();
        }
      }
    } catch (IOException e) {
      throw HostErrors.of(name + ": reopen", e);
    } finally {
      changes.open();
    }
  }

  private void beginWriting() throws IOException {
    file.takeWriterLocks();
    try {
      size = channel.size();
      writing = file.writing();
      readOnly = false;
    } catch (IOException | RuntimeException e) {
      file.leaveWriterLocks();
      throw e;
    }
  }

  private void endWriting() throws IOException {
    flush();
    synchronized (flushing) { // no flush uses what is closed here
      readOnly = true;
      FileWriting added = writing;
      writing = null;
      if (added != null) {
        added.close();
      }
    }
    file.leaveWriterLocks();
  }

  @Override
  public void flush() throws BlockException {
    long ticket = flushesAsked.incrementAndGet();
    synchronized (flushing) {
      if (poison != null) {
        throw new TransportException(
            name + ": an earlier flush failed; reopen and check the image", poison);
      }
      if (flushesDone >= ticket || readOnly || unsynced) {
        return;
      }
      long covered = flushesAsked.get();
      try {
        writeChannel().force(false);
      } catch (IOException e) {
        poison = HostErrors.of(name + ": flush", e);
        throw poison;
      }
      flushesDone = covered;
    }
  }

  /// What goes past the page cache is on its way already, and so is nothing of a file that is never
  /// synced.
  ///
  /// Safe beside [#flush], which alone is to hear of failed write-back: this waits for no page, so
  /// the kernel keeps what it learns for the next sync.
  @Override
  public void startWriteBack() throws BlockException {
    if (unsynced || direct != null) {
      return;
    }
    int ticket = changes.enter();
    try {
      if (!readOnly) {
        space.startWriteBack();
      }
    } catch (IOException e) {
      throw HostErrors.of(name + ": write back", e);
    } finally {
      changes.leave(ticket);
    }
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    check(offset, length);
    long end = offset + length;
    for (long at = offset; at < end; ) {
      Extent extent;
      try {
        extent = space.extentAt(at, end);
      } catch (IOException e) {
        throw HostErrors.of(place("seek", at), e);
      }
      if (!visitor.visit(extent)) {
        return;
      }
      at = extent.end();
    }
  }

  @Override
  public long allocatedBytes() throws BlockException {
    try {
      return device ? size : file.descriptor().status().allocatedBytes();
    } catch (IOException e) {
      throw HostErrors.of(name, e);
    }
  }

  @Override
  public void resize(long newSize) throws BlockException {
    int ticket = changes.enter();
    try {
      checkWritable();
      if (newSize < 0) {
        throw new IllegalArgumentException(name + ": size " + newSize);
      }
      if (device) {
        throw new UnsupportedImageException(
            name + ": a block device has its size, " + size + " bytes, and cannot be resized");
      }
      synchronized (this) {
        writeDescriptor().truncate(newSize);
        size = newSize;
      }
    } catch (IOException e) {
      throw HostErrors.of(name + ": resize to " + newSize + " bytes", e);
    } finally {
      changes.leave(ticket);
    }
  }

  @Override
  public void close() throws BlockException {
    // What writes first: nothing is written once the locks are gone.
    try {
      try {
        FileWriting added = writing;
        if (added != null) {
          added.close();
        }
      } finally {
        try {
          file.close();
        } finally {
          closeMapping();
        }
      }
    } catch (IOException e) {
      throw HostErrors.of(name + ": close", e);
    }
  }

  /// Once no window can be made any more. Those that were made hold the locks.
  private void closeMapping() {
    HostMapping made = mapping;
    if (made != null) {
      made.close();
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
