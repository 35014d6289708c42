// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.FileStatus;
import io.tidemark.linux.LinuxFile;
import java.io.Closeable;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// One host file as a [FileNode] has it open: by what, under which locks, and what else is opened
/// when the node is to write that was opened read-only.
///
/// **One file.** It is open twice: a channel for bytes, and a descriptor of our own for holes,
/// space and [ImageLocks]. Where locks are taken the descriptor comes first and the channel is
/// opened through it; where none are, the descriptor is opened by name when it is first needed, and
/// held against what the node was opened on. What writes later ([#writing]) is opened through the
/// descriptor. So all are the same file whatever happens to the name.
///
/// **Locks** belong to the descriptor from its opening until [#close], and change with
/// [#takeWriterLocks] and [#leaveWriterLocks]; whoever writes holds them from before the first
/// write until after the last. What was opened without locks never gets any.
///
/// **Threads.** Any thread may ask for the channel and the descriptor. Locks are changed, and
/// [#writing] is called, by one thread at a time, while nobody writes. The monitor guards the
/// opening and closing of the descriptor, and nothing else is taken with it held.
final class OpenFile implements Closeable {
  private final Path path;
  private final boolean readOnly;
  private final boolean locks;
  private final FileIdentity identity;
  private final FileChannel channel;
  private final long openedSize;
  private final @Nullable DirectFile direct; // null: requests go through the page cache

  /// Our own; null until needed when there are no locks. Written under this.
  private volatile @Nullable LinuxFile descriptor;

  private OpenFile(
      Path path,
      OpenOptions options,
      FileIdentity identity,
      FileChannel channel,
      @Nullable LinuxFile descriptor)
      throws IOException {
    this.path = path;
    this.readOnly = options.readOnly();
    this.locks = descriptor != null;
    this.identity = identity;
    this.channel = channel;
    this.descriptor = descriptor;
    this.openedSize = channel.size();
    this.direct = options.access() == HostAccess.CACHED ? null : directOf(descriptor);
  }

  private @Nullable DirectFile directOf(@Nullable LinuxFile given) throws IOException {
    try {
      return pastCache(descriptor(), readOnly);
    } catch (IOException e) {
      LinuxFile opened = descriptor;
      if (given == null && opened != null) { // opened here; else its owner closes it
        closeAfter(e, opened);
      }
      throw e;
    }
  }

  private @Nullable DirectFile pastCache(LinuxFile open, boolean reading) throws IOException {
    return DirectFile.open(open, reading, name()).orElse(null);
  }

  /// Opens a file or device that is there, and locks it as `options` say.
  static OpenFile existing(Path path, OpenOptions options) throws IOException {
    FileIdentity identity = FileIdentity.of(path);
    if (!options.lock()) {
      // Without locks nothing but the JDK is needed to begin with.
      FileChannel channel = FileChannel.open(path, channelAccess(options.readOnly()));
      return opened(path, options, identity, channel, null);
    }
    return locked(path, options, LinuxFile.open(path, access(options.readOnly())));
  }

  /// Makes an empty file that must not exist, opens it read-write and locks it. It is gone again
  /// when that fails.
  static OpenFile created(Path path) throws IOException {
    LinuxFile made = LinuxFile.open(path, LinuxFile.Access.CREATE_NEW);
    try {
      return locked(path, OpenOptions.readWrite(), made);
    } catch (IOException | RuntimeException e) {
      Files.deleteIfExists(path);
      throw e;
    }
  }

  private static OpenFile locked(Path path, OpenOptions options, LinuxFile descriptor)
      throws IOException {
    try {
      ImageLocks.take(path, descriptor, options.readOnly());
      FileIdentity identity = FileIdentity.of(descriptor.reopenPath());
      FileChannel channel =
          FileChannel.open(descriptor.reopenPath(), channelAccess(options.readOnly()));
      return opened(path, options, identity, channel, descriptor);
    } catch (IOException | RuntimeException e) {
      closeAfter(e, descriptor);
      throw e;
    }
  }

  private static OpenFile opened(
      Path path,
      OpenOptions options,
      FileIdentity identity,
      FileChannel channel,
      @Nullable LinuxFile descriptor)
      throws IOException {
    try {
      return new OpenFile(path, options, identity, channel, descriptor);
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

  Path path() {
    return path;
  }

  String name() {
    return path.toString();
  }

  /// Whether it is a block device.
  boolean device() {
    return identity.device();
  }

  /// For bytes, with the access that was asked for at the opening.
  FileChannel channel() {
    return channel;
  }

  /// The way past the page cache, with the same access; null: none.
  @Nullable DirectFile direct() {
    return direct;
  }

  /// Bytes in it when it was opened.
  long openedSize() {
    return openedSize;
  }

  /// The descriptor for what a channel cannot do.
  LinuxFile descriptor() throws IOException {
    LinuxFile open = descriptor;
    return open == null ? openDescriptor() : open;
  }

  private synchronized LinuxFile openDescriptor() throws IOException {
    if (descriptor == null) {
      if (!channel.isOpen()) {
        throw new ClosedChannelException();
      }
      LinuxFile candidate = LinuxFile.open(path, access(readOnly));
      try {
        requireSame(candidate.status());
      } catch (IOException e) {
        closeAfter(e, candidate);
        throw e;
      }
      descriptor = candidate;
    }
    return Objects.requireNonNull(descriptor);
  }

  private void requireSame(FileStatus status) throws TransportException {
    if (status.device() != identity.container() || status.inode() != identity.inode()) {
      throw new TransportException(
          name() + ": another file has taken this name since it was opened");
    }
  }

  Optional<FileTrace> trace() throws IOException {
    return FileTrace.of(path, descriptor());
  }

  /// Adds a writer's locks to a reader's. When it throws, the reader's are left.
  ///
  /// @throws UnsupportedImageException when it was opened without locks
  /// @throws ImageBusyException when another holder's lock excludes writing
  void takeWriterLocks() throws IOException {
    if (!locks) {
      throw new UnsupportedImageException(
          name() + ": opened without locks, cannot be reopened for writing");
    }
    ImageLocks.upgrade(path, descriptor());
  }

  /// Gives back the locks that a reader does not need.
  void leaveWriterLocks() throws IOException {
    if (locks) {
      ImageLocks.downgrade(path, descriptor());
    }
  }

  /// What is to write, opened now; the caller closes it. Null when that is the channel and the
  /// descriptor themselves: the file was opened for writing.
  @Nullable FileWriting writing() throws IOException {
    return readOnly
        ? FileWriting.to(descriptor(), open -> direct == null ? null : pastCache(open, false))
        : null;
  }

  /// The channel first: nothing is written once the locks are gone.
  @Override
  public void close() throws IOException {
    try {
      channel.close();
    } finally {
      closeDescriptor();
    }
  }

  /// None is opened later: that finds the channel closed.
  private synchronized void closeDescriptor() throws IOException {
    try (LinuxFile _ = descriptor) {
      if (direct != null) {
        direct.close();
      }
    }
  }
}
