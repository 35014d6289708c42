// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// What stands behind a server: who a client is, what it may, and how failures are worded. The
/// calls themselves are in a [CallTable].
///
/// @param <S> what is kept for one client
public interface RpcService<S> {
  /// A client came.
  S opened(RpcConnection connection);

  /// Asked before each call, with decoded arguments when the procedure is served. Throws to refuse.
  void admit(S session, ProcedureRow procedure, Record arguments) throws RpcException;

  /// The answer to a procedure that libvirt knows and the table does not.
  RpcException unsupported(ProcedureRow procedure);

  /// The answer when a call ended with `failure`; the one place where failures get their number.
  RpcException failure(ProcedureRow procedure, Throwable failure);

  /// The client is gone. Its calls may still be running.
  void closed(S session);
}
