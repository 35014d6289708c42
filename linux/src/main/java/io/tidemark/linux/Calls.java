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
import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.List;

/// The C library's functions, bound when first called: binding one costs milliseconds, and most
/// runs of the command need few or none.
///
/// Each method returns what the call does, or the negated error number; EINTR is tried again. The
/// layouts are those of 64-bit Linux, the only one with these calls that the JDK runs on.
final class Calls {
  private static final StructLayout STATE = Linker.Option.captureStateLayout();
  private static final VarHandle ERRNO =
      STATE.varHandle(MemoryLayout.PathElement.groupElement("errno"));

  private Calls() {}

  private static final class Open {
    static final MethodHandle HANDLE =
        bindVariadic("open", 2, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT);
  }

  private static final class Close {
    static final MethodHandle HANDLE = bind("close", JAVA_INT, JAVA_INT);
  }

  private static final class Fallocate {
    static final MethodHandle HANDLE =
        bind("fallocate", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG);
  }

  private static final class Ftruncate {
    static final MethodHandle HANDLE = bind("ftruncate", JAVA_INT, JAVA_INT, JAVA_LONG);
  }

  private static final class Lseek {
    static final MethodHandle HANDLE = bind("lseek", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
  }

  private static final class Fdatasync {
    static final MethodHandle HANDLE = bind("fdatasync", JAVA_INT, JAVA_INT);
  }

  private static final class Fcntl {
    static final MethodHandle HANDLE =
        bindVariadic("fcntl", 2, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS);
  }

  private static final class Renameat2 {
    static final MethodHandle HANDLE =
        bind("renameat2", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, ADDRESS, JAVA_INT);
  }

  private static final class Getsockopt {
    static final MethodHandle HANDLE =
        bind("getsockopt", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, ADDRESS);
  }

  private static final class Statx {
    static final MethodHandle HANDLE =
        bind("statx", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, ADDRESS);
  }

  private static MethodHandle bind(String name, MemoryLayout result, MemoryLayout... parameters) {
    return bind(name, List.of(), result, parameters);
  }

  /// @param fixed parameters before the variable ones
  private static MethodHandle bindVariadic(
      String name, int fixed, MemoryLayout result, MemoryLayout... parameters) {
    return bind(name, List.of(Linker.Option.firstVariadicArg(fixed)), result, parameters);
  }

  private static MethodHandle bind(
      String name, List<Linker.Option> more, MemoryLayout result, MemoryLayout... parameters) {
    var options = new ArrayList<>(more);
    options.add(Linker.Option.captureCallState("errno"));
    Linker linker = Linker.nativeLinker();
    return linker.downcallHandle(
        linker.defaultLookup().findOrThrow(name),
        FunctionDescriptor.of(result, parameters),
        options.toArray(Linker.Option[]::new));
  }

  private static int errno(MemorySegment state) {
    return (int) ERRNO.get(state, 0L);
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
        int result = (int) Open.HANDLE.invokeExact(state, name, flags, mode);
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
      int result = (int) Close.HANDLE.invokeExact(state, descriptor);
      return result == 0 || errno(state) == Errno.EINTR ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fallocate(int descriptor, int mode, long offset, long length) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) Fallocate.HANDLE.invokeExact(state, descriptor, mode, offset, length);
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
        int result = (int) Ftruncate.HANDLE.invokeExact(state, descriptor, size);
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
      long result = (long) Lseek.HANDLE.invokeExact(state, descriptor, offset, whence);
      return result >= 0 ? result : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fdatasync(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      int result = (int) Fdatasync.HANDLE.invokeExact(state, descriptor);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int fcntl(int descriptor, int command, MemorySegment argument) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      while (true) {
        int result = (int) Fcntl.HANDLE.invokeExact(state, descriptor, command, argument);
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
          (int) Renameat2.HANDLE.invokeExact(state, fromFolder, source, toFolder, target, flags);
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
          (int) Getsockopt.HANDLE.invokeExact(state, descriptor, level, option, value, length);
      return result == 0 ? 0 : -errno(state);
    } catch (Throwable t) {
      throw impossible(t);
    }
  }

  static int statx(int folder, String path, int flags, int mask, MemorySegment into) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment state = arena.allocate(STATE);
      MemorySegment name = arena.allocateFrom(path);
      int result = (int) Statx.HANDLE.invokeExact(state, folder, name, flags, mask, into);
      return result == 0 ? 0 : -errno(state);
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
