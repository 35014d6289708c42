// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.util.ArrayDeque;
import java.util.Optional;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// The server's side of one connection.
///
/// Three kinds of virtual thread: the reader takes packets in; each call runs on its own, so that a
/// PING and other calls are answered while one takes long; the writer sends what is queued, so that
/// whoever has an event never waits for a client. The queue is bounded: replies by the calls in
/// flight (a call counts until its reply is written, and with too many of them the reader waits),
/// events by number and bytes.
///
/// All mutable state is under `lock`. Nobody holds it while reading or writing.
final class ClientConnection<S> implements RpcConnection {
  private static final System.Logger LOG = System.getLogger(ClientConnection.class.getName());
  private static final int PING = 1;
  private static final int PONG = 2;

  private record Outgoing(Packet packet, boolean reply, int eventBytes) {}

  private final RpcServer<S> server;
  private final ByteChannel channel;
  private final long id;
  private final boolean readOnly;

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final ArrayDeque<Outgoing> queue = new ArrayDeque<>();
  private int queuedEvents;
  private int queuedEventBytes;
  private int queuedPongs;
  private int calls;
  private boolean waiting;
  private boolean draining;
  private boolean closed;

  /// Null until the client asked for it.
  private @Nullable KeepAlive keepAlive;

  ClientConnection(RpcServer<S> server, ByteChannel channel, long id, boolean readOnly) {
    this.server = server;
    this.channel = channel;
    this.id = id;
    this.readOnly = readOnly;
  }

  void start() {
    Thread.ofVirtual().name("rpc-" + id + "-writer").start(this::writeAll);
    Thread.ofVirtual().name("rpc-" + id + "-reader").start(this::readAll);
  }

  @Override
  public long id() {
    return id;
  }

  @Override
  public boolean readOnly() {
    return readOnly;
  }

  // ---- reading

  private void readAll() {
    try {
      readAll(server.service().opened(this));
    } finally {
      close("ended");
      server.gone(this);
    }
  }

  private void readAll(S session) {
    int limit = readOnly ? server.options().readOnlyPacketBytes() : Limits.PACKET_BYTES;
    String reason = "client closed the connection";
    try {
      for (Optional<Packet> packet = Packet.read(channel, limit);
          packet.isPresent() && !finished();
          packet = Packet.read(channel, limit)) {
        received();
        accept(session, packet.get());
      }
    } catch (IOException e) {
      reason = String.valueOf(e.getMessage());
    } catch (RuntimeException | Error e) {
      LOG.log(Level.ERROR, "client " + id + ": dropped after an error of this program", e);
    } finally {
      close(reason);
      server.service().closed(session);
    }
  }

  private void accept(S session, Packet packet) throws IOException {
    if (packet.program() == Program.KEEPALIVE.number()
        && packet.version() == Program.VERSION
        && packet.type() == Packet.MESSAGE) {
      if (packet.procedure() == PING) {
        pong();
      }
      return;
    }
    switch (packet.type()) {
      case Packet.CALL, Packet.CALL_WITH_FDS -> call(session, packet);
      default -> {} // libvirtd answers nothing to replies, messages and parts of unknown streams
    }
  }

  private void call(S session, Packet packet) {
    if (!beginCall()) {
      return;
    }
    ProcedureRow row;
    try {
      if (packet.type() == Packet.CALL_WITH_FDS) {
        throw RpcException.protocol("file descriptors in messages are not supported");
      }
      row = rowOf(packet);
      Optional<CallTable.Entry<S, ?, ?>> entry = server.table().of(row);
      if (entry.isEmpty()) {
        server.service().admit(session, row, new Calls.Nothing());
        throw server.service().unsupported(row);
      }
      Record arguments = decode(entry.get(), packet);
      if (entry.get().inOrder()) {
        run(session, entry.get(), arguments, packet);
      } else {
        Thread.ofVirtual()
            .name("rpc-" + id + "-" + row.name())
            .start(() -> run(session, entry.get(), arguments, packet));
      }
    } catch (RpcException e) {
      reply(packet, e);
    }
  }

  private static ProcedureRow rowOf(Packet packet) throws RpcException {
    Optional<Program> program =
        Program.of(packet.program()).filter(known -> known != Program.KEEPALIVE);
    if (program.isEmpty() || packet.version() != Program.VERSION) {
      throw RpcException.protocol(
          "Cannot find program "
              + Integer.toUnsignedString(packet.program())
              + " version "
              + Integer.toUnsignedString(packet.version()));
    }
    // Clients fall back to other calls only when the text begins with these words.
    return ProcedureRow.of(program.get(), packet.procedure())
        .filter(row -> row.access() != ProcedureRow.Access.EVENT)
        .orElseThrow(() -> RpcException.protocol("unknown procedure: " + packet.procedure()));
  }

  private static Record decode(CallTable.Entry<?, ?, ?> entry, Packet packet) throws RpcException {
    try {
      return entry.decode(new XdrReader(packet.payload()));
    } catch (XdrException e) {
      throw RpcException.protocol(
          "Unable to decode message payload: " + entry.procedure() + ": " + e.getMessage());
    }
  }

  private void run(S session, CallTable.Entry<S, ?, ?> entry, Record arguments, Packet packet) {
    try {
      server.service().admit(session, entry.procedure().row(), arguments);
      XdrWriter result = entry.run(session, arguments);
      enqueue(new Outgoing(packet.reply(Packet.OK, result.written()), true, 0));
    } catch (RpcException e) {
      reply(packet, e);
    } catch (Throwable e) {
      reply(packet, server.service().failure(entry.procedure().row(), e));
    }
  }

