// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.util.Optional;

/// The programs that share a connection; each has its own procedure numbers. All are version 1.
public enum Program {
  REMOTE(0x20008086, "remote"),
  QEMU(0x20008087, "qemu"),
  KEEPALIVE(0x6b656570, "keepalive");

  static final int VERSION = 1;

  private final int number;
  private final String word;

  Program(int number, String word) {
    this.number = number;
    this.word = word;
  }

  public int number() {
    return number;
  }

  /// Its word in the table of procedures.
  String word() {
    return word;
  }

  static Optional<Program> of(int number) {
    for (Program program : values()) {
      if (program.number == number) {
        return Optional.of(program);
      }
    }
    return Optional.empty();
  }
}
