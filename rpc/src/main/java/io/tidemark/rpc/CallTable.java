// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/// Which procedures are served, and by what. Filled before the server starts, then only read.
///
/// @param <S> what is kept for one client
public final class CallTable<S> {
  /// Serves one procedure. May block. Any exception is allowed: [RpcService#failure] words it.
  public interface Call<S, A extends Record, R extends Record> {
    R run(S session, A arguments) throws Exception;
  }

  record Entry<S, A extends Record, R extends Record>(
      Procedure<A, R> procedure, boolean inOrder, Call<S, A, R> call) {
    A decode(XdrReader in) throws XdrException {
      return Structure.of(procedure.arguments()).decode(in);
    }

    XdrWriter run(S session, Record arguments) throws Exception {
      R result = call.run(session, procedure.arguments().cast(arguments));
      XdrWriter out = new XdrWriter();
      Structure.of(procedure.result()).encode(result, out);
      return out;
    }
  }

  private final Map<ProcedureRow, Entry<S, ?, ?>> entries = new HashMap<>();

  /// Serves a procedure on a thread of its own: other calls of the client go on meanwhile, and may
  /// overtake it.
  public <A extends Record, R extends Record> CallTable<S> on(
      Procedure<A, R> procedure, Call<S, A, R> call) {
    return put(new Entry<>(procedure, false, call));
  }

  /// Serves a procedure of the connection itself, in the order in which the client called: nothing
  /// of the client is read meanwhile. It must not wait for anything.
  public <A extends Record, R extends Record> CallTable<S> inOrder(
      Procedure<A, R> procedure, Call<S, A, R> call) {
    return put(new Entry<>(procedure, true, call));
  }

  private CallTable<S> put(Entry<S, ?, ?> entry) {
    if (entries.putIfAbsent(entry.procedure().row(), entry) != null) {
      throw new IllegalArgumentException("served twice: " + entry.procedure());
    }
    return this;
  }

  Optional<Entry<S, ?, ?>> of(ProcedureRow row) {
    return Optional.ofNullable(entries.get(row));
  }
}
