// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.locks.ReentrantReadWriteLock;

/// A file opened by a descriptor of our own, for the calls that `FileChannel` does not have.
///
/// Bytes are read and written elsewhere: [#reopenPath] names this very file for a `FileChannel`,
/// whatever became of its name. Any thread may call; [#close] waits for calls that run, so that a
/// descriptor is never used after its number went to another file.
public final class LinuxFile implements AutoCloseable {
  /// How to open.
  public enum Access {
    READ,
    READ_WRITE,
    /// Past the page cache: offsets, lengths and addresses are aligned. EINVAL where the file
    /// system has no such way.
    READ_DIRECT,
    READ_WRITE_DIRECT,
    /// Read and write, a new file with mode 0600 less the umask; fails with EEXIST where one is.
    CREATE_NEW
  }

  private static final int O_RDONLY = 0;
  private static final int O_RDWR = 2;
  private static final int O_CREAT = 0100;
  private static final int O_EXCL = 0200;
  private static final int O_CLOEXEC = 02000000;
  private static final int O_DIRECT =
      System.getProperty("os.arch").equals("aarch64") ? 0200000 : 040000;

  // Spec: Linux include/uapi/linux/falloc.h
  private static final int FALLOC_FL_KEEP_SIZE = 0x01;
  private static final int FALLOC_FL_PUNCH_HOLE = 0x02;
  private static final int FALLOC_FL_ZERO_RANGE = 0x10;

  // Spec: Linux include/uapi/linux/fs.h
  private static final int SYNC_FILE_RANGE_WRITE = 2;

  private static final int SEEK_DATA = 3;
  private static final int SEEK_HOLE = 4;

  // Spec: Linux include/uapi/asm-generic/fcntl.h
  private static final int F_OFD_GETLK = 36;
  private static final int F_OFD_SETLK = 37;
  private static final short F_RDLCK = 0;
  private static final short F_WRLCK = 1;
  private static final short F_UNLCK = 2;

  /// `struct flock` of 64-bit Linux.
  private static final class Flock {
    static final long TYPE = 0; // s16
    static final long WHENCE = 2; // s16, 0: SEEK_SET
    static final long START = 8; // s64
    static final long LENGTH = 16; // s64
    static final long END = 32; // its pid, at 24, stays 0 for OFD locks
  }

  private final String name;
  private final int descriptor;
  private final ReentrantReadWriteLock closing = new ReentrantReadWriteLock();
  private boolean closed; // guarded by closing

  private LinuxFile(String name, int descriptor) {
    this.name = name;
    this.descriptor = descriptor;
  }

  /// Does ahead what the first system call of the process would do, and takes as long: tens of
  /// milliseconds. For a thread of its own while something else starts.
  public static void bindSystemCalls() {
    Calls.bind();
  }

  /// Opens a path, following symbolic links.
  public static LinuxFile open(Path path, Access access) throws LinuxException {
    int flags =
        switch (access) {
          case READ -> O_RDONLY;
          case READ_WRITE -> O_RDWR;
          case READ_DIRECT -> O_RDONLY | O_DIRECT;
          case READ_WRITE_DIRECT -> O_RDWR | O_DIRECT;
          case CREATE_NEW -> O_RDWR | O_CREAT | O_EXCL;
        };
    int descriptor = Calls.open(path.toString(), flags | O_CLOEXEC, 0600);
    if (descriptor < 0) {
      throw new LinuxException(path.toString(), "open", -descriptor);
    }
    return new LinuxFile(path.toString(), descriptor);
  }

  /// A path that leads to this very file while this is open, though it may have been renamed or
  /// removed. Opening it makes another descriptor, with the rights that the caller asks for and
  /// has.
  public Path reopenPath() {
    return Path.of("/proc/self/fd/" + descriptor);
  }

  private interface Call<T> {
    T on(int openDescriptor) throws LinuxException;
  }

  private <T> T whileOpen(String call, Call<T> body) throws LinuxException {
    closing.readLock().lock();
    try {
      if (closed) {
        throw new LinuxException(name, call, Errno.EBADF);
      }
      return body.on(descriptor);
    } finally {
      closing.readLock().unlock();
    }
  }

  private long require(String call, long result) throws LinuxException {
    if (result < 0) {
      throw new LinuxException(name, call, (int) -result);
    }
    return result;
  }

  /// For requests in a [Ring]: whoever puts one keeps this open until it has come back.
  int number() {
    return descriptor;
  }

  /// Reads from position to limit of a direct buffer and moves the position; returns bytes, 0 at
  /// the end of the file.
  public int read(ByteBuffer into, long offset) throws LinuxException {
    long address = Calls.address(into);
    int length = into.remaining();
    int count =
        (int)
            whileOpen("read", fd -> require("read", Calls.pread(fd, address, length, offset)))
                .longValue();
    into.position(into.position() + count);
    return count;
  }

  /// Writes from position to limit of a direct buffer, as far as it goes, and moves the position.
  public int write(ByteBuffer from, long offset) throws LinuxException {
    long address = Calls.address(from);
    int length = from.remaining();
    int count =
        (int)
            whileOpen("write", fd -> require("write", Calls.pwrite(fd, address, length, offset)))
                .longValue();
    from.position(from.position() + count);
    return count;
  }

  /// Maps a range of the file for system calls that take bytes from memory. It may pass the file's
  /// end: calls that come there fail with EFAULT.
  ///
  /// @param offset a multiple of the page size
  public FileMapping map(long offset, long length) throws LinuxException {
    long address = whileOpen("mmap", fd -> require("mmap", Calls.mmapRead(length, fd, offset)));
    return new FileMapping(address, length);
  }

