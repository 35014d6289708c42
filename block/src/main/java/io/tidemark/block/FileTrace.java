// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.linux.FileHandle;
import io.tidemark.linux.FileStatus;
import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Optional;
import java.util.OptionalLong;

/// What tells a file from every other one, those that get its inode number later included, and by
/// which one finds out whether it still exists, whatever its name is by then.
///
/// Only of a file system that keeps when a file was made. The file's own handle says whether it
/// exists; it is asked for through the folder that the file was in, as long as that is the same
/// folder: else the file system may not be mounted, or another one in its place.
public final class FileTrace {
  private final long device;
  private final long inode;
  private final long birthNanos;
  private final Optional<Way> way;

  /// @param folder absolute
  private record Way(Path folder, long folderInode, long folderBirthNanos, FileHandle handle) {}

  private FileTrace(long device, long inode, long birthNanos, Optional<Way> way) {
    this.device = device;
    this.inode = inode;
    this.birthNanos = birthNanos;
    this.way = way;
  }

  /// Of an open file; empty where births are not kept.
  static Optional<FileTrace> of(Path path, LinuxFile file) throws IOException {
    FileStatus status = file.status();
    if (status.birthNanos().isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        new FileTrace(
            status.device(), status.inode(), status.birthNanos().getAsLong(), way(path, file)));
  }

  private static Optional<Way> way(Path path, LinuxFile file) throws IOException {
    Optional<FileHandle> handle = file.handle();
    Path folder = path.toRealPath().getParent(); // the file may be reached by a link
    if (handle.isEmpty() || folder == null) {
      return Optional.empty();
    }
    try (LinuxFile open = LinuxFile.open(folder, LinuxFile.Access.READ)) {
      FileStatus status = open.status();
      OptionalLong birth = status.birthNanos();
      return birth.isEmpty() || status.device() != file.status().device()
          ? Optional.empty()
          : Optional.of(new Way(folder, status.inode(), birth.getAsLong(), handle.get()));
    }
  }

  public long device() {
    return device;
  }

  public long inode() {
    return inode;
  }

  /// When it was made, since the epoch.
  public long birthNanos() {
    return birthNanos;
  }

  /// Whether the file is certainly gone, for good. Where this process may not ask (it takes
  /// CAP_DAC_READ_SEARCH), or the folder is not there, nothing is certain. May take as long as the
  /// storage does.
  public boolean isGone() {
    if (way.isEmpty()) {
      return false;
    }
    Way asked = way.get();
    try (LinuxFile folder = LinuxFile.open(asked.folder(), LinuxFile.Access.READ)) {
      FileStatus status = folder.status();
      return status.device() == device
          && status.inode() == asked.folderInode()
          && status.birthNanos().equals(OptionalLong.of(asked.folderBirthNanos()))
          && folder.fateOf(asked.handle()) == FileHandle.Fate.GONE;
    } catch (IOException _) {
      return false;
    }
  }

  /// Puts what [#decode] needs, beside device, inode and birth: u64 inode and u64 birth of the
  /// folder; u32 type and u32 length of the handle, and its bytes; u32 length of the folder's path,
  /// and the path in UTF-8. Nothing where there is not enough room.
  public void encodeWay(ByteBuffer into) {
    if (way.isEmpty()) {
      return;
    }
    Way told = way.get();
    byte[] path = told.folder().toString().getBytes(UTF_8);
    byte[] handle = told.handle().bytes();
    if (into.remaining() >= 28 + handle.length + path.length) {
      into.putLong(told.folderInode()).putLong(told.folderBirthNanos());
      into.putInt(told.handle().type()).putInt(handle.length).put(handle);
      into.putInt(path.length).put(path);
    }
  }

  /// A trace by what was kept of it. What makes no sense, or was not kept, is a trace by which
  /// nothing is found out.
  public static FileTrace decode(long device, long inode, long birthNanos, ByteBuffer way) {
    return new FileTrace(device, inode, birthNanos, decodeWay(way));
  }

  private static Optional<Way> decodeWay(ByteBuffer raw) {
    try {
      long folderInode = raw.getLong();
      long folderBirth = raw.getLong();
      int type = raw.getInt();
      byte[] handle = bytes(raw, FileHandle.MAX_BYTES);
      Path folder = Path.of(new String(bytes(raw, raw.remaining()), UTF_8));
      return handle.length == 0 || !folder.isAbsolute()
          ? Optional.empty()
          : Optional.of(new Way(folder, folderInode, folderBirth, new FileHandle(type, handle)));
    } catch (BufferUnderflowException | InvalidPathException _) {
      return Optional.empty();
    }
  }

  private static byte[] bytes(ByteBuffer raw, int most) {
    int length = raw.getInt();
    if (length < 0 || length > Math.min(most, raw.remaining())) {
      throw new BufferUnderflowException();
    }
    byte[] bytes = new byte[length];
    raw.get(bytes);
    return bytes;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof FileTrace that
        && device == that.device
        && inode == that.inode
        && birthNanos == that.birthNanos;
  }

  @Override
  public int hashCode() {
    return Objects.hash(device, inode, birthNanos);
  }

  @Override
  public String toString() {
    return "inode " + inode + " of device 0x" + Long.toHexString(device) + ", made " + birthNanos;
  }
}
