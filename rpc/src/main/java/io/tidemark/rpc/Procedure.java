// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// A procedure whose structures are known here: what is called, with what, for what.
///
/// @param row what libvirt says about it
/// @param arguments the record sent by the client
/// @param result the record sent back
public record Procedure<A extends Record, R extends Record>(
    ProcedureRow row, Class<A> arguments, Class<R> result) {

  static <A extends Record, R extends Record> Procedure<A, R> remote(
      int number, Class<A> arguments, Class<R> result) {
    return of(Program.REMOTE, number, arguments, result);
  }

  static <A extends Record, R extends Record> Procedure<A, R> of(
      Program program, int number, Class<A> arguments, Class<R> result) {
    ProcedureRow row =
        ProcedureRow.of(program, number)
            .orElseThrow(() -> new AssertionError("no procedure " + program + " " + number));
    return new Procedure<>(row, arguments, result);
  }

  @Override
  public String toString() {
    return row.name();
  }
}