  /// What offsets, lengths and addresses of direct requests must be multiples of: a power of two.
  public int directAlignment() throws LinuxException {
    return whileOpen("statx", fd -> FileStatus.directAlignment(name, fd));
  }

  /// Gives a range's space back; it then reads as zeroes. The size stays.
  public void punchHole(long offset, long length) throws LinuxException {
    fallocate("punch hole", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /// Makes a range read as zeroes and keeps or takes space for it. The size stays.
  public void zeroRange(long offset, long length) throws LinuxException {
    fallocate("zero range", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /// Takes space for a range; bytes stay. The size stays.
  public void allocate(long offset, long length) throws LinuxException {
    fallocate("allocate", FALLOC_FL_KEEP_SIZE, offset, length);
  }

  private void fallocate(String what, int mode, long offset, long length) throws LinuxException {
    if (length > 0) {
      whileOpen(what, fd -> require(what, Calls.fallocate(fd, mode, offset, length)));
    }
  }

  /// Sets the size; a file that grows gets a hole.
  public void truncate(long size) throws LinuxException {
    whileOpen("truncate", fd -> require("truncate", Calls.ftruncate(fd, size)));
  }

  /// The first byte at or after `offset` that is not in a hole; empty when none follows.
  public OptionalLong seekData(long offset) throws LinuxException {
    return seek("seek data", offset, SEEK_DATA);
  }

  /// The first byte at or after `offset` that is in a hole, the file's end being one; empty when
  /// `offset` is at or past the end.
  public OptionalLong seekHole(long offset) throws LinuxException {
    return seek("seek hole", offset, SEEK_HOLE);
  }

  private OptionalLong seek(String what, long offset, int whence) throws LinuxException {
    long result = whileOpen(what, fd -> Calls.lseek(fd, offset, whence));
    return result == -Errno.ENXIO ? OptionalLong.empty() : OptionalLong.of(require(what, result));
  }

  /// Returns when the file's bytes, and what is needed to find them, are on stable storage.
  public void syncData() throws LinuxException {
    whileOpen("fdatasync", fd -> require("fdatasync", Calls.fdatasync(fd)));
  }

  /// Begins to write out the pages that changed, without waiting for any to be written, and without
  /// metadata: what it means for durability is nothing.
  public void startWriteBack() throws LinuxException {
    whileOpen(
        "sync_file_range",
        fd -> require("sync_file_range", Calls.syncFileRange(fd, 0, 0, SYNC_FILE_RANGE_WRITE)));
  }

  /// Takes a shared lock on a range for this open file description (OFD). It ends with [#unlock],
  /// [#close] or the process, and not when another descriptor of the file is closed.
  ///
  /// @return false when someone holds an exclusive lock on a part of it
  public boolean lockShared(long offset, long length) throws LinuxException {
    return setLock("lock", F_RDLCK, offset, length);
  }

  public void unlock(long offset, long length) throws LinuxException {
    setLock("unlock", F_UNLCK, offset, length);
  }

  private boolean setLock(String what, short type, long offset, long length) throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment flock = flock(arena, type, offset, length);
      int result = whileOpen(what, fd -> Calls.fcntl(fd, F_OFD_SETLK, flock));
      if (result == -Errno.EAGAIN || result == -Errno.EACCES) {
        return false;
      }
      require(what, result);
      return true;
    }
  }

  /// Whether another open file description, of this process or another, holds any lock on a part of
  /// the range.
  public boolean lockedElsewhere(long offset, long length) throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment flock = flock(arena, F_WRLCK, offset, length);
      require("get lock", whileOpen("get lock", fd -> Calls.fcntl(fd, F_OFD_GETLK, flock)));
      return flock.get(ValueLayout.JAVA_SHORT, Flock.TYPE) != F_UNLCK;
    }
  }

  private static MemorySegment flock(Arena arena, short type, long offset, long length) {
    MemorySegment flock = arena.allocate(Flock.END, Long.BYTES); // zero-filled
    flock.set(ValueLayout.JAVA_SHORT, Flock.TYPE, type);
    flock.set(ValueLayout.JAVA_SHORT, Flock.WHENCE, (short) 0);
    flock.set(ValueLayout.JAVA_LONG, Flock.START, offset);
    flock.set(ValueLayout.JAVA_LONG, Flock.LENGTH, length);
    return flock;
  }

  /// What the file system says about the file now.
  public FileStatus status() throws LinuxException {
    return whileOpen("statx", fd -> FileStatus.of(name, fd));
  }

  /// What the file system finds this file again by; empty where it offers nothing of the kind.
  public Optional<FileHandle> handle() throws LinuxException {
    return whileOpen("name_to_handle_at", fd -> FileHandle.of(name, fd));
  }

  /// Whether the file of this handle exists, on the file system that this file or folder is on.
  /// [FileHandle.Fate#UNKNOWN] where this process may not ask.
  public FileHandle.Fate fateOf(FileHandle handle) throws LinuxException {
    return whileOpen("open_by_handle_at", fd -> FileHandle.fate(fd, handle));
  }

  @Override
  public void close() throws LinuxException {
    closing.writeLock().lock();
    try {
      if (!closed) {
        closed = true;
        require("close", Calls.close(descriptor));
      }
    } finally {
      closing.writeLock().unlock();
    }
  }

  @Override
  public String toString() {
    return name + " (descriptor " + descriptor + ")";
  }
}
