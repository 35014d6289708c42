// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// A client of libvirt's protocol on a unix socket: ours, libvirtd's, or any other.
///
/// Safe for several threads; each call waits for its own reply.
public final class RpcClient implements AutoCloseable {
  /// An event that the client registered for.
  public record Event(EventKind kind, int callbackId, Record message) {}

  private static final int PING = 1;
  private static final int PONG = 2;

  /// Events that wait for the listener; past it nothing more is read until it catches up.
  private static final int QUEUED_EVENTS = 10_000;

  private final SocketChannel channel;
  private final BlockingQueue<Optional<Event>> events = new LinkedBlockingQueue<>(QUEUED_EVENTS);
  private final ReentrantLock writing = new ReentrantLock();
  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();

  /// Calls without a reply yet; the value is empty until the reply comes.
  private final Map<Integer, Optional<Packet>> pending = new HashMap<>();

  private int nextSerial;

  /// Why the connection ended; null while it lives.
  private @Nullable String end;

  private RpcClient(SocketChannel channel) {
    this.channel = channel;
  }

  /// Connects, authenticates as nobody in particular, and opens the hypervisor connection.
  ///
  /// @param uri as the server knows it: `qemu:///system`
  /// @param events called for each event, in order, on one thread of its own; may call this client
  public static RpcClient open(Path socket, String uri, Consumer<Event> events)
      throws IOException, RpcException {
    RpcClient client = connect(socket, events);
    try {
      client.call(Remote.AUTH_LIST, new Calls.Nothing());
      client.call(Remote.CONNECT_OPEN, new Calls.Open(Optional.of(uri), 0));
      return client;
    } catch (IOException | RpcException | RuntimeException e) {
      client.disconnect("open failed");
      throw e;
    }
  }

  /// Connects, and nothing more.
  public static RpcClient connect(Path socket, Consumer<Event> events) throws IOException {
    SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      channel.connect(UnixDomainSocketAddress.of(socket));
    } catch (IOException e) {
      channel.close();
      throw new IOException(socket + ": " + e.getMessage(), e);
    }
    RpcClient client = new RpcClient(channel);
    Thread.ofVirtual().name("rpc-client-reader").start(client::readAll);
    Thread.ofVirtual().name("rpc-client-events").start(() -> client.deliver(events));
    return client;
  }

  /// Calls and waits for the reply.
  ///
  /// @throws RpcException the server's refusal
  /// @throws IOException the connection is gone, or the reply is not what the procedure gives
  public <A extends Record, R extends Record> R call(Procedure<A, R> procedure, A arguments)
      throws IOException, RpcException {
    XdrWriter body = new XdrWriter();
    Structure.of(procedure.arguments()).encode(arguments, body);
    Packet reply = exchange(procedure.row(), body.written());
    if (reply.status() != Packet.OK) {
      throw ErrorReply.decode(reply.payload());
    }
    return Structure.of(procedure.result()).decode(new XdrReader(reply.payload()));
  }

  private Packet exchange(ProcedureRow row, ByteBuffer body) throws IOException {
    int serial = begin();
    try {
      send(
          new Packet(
              row.program().number(),
              Program.VERSION,
              row.number(),
              Packet.CALL,
              serial,
              Packet.OK,
              body));
      return await(serial);
    } finally {
      forget(serial);
    }
  }

  private int begin() throws IOException {
    lock.lock();
    try {
      if (end != null) {
        throw new EOFException(end);
      }
      int serial = nextSerial++;
      pending.put(serial, Optional.empty());
      return serial;
    } finally {
      lock.unlock();
    }
  }

  private Packet await(int serial) throws IOException {
    lock.lock();
    try {
      while (true) {
        Optional<Packet> reply = pending.getOrDefault(serial, Optional.empty());
        if (reply.isPresent()) {
          return reply.get();
        }
        if (end != null) {
          throw new EOFException(end);
        }
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
  }

  private void forget(int serial) {
    lock.lock();
    try {
      pending.remove(serial);
    } finally {
      lock.unlock();
    }
  }

  private void send(Packet packet) throws IOException {
    writing.lock();
    try {
      packet.write(channel);
    } finally {
      writing.unlock();
    }
  }

  private void readAll() {
    String reason = "connection closed by the server";
    try {
      for (Optional<Packet> packet = Packet.read(channel, Limits.PACKET_BYTES);
          packet.isPresent();
          packet = Packet.read(channel, Limits.PACKET_BYTES)) {
        accept(packet.get());
      }
    } catch (IOException e) {
      reason = String.valueOf(e.getMessage());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      disconnect(reason);
      endEvents();
    }
  }

  /// The mark after the last event: waits for room, so that it is never lost.
  private void endEvents() {
    try {
      events.put(Optional.empty());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void accept(Packet packet) throws IOException, InterruptedException {
    if (packet.program() == Program.KEEPALIVE.number()) {
      if (packet.procedure() == PING) {
        send(Packet.keepAlive(PONG));
      }
    } else if (packet.type() == Packet.REPLY) {
      lock.lock();
      try {
        pending.computeIfPresent(packet.serial(), (_, _) -> Optional.of(packet));
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    } else if (packet.type() == Packet.MESSAGE && packet.program() == Program.REMOTE.number()) {
      Optional<EventKind> kind = EventKind.ofMessage(packet.procedure());
      if (kind.isPresent() && kind.get().payload().isPresent()) {
        XdrReader in = new XdrReader(packet.payload());
        int callbackId = in.readInt();
        Record message = Structure.of(kind.get().payload().get()).decode(in);
        events.put(Optional.of(new Event(kind.get(), callbackId, message)));
      }
    }
  }

  private void deliver(Consumer<Event> listener) {
    try {
      for (Optional<Event> event = events.take(); event.isPresent(); event = events.take()) {
        listener.accept(event.get());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /// Says goodbye and closes.
  @Override
  public void close() {
    try {
      call(Remote.CONNECT_CLOSE, new Calls.Nothing());
    } catch (IOException | RpcException e) {
      // It is over either way.
    }
    disconnect("connection closed");
  }

  private void disconnect(String reason) {
    lock.lock();
    try {
      if (end != null) {
        return;
      }
      end = reason;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    try {
      channel.close();
    } catch (IOException e) {
      // Nothing is lost: no one reads or writes it any more.
    }
  }
}
