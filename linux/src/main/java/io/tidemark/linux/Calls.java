// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.AddressLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;

/// The C library's functions, bound when the first is called: that costs tens of milliseconds, and
/// many runs of the command need none.
///
/// Each method returns what the call does, or the negated error number; EINTR is tried again. The
/// layouts are those of 64-bit Linux, the only one with these calls that the JDK runs on.
final class Calls {
  private static final StructLayout STATE = Linker.Option.captureStateLayout();
  private static final long ERRNO =
      STATE.byteOffset(MemoryLayout.PathElement.groupElement("errno"));
  private static final Linker LINKER = Linker.nativeLinker();

  /// Five words to a word, for every function here. Calls of one shape share one binding, and the
  /// binding is what costs. Safe because the calling conventions of x86-64 and AArch64 Linux hand
  /// integers and pointers over alike, one to a register, to variadic functions too; a function
  /// looks at the registers and bits that it takes and no others. Of an `int` result the upper half
  /// means nothing.
  private static final MethodHandle CALL =
      LINKER.downcallHandle(
          FunctionDescriptor.of(JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
          Linker.Option.captureCallState("errno"));

  private static final MemorySegment PREAD = find("pread64");
  private static final MemorySegment PWRITE = find("pwrite64");
  private static final MemorySegment SEND = find("send");
  private static final MemorySegment RECV = find("recv");
  private static final MemorySegment MUNMAP = find("munmap");
  private static final MemorySegment MINCORE = find("mincore");
  private static final MemorySegment OPEN = find("open");
  private static final MemorySegment CLOSE = find("close");
  private static final MemorySegment FALLOCATE = find("fallocate");
  private static final MemorySegment FTRUNCATE = find("ftruncate");
  private static final MemorySegment LSEEK = find("lseek");
  private static final MemorySegment FDATASYNC = find("fdatasync");
  private static final MemorySegment SYNC_FILE_RANGE = find("sync_file_range");
  private static final MemorySegment FCNTL = find("fcntl");
  private static final MemorySegment RENAMEAT2 = find("renameat2");
  private static final MemorySegment GETSOCKOPT = find("getsockopt");
  private static final MemorySegment STATX = find("statx");
  private static final MemorySegment NAME_TO_HANDLE_AT = find("name_to_handle_at");
  private static final MemorySegment OPEN_BY_HANDLE_AT = find("open_by_handle_at");

  /// Of [#resident]. Where pages are larger, addresses are refused, and nothing counts as resident.
  static final int PAGE = 4096;

  private Calls() {}

  private static MemorySegment find(String name) {
    return LINKER.defaultLookup().findOrThrow(name);
  }

  /// Binds, and makes a call that does nothing: the first one links what the binding left open.
  static void bind() {
    fcntl(-1, 0, MemorySegment.NULL);
  }

  private static long call(
      MemorySegment function, MemorySegment state, long a, long b, long c, long d, long e)
      throws Throwable {
    return (long) CALL.invokeExact(function, state, a, b, c, d, e);
  }

  private static int errno(MemorySegment state) {
    return state.get(JAVA_INT, ERRNO);
  }

  /// Our own bindings throw nothing checked.
  private static AssertionError impossible(Throwable thrown) {
    return new AssertionError("system call binding", thrown);
  }

  static int open(String path, int flags, int mode) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      MemorySegment name = arena.allocateFrom(path);
      while (true) {
        int result = (int) call(OPEN, state, name.address(), flags, mode, 0, 0);
        if (result >= 0 || errno(state) != Errno.EINTR) {
          return result >= 0 ? result : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  /// Not tried again after EINTR: Linux has freed the descriptor by then.
  static int close(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result = (int) call(CLOSE, state, descriptor, 0, 0, 0, 0);
      return result == 0 || errno(state) == Errno.EINTR ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fallocate(int descriptor, int mode, long offset, long length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) call(FALLOCATE, state, descriptor, mode, offset, length, 0);
        if (result == 0 || errno(state) != Errno.EINTR) {
          return result == 0 ? 0 : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int ftruncate(int descriptor, long size) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) call(FTRUNCATE, state, descriptor, size, 0, 0, 0);
        if (result == 0 || errno(state) != Errno.EINTR) {
          return result == 0 ? 0 : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static long lseek(int descriptor, long offset, int whence) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      long result = call(LSEEK, state, descriptor, offset, whence, 0, 0);
      return result >= 0 ? result : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fdatasync(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result = (int) call(FDATASYNC, state, descriptor, 0, 0, 0, 0);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int syncFileRange(int descriptor, long offset, long length, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) call(SYNC_FILE_RANGE, state, descriptor, offset, length, flags, 0);
        if (result == 0 || errno(state) != Errno.EINTR) {
          return result == 0 ? 0 : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fcntl(int descriptor, int command, MemorySegment argument) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) call(FCNTL, state, descriptor, command, argument.address(), 0, 0);
        if (result >= 0 || errno(state) != Errno.EINTR) {
          return result >= 0 ? result : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int renameat2(int fromFolder, String from, int toFolder, String to, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      MemorySegment source = arena.allocateFrom(from);
      MemorySegment target = arena.allocateFrom(to);
      int result =
          (int)
              call(
                  RENAMEAT2,
                  state,
                  fromFolder,
                  source.address(),
                  toFolder,
                  target.address(),
                  flags);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int getsockopt(
      int descriptor, int level, int option, MemorySegment value, MemorySegment length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result =
          (int)
              call(GETSOCKOPT, state, descriptor, level, option, value.address(), length.address());
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int statx(int folder, String path, int flags, int mask, MemorySegment into) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      MemorySegment name = arena.allocateFrom(path);
      int result = (int) call(STATX, state, folder, name.address(), flags, mask, into.address());
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  /// Of the open file itself: flags must hold AT_EMPTY_PATH.
  static int nameToHandle(int descriptor, MemorySegment handle, MemorySegment mount, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      MemorySegment empty = arena.allocateFrom("");
      int result =
          (int)
              call(
                  NAME_TO_HANDLE_AT,
                  state,
                  descriptor,
                  empty.address(),
                  handle.address(),
                  mount.address(),
                  flags);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int openByHandle(int mount, MemorySegment handle, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result = (int) call(OPEN_BY_HANDLE_AT, state, mount, handle.address(), flags, 0, 0);
      return result >= 0 ? result : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  /// What only rings need, bound when the first is made: seven words to a word.
  private static final class Seven {
    static final MethodHandle CALL =
        LINKER.downcallHandle(
            FunctionDescriptor.of(
                JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG,
                JAVA_LONG),
            Linker.Option.captureCallState("errno"));
    static final MemorySegment SYSCALL = find("syscall");
    static final MemorySegment MMAP = find("mmap");

    static final int PROT_READ = 1;
    static final int MAP_SHARED = 0x01;

    // Spec: Linux include/uapi/asm-generic/unistd.h; the same on x86-64 and AArch64.
    static final int IO_URING_SETUP = 425;
    static final int IO_URING_ENTER = 426;

    static final int PROT_READ_WRITE = 1 | 2;
    static final int MAP_SHARED_POPULATE = 0x01 | 0x8000;

    private Seven() {}

    static long call(
        MemorySegment function,
        MemorySegment state,
        long a,
        long b,
        long c,
        long d,
        long e,
        long f,
        long g)
        throws Throwable {
      return (long) CALL.invokeExact(function, state, a, b, c, d, e, f, g);
    }
  }

  /// Where the bytes from a direct buffer's position on lie.
  static long address(ByteBuffer bytes) {
    return MemorySegment.ofBuffer(bytes).address();
  }

  static int ioUringSetup(int entries, MemorySegment parameters) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result =
          (int)
              Seven.call(
                  Seven.SYSCALL,
                  state,
                  Seven.IO_URING_SETUP,
                  entries,
                  parameters.address(),
                  0,
                  0,
                  0,
                  0);
      return result >= 0 ? result : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int ioUringEnter(int ring, int submit, int wait, int flags) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result =
          (int)
              Seven.call(
                  Seven.SYSCALL, state, Seven.IO_URING_ENTER, ring, submit, wait, flags, 0, 0);
      return result >= 0 ? result : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  /// Returns the address, which is positive, or a negated error number.
  static long mmapShared(long length, int descriptor, long offset) {
    return mmap(length, Seven.PROT_READ_WRITE, Seven.MAP_SHARED_POPULATE, descriptor, offset);
  }

  private static long mmap(long length, int protection, int flags, int descriptor, long offset) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      long result =
          Seven.call(Seven.MMAP, state, 0, length, protection, flags, descriptor, offset, 0);
      return result == -1 ? -errno(state) : result;
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  /// As [#mmapShared], to be read only; pages are brought in as they are looked at.
  static long mmapRead(long length, int descriptor, long offset) {
    return mmap(length, Seven.PROT_READ, Seven.MAP_SHARED, descriptor, offset);
  }

  /// Whether each of the pages from a page's address on is in memory. Of a file that is another's
  /// and may not be written, the kernel says so of every page.
  static boolean resident(long address, long length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int pages = (int) ((length + PAGE - 1) / PAGE);
      MemorySegment found = arena.allocate(pages);
      if ((int) call(MINCORE, state, address, length, found.address(), 0, 0) != 0) {
        return false;
      }
      for (int i = 0; i < pages; i++) {
        if ((found.get(JAVA_BYTE, i) & 1) == 0) {
          return false;
        }
      }
      return true;
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int munmap(long address, long length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result = (int) call(MUNMAP, state, address, length, 0, 0, 0);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static long pread(int descriptor, long address, long length, long offset) {
    return transfer(PREAD, descriptor, address, length, offset);
  }

  static long pwrite(int descriptor, long address, long length, long offset) {
    return transfer(PWRITE, descriptor, address, length, offset);
  }

  static long recv(int descriptor, long address, long length, int flags) {
    return transfer(RECV, descriptor, address, length, flags);
  }

  static long send(int descriptor, long address, long length, int flags) {
    return transfer(SEND, descriptor, address, length, flags);
  }

  private static long transfer(MemorySegment function, long a, long b, long c, long d) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        long result = call(function, state, a, b, c, d, 0);
        if (result >= 0 || errno(state) != Errno.EINTR) {
          return result >= 0 ? result : -errno(state);
        }
      }
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static String strerror(int errno) {
    Linker linker = Linker.nativeLinker();
    AddressLayout text = ADDRESS.withTargetLayout(MemoryLayout.sequenceLayout(256, JAVA_BYTE));
    MethodHandle handle =
        linker.downcallHandle(
            linker.defaultLookup().findOrThrow("strerror"), FunctionDescriptor.of(text, JAVA_INT));
    try {
      MemorySegment result = (MemorySegment) handle.invokeExact(errno);
      return result.getString(0);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }
}
