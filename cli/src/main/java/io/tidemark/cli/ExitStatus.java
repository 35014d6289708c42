// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

/// What the `tidemark` command answers its caller with.
///
/// `tidemark image` keeps qemu-img's codes instead, so that scripts can switch: 0 and 1 mean the
/// same there, usage errors are 1, and `check` and `compare` have codes of their own.
public enum ExitStatus {
  /// What was asked is done.
  DONE(0),
  /// It was refused, or it failed; stderr says why.
  FAILED(1),
  /// The command line makes no sense (sysexits' EX_USAGE).
  USAGE(64);

  private final int code;

  ExitStatus(int code) {
    this.code = code;
  }

  public int code() {
    return code;
  }
}
