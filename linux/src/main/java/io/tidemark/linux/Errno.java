// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// Error numbers of Linux on x86-64 and AArch64, as far as someone asks for them.
///
/// Spec: Linux `include/uapi/asm-generic/errno-base.h`, `errno.h`.
public final class Errno {
  public static final int EPERM = 1;
  public static final int ENOENT = 2;
  public static final int EINTR = 4;
  public static final int EIO = 5;
  public static final int ENXIO = 6;
  public static final int EBADF = 9;
  public static final int EAGAIN = 11;
  public static final int ENOMEM = 12;
  public static final int EACCES = 13;
  public static final int EBUSY = 16;
  public static final int EEXIST = 17;
  public static final int ENODEV = 19;
  public static final int ENOTDIR = 20;
  public static final int EISDIR = 21;
  public static final int EINVAL = 22;
  public static final int ENFILE = 23;
  public static final int EMFILE = 24;
  public static final int ETXTBSY = 26;
  public static final int EFBIG = 27;
  public static final int ENOSPC = 28;
  public static final int ESPIPE = 29;
  public static final int EROFS = 30;
  public static final int ENAMETOOLONG = 36;
  public static final int ENOLCK = 37;
  public static final int ENOSYS = 38;
  public static final int ELOOP = 40;
  public static final int EOVERFLOW = 75;
  public static final int EOPNOTSUPP = 95;
  public static final int ESTALE = 116;
  public static final int EDQUOT = 122;

  private static final Map<Integer, String> TEXTS =
      Map.ofEntries(
          Map.entry(EPERM, "EPERM: operation not permitted"),
          Map.entry(ENOENT, "ENOENT: no such file"),
          Map.entry(EINTR, "EINTR: interrupted"),
          Map.entry(EIO, "EIO: input/output error"),
          Map.entry(ENXIO, "ENXIO: no such device or address"),
          Map.entry(EBADF, "EBADF: bad descriptor"),
          Map.entry(EAGAIN, "EAGAIN: try again"),
          Map.entry(ENOMEM, "ENOMEM: out of memory"),
          Map.entry(EACCES, "EACCES: permission denied"),
          Map.entry(EBUSY, "EBUSY: device or resource busy"),
          Map.entry(EEXIST, "EEXIST: file exists already"),
          Map.entry(ENODEV, "ENODEV: no such device"),
          Map.entry(ENOTDIR, "ENOTDIR: not a folder"),
          Map.entry(EISDIR, "EISDIR: is a folder"),
          Map.entry(EINVAL, "EINVAL: invalid argument"),
          Map.entry(ENFILE, "ENFILE: too many open files in the system"),
          Map.entry(EMFILE, "EMFILE: too many open files; raise the limit of the process"),
          Map.entry(ETXTBSY, "ETXTBSY: file is being run"),
          Map.entry(EFBIG, "EFBIG: file too large"),
          Map.entry(ENOSPC, "ENOSPC: no space left"),
          Map.entry(ESPIPE, "ESPIPE: cannot seek"),
          Map.entry(EROFS, "EROFS: read-only file system"),
          Map.entry(ENAMETOOLONG, "ENAMETOOLONG: name too long"),
          Map.entry(ENOLCK, "ENOLCK: no locks available"),
          Map.entry(ENOSYS, "ENOSYS: unknown to this kernel"),
          Map.entry(ELOOP, "ELOOP: too many symbolic links"),
          Map.entry(EOVERFLOW, "EOVERFLOW: value too large"),
          Map.entry(ESTALE, "ESTALE: the file is gone"),
          Map.entry(EOPNOTSUPP, "EOPNOTSUPP: not supported here"),
          Map.entry(EDQUOT, "EDQUOT: quota exceeded"));

  private Errno() {}

  /// Name and meaning, e.g. `ENOSPC: no space left`.
  public static String describe(int errno) {
    return TEXTS.getOrDefault(errno, "error number " + errno);
  }

  /// What the C library says for a full disk in the language of the process, as the JDK hands it on
  /// in the messages of its `IOException`s, which carry no number.
  public static Set<String> outOfSpaceMessages() {
    return Stream.of(ENOSPC, EDQUOT, EFBIG).map(Calls::strerror).collect(Collectors.toSet());
  }
}
