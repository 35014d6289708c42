// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.FileStatus;
import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Objects;
import java.util.Optional;
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
///
/// The file is open twice: a channel for bytes, and a descriptor of our own for holes, space and
/// [ImageLocks]. The descriptor comes first and the channel is opened through it, so that both are
/// the same file whatever happens to the name. Only the channel is synced, so only one of the two
/// hears of failed write-back.
///
/// A node that was opened read-only and is [reopened][#reopen] for writing opens the file twice
/// more, for what writes. Its locks stay with the first descriptor. Opened for writing and reopened
/// read-only it keeps what it has, and refuses to write.
public final class FileNode implements BlockNode {
  private final Path path;
  private final String name;
  private final boolean device;
  private final boolean unsynced; // flushes do nothing

  /// For reads, and for writes too when the node was opened for writing.
  private final FileChannel channel;

  /// The way past the page cache, with the access that the node was opened with; null: none.
  private final @Nullable DirectFile direct;

  private final HostAccess access;
  private final boolean openedReadOnly;
  private final boolean locks;
  private volatile boolean readOnly;

  /// The way to write while a node that was opened read-only is writable; else null.
  private volatile @Nullable FileWriting writing;

  private final Gate changes = new Gate(); // requests that change the file
  private volatile long size;
  private final FileIdentity identity;

  /// The descriptor for holes, space and locks; null until needed when the node takes no locks.
  private volatile @Nullable LinuxFile extra;

  private final FileSpace space;
  private volatile @Nullable HostMapping mapping; // null until something is lent

  private final Object flushing = new Object();
  private final AtomicLong flushesAsked = new AtomicLong();
  private long flushesDone; // guarded by flushing

  /// Why every flush fails from now on (rule 8); null while none has failed. Guarded by flushing.
  private @Nullable BlockException poison;

  private FileNode(
      Path path,
      OpenOptions options,
      FileIdentity identity,
      FileChannel channel,
      @Nullable LinuxFile extra)
      throws IOException {
    this.access = options.access();
    this.path = path;
    this.name = path.toString();
    this.readOnly = options.readOnly();
    this.unsynced = options.durability() == Durability.UNSAFE;
    this.openedReadOnly = readOnly;
    this.locks = extra != null;
    this.identity = identity;
    this.device = identity.device();
    this.space = new FileSpace(device, this::extra, this::writeDescriptor);
    this.channel = channel;
    this.extra = extra;
    this.size = channel.size();
    this.direct = access == HostAccess.CACHED ? null : directOf(extra);
  }

  private @Nullable DirectFile directOf(@Nullable LinuxFile given) throws IOException {
    try {
      return pastCache(extra(), openedReadOnly);
    } catch (IOException e) {
      if (given == null && extra != null) { // opened here; else its owner closes it
        closeAfter(e, extra);
      }
      throw e;
    }
  }

  private @Nullable DirectFile pastCache(LinuxFile open, boolean reading) throws IOException {
    return DirectFile.open(open, reading, name).orElse(null);
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
      FileIdentity identity = FileIdentity.of(path);
      if (!options.lock()) {
        // Without locks nothing but the JDK is needed to begin with.
        FileChannel channel = FileChannel.open(path, channelAccess(options.readOnly()));
        return opened(path, options, identity, channel, null);
      }
      LinuxFile extra = LinuxFile.open(path, access(options.readOnly()));
      return locked(path, options, extra);
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  /// Creates an empty file that must not exist (mode 0600 less the umask), opens it read-write and
  /// locks it.
  public static FileNode create(Path path) throws BlockException {
    try {
      LinuxFile made = LinuxFile.open(path, LinuxFile.Access.CREATE_NEW);
      try {
        return locked(path, OpenOptions.readWrite(), made);
      } catch (IOException | RuntimeException e) {
        Files.deleteIfExists(path);
        throw e;
      }
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  private static FileNode locked(Path path, OpenOptions options, LinuxFile extra)
      throws IOException {
    try {
      ImageLocks.take(path, extra, options.readOnly());
      FileIdentity identity = FileIdentity.of(extra.reopenPath());
      FileChannel channel = FileChannel.open(extra.reopenPath(), channelAccess(options.readOnly()));
      return opened(path, options, identity, channel, extra);
    } catch (IOException | RuntimeException e) {
      closeAfter(e, extra);
      throw e;
    }
  }

  private static FileNode opened(
      Path path,
      OpenOptions options,
      FileIdentity identity,
      FileChannel channel,
      @Nullable LinuxFile extra)
      throws IOException {
    try {
      return new FileNode(path, options, identity, channel, extra);
    } catch (IOException e) {
      closeAfter(e, channel);
      throw e;
    }
  }

  static void closeAfter(Exception failure, AutoCloseable open) {
    try {
      open.close();
    } catch (Exception e) {
      failure.addSuppressed(e);
    }
  }

  private static LinuxFile.Access access(boolean readOnly) {
    return readOnly ? LinuxFile.Access.READ : LinuxFile.Access.READ_WRITE;
  }

  static Set<OpenOption> channelAccess(boolean readOnly) {
    return readOnly
        ? Set.of(StandardOpenOption.READ)
        : Set.of(StandardOpenOption.READ, StandardOpenOption.WRITE);
  }

  /// The file's path.
  public Path path() {
    return path;
  }

  /// Which file it is, for whoever keeps something of it elsewhere; empty where the file system
  /// does not keep when a file was made, and so its inode number may mean another file later.
  public Optional<FileTrace> trace() throws BlockException {
    try {
      return FileTrace.of(path, extra());
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
        mapping = new HostMapping(this::extra);
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
    return added == null ? extra() : added.descriptor();
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
    if (!locks) {
      throw new UnsupportedImageException(
          name + ": opened without locks, cannot be reopened for writing");
    }
    ImageLocks.upgrade(path, extra());
    try {
      size = channel.size();
      if (openedReadOnly) {
        writing = FileWriting.to(extra(), open -> direct == null ? null : pastCache(open, false));
      }
      readOnly = false;
    } catch (IOException | RuntimeException e) {
      ImageLocks.downgrade(path, extra());
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
    if (locks) {
      ImageLocks.downgrade(path, extra());
    }
  }

  /// The descriptor for what a channel cannot do. Opened by name when the node was opened without
  /// locks, and then held against what the node was opened on.
  private LinuxFile extra() throws IOException {
    LinuxFile open = extra;
    if (open != null) {
      return open;
    }
    synchronized (this) {
      if (extra == null) {
        if (!channel.isOpen()) {
          throw new ClosedChannelException();
        }
        LinuxFile candidate = LinuxFile.open(path, access(openedReadOnly));
        FileStatus status = candidate.status();
        if (status.device() != identity.container() || status.inode() != identity.inode()) {
          candidate.close();
          throw new TransportException(
              name + ": another file has taken this name since it was opened");
        }
        extra = candidate;
      }
      return Objects.requireNonNull(extra);
    }
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
      return device ? size : extra().status().allocatedBytes();
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
    // The channel first: nothing is written once the locks are gone.
    try {
      try {
        FileWriting added = writing;
        if (added != null) {
          added.close();
        }
      } finally {
        try {
          channel.close();
        } finally {
          try {
            closeExtra();
          } finally {
            closeMapping();
          }
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

  private synchronized void closeExtra() throws IOException {
    if (direct != null) {
      direct.close();
    }
    if (extra != null) {
      extra.close();
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
