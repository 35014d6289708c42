// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.OptionalLong;

/// What the kernel knows about a file.
///
/// @param device the device it lies on, as the kernel and `stat` number it
/// @param inode its number there; both together name the file
/// @param mode type and permissions
/// @param size bytes; 0 for a block device
/// @param allocatedBytes bytes of storage taken
/// @param birthNanos when it was made, since the epoch; empty where the file system does not keep
///   that
public record FileStatus(
    long device, long inode, int mode, long size, long allocatedBytes, OptionalLong birthNanos) {
  /// Offsets in `struct statx`. Spec: Linux include/uapi/linux/stat.h.
  private static final class At {
    static final long MASK = 0; // u32
    static final long MODE = 28; // u16
    static final long INODE = 32; // u64
    static final long SIZE = 40; // u64
    static final long BLOCKS = 48; // u64, of 512 bytes
    static final long BIRTH_SECONDS = 80; // s64
    static final long BIRTH_NANOS = 88; // u32
    static final long DEVICE_MAJOR = 136; // u32
    static final long DEVICE_MINOR = 140; // u32
    static final long DIRECT_MEMORY = 152; // u32
    static final long DIRECT_OFFSET = 156; // u32
    static final long END = 256;
  }

  private static final int AT_FDCWD = -100;
  private static final int AT_SYMLINK_NOFOLLOW = 0x100;
  static final int AT_EMPTY_PATH = 0x1000;
  private static final int STATX_BASIC_STATS = 0x7ff;
  private static final int STATX_BTIME = 0x800;
  private static final int STATX_DIOALIGN = 0x2000;

  /// What no storage that is known wants more of: taken where the kernel does not tell.
  private static final int SAFE_ALIGNMENT = 4096;

  /// Of what the path leads to; a symbolic link at its end is looked at itself.
  public static FileStatus of(Path path) throws LinuxException {
    return of(path.toString(), AT_FDCWD, path.toString(), AT_SYMLINK_NOFOLLOW);
  }

  static FileStatus of(String name, int descriptor) throws LinuxException {
    return of(name, descriptor, "", AT_EMPTY_PATH);
  }

  private static FileStatus of(String name, int folder, String path, int flags)
      throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment at = arena.allocate(At.END, Long.BYTES);
      int result = Calls.statx(folder, path, flags, STATX_BASIC_STATS | STATX_BTIME, at);
      if (result < 0) {
        throw new LinuxException(name, "statx", -result);
      }
      return new FileStatus(
          device(
              at.get(ValueLayout.JAVA_INT, At.DEVICE_MAJOR),
              at.get(ValueLayout.JAVA_INT, At.DEVICE_MINOR)),
          at.get(ValueLayout.JAVA_LONG, At.INODE),
          Short.toUnsignedInt(at.get(ValueLayout.JAVA_SHORT, At.MODE)),
          at.get(ValueLayout.JAVA_LONG, At.SIZE),
          Math.multiplyExact(at.get(ValueLayout.JAVA_LONG, At.BLOCKS), 512L),
          birth(at));
    }
  }

  private static OptionalLong birth(MemorySegment at) {
    if ((at.get(ValueLayout.JAVA_INT, At.MASK) & STATX_BTIME) == 0) {
      return OptionalLong.empty();
    }
    long seconds = at.get(ValueLayout.JAVA_LONG, At.BIRTH_SECONDS);
    return OptionalLong.of(
        seconds * 1_000_000_000 + at.get(ValueLayout.JAVA_INT, At.BIRTH_NANOS)); // until 2262
  }

  static int directAlignment(String name, int descriptor) throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment at = arena.allocate(At.END, Long.BYTES);
      int result = Calls.statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, at);
      if (result < 0) {
        throw new LinuxException(name, "statx", -result);
      }
      int most =
          Math.max(
              at.get(ValueLayout.JAVA_INT, At.DIRECT_MEMORY),
              at.get(ValueLayout.JAVA_INT, At.DIRECT_OFFSET));
      boolean told = most >= 512 && most <= SAFE_ALIGNMENT && Integer.bitCount(most) == 1;
      return told ? most : SAFE_ALIGNMENT;
    }
  }

  /// `makedev` of the C library, which is what `Files.getAttribute(path, "unix:dev")` holds.
  static long device(int major, int minor) {
    long high = Integer.toUnsignedLong(major);
    long low = Integer.toUnsignedLong(minor);
    return (high & 0xfff) << 8 | (high & ~0xfffL) << 32 | (low & 0xff) | (low & ~0xffL) << 12;
  }
}
