// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.rpc.EventKind;
import io.tidemark.rpc.Messages;
import io.tidemark.rpc.RpcConnection;
import io.tidemark.rpc.RpcException;
import java.util.EnumSet;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;

/// What is kept for one client. Also the identity by which domains started for this client only are
/// ended with it.
///
/// Its own calls come one after another from its reader; events from any thread.
final class Client {
  /// Callbacks that one client may register.
  static final int MAX_CALLBACKS = 1_000;

  private record Callback(EventKind kind, Optional<UUID> domain) {}

  private final RpcConnection connection;
  private volatile boolean authenticated;
  private volatile Optional<String> name = Optional.empty();
  private volatile boolean readOnly;
  private boolean closeCallback;
  private volatile boolean gone;

  /// Both guarded by themselves.
  private final TreeMap<Integer, Callback> callbacks = new TreeMap<>();

  private final Set<EventKind> oldCallbacks = EnumSet.noneOf(EventKind.class);

  Client(RpcConnection connection) {
    this.connection = connection;
    this.readOnly = connection.readOnly();
  }

  RpcConnection connection() {
    return connection;
  }

  boolean authenticated() {
    return authenticated;
  }

  void authenticate() {
    authenticated = true;
  }

  /// The name of the hypervisor connection; empty before it is opened.
  Optional<String> name() {
    return name;
  }

  boolean readOnly() {
    return readOnly;
  }

  void open(String newName, boolean newReadOnly) {
    readOnly = connection.readOnly() || newReadOnly;
    name = Optional.of(newName);
  }

  /// Ends the hypervisor connection: no more events.
  void shut() {
    name = Optional.empty();
    synchronized (callbacks) {
      callbacks.clear();
    }
    synchronized (oldCallbacks) {
      oldCallbacks.clear();
    }
  }

  /// Whether the connection is over; calls of it may still be running.
  boolean gone() {
    return gone;
  }

  void leave() {
    gone = true;
    shut();
  }

  boolean closeCallback() {
    return closeCallback;
  }

  void closeCallback(boolean registered) {
    closeCallback = registered;
  }

  // ---- events

  void register(int id, EventKind kind, Optional<UUID> domain) throws RpcException {
    synchronized (callbacks) {
      if (callbacks.size() >= MAX_CALLBACKS) {
        throw RpcException.connection(
            "client has registered " + MAX_CALLBACKS + " events, the limit");
      }
      callbacks.put(id, new Callback(kind, domain));
    }
  }

  void deregister(int id) throws RpcException {
    synchronized (callbacks) {
      if (callbacks.remove(id) == null) {
        throw RpcException.connection("domain event callback " + id + " not registered");
      }
    }
  }

  void registerOld(EventKind kind) throws RpcException {
    synchronized (oldCallbacks) {
      if (!oldCallbacks.add(kind)) {
        throw RpcException.connection("domain event " + kind.id() + " already registered");
      }
    }
  }

  void deregisterOld(EventKind kind) throws RpcException {
    synchronized (oldCallbacks) {
      if (!oldCallbacks.remove(kind)) {
        throw RpcException.connection("domain event " + kind.id() + " not registered");
      }
    }
  }

  /// Queues the event once for each callback that wants it.
  <M extends Record & Messages.About> void deliver(EventKind kind, M message) {
    synchronized (callbacks) {
      callbacks.forEach((id, callback) -> {
        if (callback.kind() == kind
            && callback.domain().map(message.dom().uuid()::equals).orElse(true)) {
          connection.send(kind, id, message);
        }
      });
    }
    boolean old;
    synchronized (oldCallbacks) {
      old = oldCallbacks.contains(kind);
    }
    if (old) {
      connection.sendOld(kind, message);
    }
  }

  @Override
  public String toString() {
    return "client " + connection.id();
  }
}
