// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.io.IOException;

/// A system call that failed: which one, on what, and the error number.
public final class LinuxException extends IOException {
  private static final long serialVersionUID = 1L;

  private final String call;
  private final int errno;

  LinuxException(String place, String call, int errno) {
    super(place + ": " + call + ": " + Errno.describe(errno));
    this.call = call;
    this.errno = errno;
  }

  /// The call and what it met, without the place: `open: ENOENT: no such file`.
  public String reason() {
    return call + ": " + Errno.describe(errno);
  }

  /// The number, to be compared with the constants of [Errno].
  public int errno() {
    return errno;
  }

  /// Whether the storage is full: ENOSPC, EDQUOT or EFBIG.
  public boolean outOfSpace() {
    return errno == Errno.ENOSPC || errno == Errno.EDQUOT || errno == Errno.EFBIG;
  }

  /// Whether this kernel or file system does not know the call: the caller does without.
  public boolean unsupported() {
    return errno == Errno.EOPNOTSUPP || errno == Errno.ENOSYS;
  }
}
