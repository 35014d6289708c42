// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// A client as its server sees it. Safe for several threads.
public interface RpcConnection {
  /// Counted from 1, for logs.
  long id();

  /// Whether it came through a socket for reading only.
  boolean readOnly();

  /// Queues an event. What is queued before a call returns is sent before the call's reply. A
  /// client that does not read, until its queue is full, is cut off: events are never dropped one
  /// by one. After the end of the connection this does nothing.
  ///
  /// @param callbackId the client's registration
  /// @throws IllegalArgumentException `message` is not what `kind` carries
  void send(EventKind kind, int callbackId, Record message);

  /// Queues an event for a client that registered the old way, without callback numbers.
  void sendOld(EventKind kind, Record message);

  /// From now on the client is pinged when it is silent, and cut off when it stays so. Only for a
  /// client that asked whether this server can: others do not know pings.
  void keepAlive();
}
