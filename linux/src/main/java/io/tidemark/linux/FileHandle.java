// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Optional;

/// What a file system finds a file again by, whatever its name: an inode number together with what
/// tells its users one after the other apart. It stays after the file is gone, and then leads
/// nowhere.
///
/// Spec: name_to_handle_at(2).
///
/// @param bytes at most [#MAX_BYTES]; never changed
@SuppressWarnings("ArrayRecordComponent") // never compared
public record FileHandle(int type, byte[] bytes) {
  /// MAX_HANDLE_SZ.
  public static final int MAX_BYTES = 128;

  /// What became of a file.
  public enum Fate {
    EXISTS,
    /// For good: nothing makes it again.
    GONE,
    UNKNOWN
  }

  /// Offsets in `struct file_handle`.
  private static final class At {
    static final long LENGTH = 0; // u32
    static final long TYPE = 4; // s32
    static final long BYTES = 8;
    static final long END = BYTES + MAX_BYTES;
  }

  private static final int O_PATH = 010000000;
  private static final int O_CLOEXEC = 02000000;

  public FileHandle {
    if (bytes.length > MAX_BYTES) {
      throw new IllegalArgumentException("a handle of " + bytes.length + " bytes");
    }
  }

  static Optional<FileHandle> of(String name, int descriptor) throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment raw = arena.allocate(At.END, Long.BYTES);
      raw.set(ValueLayout.JAVA_INT, At.LENGTH, MAX_BYTES);
      MemorySegment mount = arena.allocate(ValueLayout.JAVA_INT);
      int result = Calls.nameToHandle(descriptor, raw, mount, FileStatus.AT_EMPTY_PATH);
      if (result == -Errno.EOPNOTSUPP || result == -Errno.EOVERFLOW || result == -Errno.ENOSYS) {
        return Optional.empty();
      }
      if (result < 0) {
        throw new LinuxException(name, "name_to_handle_at", -result);
      }
      int length = raw.get(ValueLayout.JAVA_INT, At.LENGTH);
      if (length < 1 || length > MAX_BYTES) {
        return Optional.empty();
      }
      return Optional.of(
          new FileHandle(
              raw.get(ValueLayout.JAVA_INT, At.TYPE),
              raw.asSlice(At.BYTES, length).toArray(ValueLayout.JAVA_BYTE)));
    }
  }

  static Fate fate(int onSameFileSystem, FileHandle handle) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment raw = arena.allocate(At.END, Long.BYTES);
      raw.set(ValueLayout.JAVA_INT, At.LENGTH, handle.bytes().length);
      raw.set(ValueLayout.JAVA_INT, At.TYPE, handle.type());
      MemorySegment.copy(
          handle.bytes(), 0, raw, ValueLayout.JAVA_BYTE, At.BYTES, handle.bytes().length);
      int found = Calls.openByHandle(onSameFileSystem, raw, O_PATH | O_CLOEXEC);
      if (found >= 0) {
        Calls.close(found);
        return Fate.EXISTS;
      }
      return found == -Errno.ESTALE ? Fate.GONE : Fate.UNKNOWN;
    }
  }
}
