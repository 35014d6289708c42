// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.locks.ReentrantLock;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLEngineResult.Status;
import javax.net.ssl.SSLException;

/// TLS over a blocking socket.
///
/// One thread reads and, at the same time, one writes: each direction has its lock and its buffer.
/// What the reading side has to answer after the handshake (a key update) is sent under the writing
/// side's lock. Never both locks are waited for in the other order: a writer takes no read lock.
final class TlsChannel implements ByteChannel {
  private final SocketChannel socket;
  private final SSLEngine engine;

  private final ReentrantLock reading = new ReentrantLock();
  private ByteBuffer received; // under `reading`, or the handshake's thread: to be unwrapped
  private ByteBuffer plain; // under `reading`: unwrapped and not yet handed on

  private final ReentrantLock writing = new ReentrantLock();
  private ByteBuffer sealed; // under `writing`, or the handshake's thread

  private static final ByteBuffer NOTHING = ByteBuffer.allocate(0);

  private TlsChannel(SocketChannel socket, SSLEngine engine) {
    this.socket = socket;
    this.engine = engine;
    this.received = ByteBuffer.allocateDirect(engine.getSession().getPacketBufferSize()).limit(0);
    this.sealed = ByteBuffer.allocateDirect(engine.getSession().getPacketBufferSize());
    this.plain = ByteBuffer.allocate(engine.getSession().getApplicationBufferSize()).limit(0);
  }

  /// Shakes hands on a connected socket.
  ///
  /// @throws SSLException when the peer is not who it must be, or speaks no TLS that is accepted
  static TlsChannel open(SocketChannel socket, SSLEngine engine) throws IOException {
    var channel = new TlsChannel(socket, engine);
    engine.beginHandshake();
    try {
      channel.shakeHands();
    } catch (SSLException e) {
      channel.tellWhy();
      throw e;
    }
    return channel;
  }

  private void shakeHands() throws IOException {
    while (true) {
      switch (engine.getHandshakeStatus()) {
        case NEED_WRAP -> seal(NOTHING);
        case NEED_UNWRAP, NEED_UNWRAP_AGAIN -> {
          if (unwrap(plain.clear()) < 0) {
            throw new SSLException("the peer left in the TLS handshake");
          }
          plain.flip();
          if (plain.hasRemaining()) { // application data behind the last handshake message
            return;
          }
        }
        case NEED_TASK -> runTasks();
        case FINISHED, NOT_HANDSHAKING -> {
          return;
        }
      }
    }
  }

  /// Sends the alert that the engine made of its failure.
  private void tellWhy() {
    try {
      while (engine.getHandshakeStatus() == HandshakeStatus.NEED_WRAP && !engine.isOutboundDone()) {
        seal(NOTHING);
      }
    } catch (IOException _) {
      // The first failure is the one that counts.
    }
  }

  private void runTasks() {
    for (Runnable task = engine.getDelegatedTask();
        task != null;
        task = engine.getDelegatedTask()) {
      task.run();
    }
  }

  /// Unwraps one record into `into`; blocks for it. Returns the bytes it gave, or -1 at the end of
  /// the stream.
  private int unwrap(ByteBuffer into) throws IOException {
    while (true) {
      SSLEngineResult result = engine.unwrap(received, into);
      switch (result.getStatus()) {
        case OK -> {
          return result.bytesProduced();
        }
        case CLOSED -> {
          return -1;
        }
        case BUFFER_UNDERFLOW -> {
          received.compact();
          if (!received.hasRemaining()) {
            ByteBuffer larger = ByteBuffer.allocateDirect(2 * received.capacity());
            received = larger.put(received.flip());
          }
          int count = socket.read(received);
          received.flip();
          if (count < 0) {
            return -1; // without a goodbye: the protocol above knows where it was
          }
        }
        case BUFFER_OVERFLOW ->
            throw new SSLException("record larger than " + into.remaining() + " bytes");
      }
    }
  }

  /// Wraps from `from` and sends it, one record.
  private void seal(ByteBuffer from) throws IOException {
    SSLEngineResult result = engine.wrap(from, sealed);
    if (result.getStatus() == Status.BUFFER_OVERFLOW) {
      sealed = ByteBuffer.allocateDirect(2 * sealed.capacity());
      return;
    }
    sealed.flip();
    while (sealed.hasRemaining()) {
      socket.write(sealed);
    }
    sealed.clear();
    if (result.getStatus() == Status.CLOSED && from.hasRemaining()) {
      throw new SSLException("the TLS session is closed");
    }
  }

  @Override
  public int read(ByteBuffer into) throws IOException {
    reading.lock();
    try {
      if (!into.hasRemaining()) {
        return 0;
      }
      if (!plain.hasRemaining()) {
        if (into.remaining() >= plain.capacity()) {
          return readRecord(into);
        }
        int count = readRecord(plain.clear());
        plain.flip();
        if (count < 0) {
          return -1;
        }
      }
      int count = Math.min(plain.remaining(), into.remaining());
      into.put(plain.slice(plain.position(), count));
      plain.position(plain.position() + count);
      return count;
    } finally {
      reading.unlock();
    }
  }

  /// Unwraps until a record gave bytes, and does what messages after the handshake ask for.
  private int readRecord(ByteBuffer into) throws IOException {
    while (true) {
      int count = unwrap(into);
      if (count != 0) {
        return count;
      }
      if (engine.getHandshakeStatus() == HandshakeStatus.NEED_TASK) {
        runTasks();
      }
      if (engine.getHandshakeStatus() == HandshakeStatus.NEED_WRAP) {
        writing.lock();
        try {
          seal(NOTHING);
        } finally {
          writing.unlock();
        }
      }
    }
  }

  @Override
  public int write(ByteBuffer from) throws IOException {
    writing.lock();
    try {
      int count = from.remaining();
      while (from.hasRemaining()) {
        seal(from);
      }
      return count;
    } finally {
      writing.unlock();
    }
  }

  @Override
  public boolean isOpen() {
    return socket.isOpen();
  }

  /// Closes the socket. TLS's goodbye is left out: NBD has its own, and sending could block.
  @Override
  public void close() throws IOException {
    socket.close();
  }
}
