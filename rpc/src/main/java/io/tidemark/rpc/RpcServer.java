// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/// Serves libvirt's protocol on the sockets it is given.
///
/// @param <S> what is kept for one client
public final class RpcServer<S> {
  private static final System.Logger LOG = System.getLogger(RpcServer.class.getName());

  /// How long no connection is taken after taking one failed, as when descriptors ran out.
  private static final Duration ACCEPT_PAUSE = Duration.ofMillis(100);

  private static final Duration TICK = Duration.ofSeconds(1);

  /// Read-only sockets are open to every user of the machine, who must not be able to keep others
  /// out or to fill the memory: hence limits of their own.
  ///
  /// @param clients connections at a time on writable sockets; one more is closed at once
  /// @param readOnlyClients the same on read-only sockets
  /// @param readOnlyPacketBytes the largest packet that a read-only client may send
  /// @param callsInFlight calls of one client that are read and not yet answered
  /// @param queuedEvents events that wait for one client before it is cut off
  /// @param queuedEventBytes what they may take
  /// @param keepAliveInterval silence of a client before each ping
  /// @param keepAliveCount pings without any answer before it is cut off
  public record Options(
      int clients,
      int readOnlyClients,
      int readOnlyPacketBytes,
      int callsInFlight,
      int queuedEvents,
      int queuedEventBytes,
      Duration keepAliveInterval,
      int keepAliveCount) {
    /// As libvirtd, where it has the limit.
    public static Options defaults() {
      return new Options(
          Limits.CLIENTS,
          Limits.READ_ONLY_CLIENTS,
          Limits.READ_ONLY_PACKET_BYTES,
          Limits.CALLS_IN_FLIGHT,
          Limits.QUEUED_EVENTS,
          Limits.QUEUED_EVENT_BYTES,
          Duration.ofSeconds(5),
          5);
    }
  }

  private final CallTable<S> table;
  private final RpcService<S> service;
  private final Options options;
  private final AtomicLong ids = new AtomicLong();
  private final Set<ClientConnection<S>> clients = ConcurrentHashMap.newKeySet();
  private final List<ServerSocketChannel> sockets = new ArrayList<>();
  private final CountDownLatch stopped = new CountDownLatch(1);

  public RpcServer(CallTable<S> table, RpcService<S> service, Options options) {
    this.table = table;
    this.service = service;
    this.options = options;
    Thread.ofVirtual().name("rpc-keepalive").start(this::tickAll);
  }

  /// Takes clients from a bound socket, which is this server's from now on.
  ///
  /// @param readOnly whether its clients may only look
  public void serve(ServerSocketChannel socket, boolean readOnly) {
    synchronized (sockets) {
      sockets.add(socket);
    }
    Thread.ofVirtual().name("rpc-accept").start(() -> acceptAll(socket, readOnly));
  }

  /// Takes no more clients and no more calls, lets those in flight end until `grace` is over, and
  /// closes every connection.
  public void stop(Duration grace) {
    stopped.countDown();
    synchronized (sockets) {
      for (ServerSocketChannel socket : sockets) {
        try {
          socket.close();
        } catch (IOException e) {
          LOG.log(Level.WARNING, "socket: close: {0}", e.getMessage());
        }
      }
    }
    long deadline = System.nanoTime() + grace.toNanos();
    for (ClientConnection<S> client : clients) {
      if (!client.drain(deadline)) {
        LOG.log(Level.WARNING, "client {0}: cut off with a call in flight", client.id());
      }
      client.close("server stopped");
    }
  }

  private void acceptAll(ServerSocketChannel socket, boolean readOnly) {
    while (stopped.getCount() > 0) {
      try {
        take(socket.accept(), readOnly);
      } catch (ClosedChannelException e) {
        return;
      } catch (IOException e) {
        LOG.log(Level.WARNING, "taking a client failed: {0}", e.getMessage());
        pause(ACCEPT_PAUSE);
      }
    }
  }

  private void take(SocketChannel channel, boolean readOnly) throws IOException {
    int limit = readOnly ? options.readOnlyClients() : options.clients();
    if (clients.stream().filter(client -> client.readOnly() == readOnly).count() >= limit) {
      LOG.log(
          Level.WARNING,
          "{0}client refused: {1} are connected, the limit",
          readOnly ? "read-only " : "",
          limit);
      channel.close();
      return;
    }
    ClientConnection<S> client =
        new ClientConnection<>(this, channel, ids.incrementAndGet(), readOnly);
    clients.add(client);
    if (stopped.getCount() == 0) {
      client.close("server stopped");
    }
    client.start();
  }

  private void tickAll() {
    while (pause(TICK)) {
      clients.forEach(ClientConnection::tick);
    }
  }

  /// False once the server is stopped.
  private boolean pause(Duration time) {
    try {
      return !stopped.await(time.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  void gone(ClientConnection<S> client) {
    clients.remove(client);
  }

  /// How many clients are connected.
  public int clients() {
    return clients.size();
  }

  CallTable<S> table() {
    return table;
  }

  RpcService<S> service() {
    return service;
  }

  Options options() {
    return options;
  }
}