  private void reply(Packet call, RpcException failure) {
    enqueue(new Outgoing(call.reply(Packet.ERROR, ErrorReply.encode(failure)), true, 0));
  }

  // ---- what is in flight

  /// Waits until the client has room for a call. False when the connection is ending.
  private boolean beginCall() {
    lock.lock();
    try {
      waiting = true;
      while (calls >= server.options().callsInFlight() && !closed) {
        changed.awaitUninterruptibly();
      }
      waiting = false;
      if (keepAlive != null) {
        keepAlive.received(System.nanoTime());
      }
      if (closed || draining) {
        return false;
      }
      calls++;
      return true;
    } finally {
      lock.unlock();
    }
  }

  private boolean finished() {
    lock.lock();
    try {
      return closed;
    } finally {
      lock.unlock();
    }
  }

  // ---- sending

  @Override
  public void send(EventKind kind, int callbackId, Record message) {
    event(kind, message, false, callbackId);
  }

  @Override
  public void sendOld(EventKind kind, Record message) {
    event(kind, message, true, 0);
  }

  private void event(EventKind kind, Record message, boolean old, int callbackId) {
    ByteBuffer body = EventBody.encode(kind, message, old, callbackId);
    Packet packet =
        new Packet(
            Program.REMOTE.number(),
            Program.VERSION,
            kind.message(old),
            Packet.MESSAGE,
            0,
            Packet.OK,
            body);
    enqueue(new Outgoing(packet, false, packet.bytes()));
  }

  private void enqueue(Outgoing outgoing) {
    String overflow = null;
    lock.lock();
    try {
      if (closed) {
        return;
      }
      queue.add(outgoing);
      if (outgoing.eventBytes > 0) {
        queuedEvents++;
        queuedEventBytes += outgoing.eventBytes;
        if (queuedEvents > server.options().queuedEvents()
            || queuedEventBytes > server.options().queuedEventBytes()) {
          overflow =
              queuedEvents
                  + " events of "
                  + queuedEventBytes
                  + " bytes wait for a client that does"
                  + " not read";
        }
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    if (overflow != null) {
      LOG.log(Level.WARNING, "client {0}: cut off: {1}", id, overflow);
      close(overflow);
    }
  }

  /// Answers a PING. A client that pings and does not read gets as many answers as there is room.
  private void pong() {
    lock.lock();
    try {
      if (!closed && queuedPongs < server.options().callsInFlight()) {
        queuedPongs++;
        queue.add(new Outgoing(Packet.keepAlive(PONG), false, 0));
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
  }

  private void writeAll() {
    try {
      for (Outgoing next = take(); next != null; next = take()) {
        next.packet.write(channel);
        written(next);
      }
    } catch (IOException e) {
      close(String.valueOf(e.getMessage()));
    }
  }

  /// The next packet to send; null at the end.
  private @Nullable Outgoing take() {
    lock.lock();
    try {
      while (queue.isEmpty() && !closed) {
        changed.awaitUninterruptibly();
      }
      return closed ? null : queue.peek();
    } finally {
      lock.unlock();
    }
  }

  /// Only now a packet leaves the queue: what the peer has not taken still counts.
  private void written(Outgoing done) {
    lock.lock();
    try {
      queue.poll();
      if (done.reply) {
        calls--;
      } else if (done.eventBytes > 0) {
        queuedEvents--;
        queuedEventBytes -= done.eventBytes;
      } else if (done.packet.procedure() == PONG) {
        queuedPongs--;
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  // ---- keepalive

  @Override
  public void keepAlive() {
    lock.lock();
    try {
      if (keepAlive == null) {
        keepAlive =
            new KeepAlive(
                server.options().keepAliveInterval().toNanos(),
                server.options().keepAliveCount(),
                System.nanoTime());
      }
    } finally {
      lock.unlock();
    }
  }

  private void received() {
    lock.lock();
    try {
      if (keepAlive != null) {
        keepAlive.received(System.nanoTime());
      }
    } finally {
      lock.unlock();
    }
  }

  /// Called by the server from time to time.
  void tick() {
    KeepAlive.Action action;
    lock.lock();
    try {
      // While the reader waits for room, silence is ours and not the client's.
      if (keepAlive == null || waiting || closed) {
        return;
      }
      action = keepAlive.tick(System.nanoTime());
      if (action == KeepAlive.Action.PING) {
        queue.add(new Outgoing(Packet.keepAlive(PING), false, 0));
        changed.signalAll();
      }
    } finally {
      lock.unlock();
    }
    if (action == KeepAlive.Action.GIVE_UP) {
      close("no answer to " + server.options().keepAliveCount() + " keepalive messages");
    }
  }

  // ---- the end

  /// Takes no more calls, and waits until those in flight are answered.
  ///
  /// @return false when `deadline` (System.nanoTime) came first
  boolean drain(long deadline) {
    lock.lock();
    try {
      draining = true;
      while (!closed && (calls > 0 || !queue.isEmpty())) {
        long left = deadline - System.nanoTime();
        if (left <= 0) {
          return false;
        }
        try {
          changed.awaitNanos(left);
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          return false;
        }
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /// Ends the connection at once; what is queued is dropped.
  void close(String reason) {
    lock.lock();
    try {
      if (closed) {
        return;
      }
      closed = true;
      queue.clear();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    LOG.log(Level.DEBUG, "client {0}: ended: {1}", id, reason);
    try {
      channel.close();
    } catch (IOException e) {
      LOG.log(Level.DEBUG, "client {0}: close: {1}", id, e.getMessage());
    }
  }
}
