// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import javax.net.ssl.SSLEngine;

/// The two buffers between a connection's thread and its socket.
///
/// Bytes are read from the socket only when the buffer lacks what is asked for, then as many as
/// fit; before the thread blocks for them, what waits to be sent is sent. So a peer that sends many
/// requests at once gets their replies in one write, and one that waits for each gets it at once.
///
/// Buffers start tiny and grow when a request or a burst does not fit. Used by one thread at a
/// time, but for [#stopReading] and [#close].
final class PeerStream implements AutoCloseable {
  private final SocketChannel socket;
  private final BufferPool pool;
  private final ByteBuffer tinyIn = BufferPool.tiny();
  private final ByteBuffer tinyOut = BufferPool.tiny();
  private ByteChannel channel; // the socket, or TLS over it; changed by the owning thread
  private ByteBuffer in; // position to limit: read and not yet used
  private ByteBuffer out; // start to position: to be sent
  private boolean burst; // the last read filled the buffer
  private volatile boolean stopped;

  PeerStream(SocketChannel socket, BufferPool pool) {
    this.socket = socket;
    this.channel = socket;
    this.pool = pool;
    this.in = tinyIn.limit(0);
    this.out = tinyOut;
  }

  /// Sends what waits, and speaks TLS from now on.
  ///
  /// @throws NbdProtocolException when the peer sent something before TLS that would be taken for
  ///   something said under it
  void startTls(SSLEngine engine) throws IOException {
    flush();
    if (in.hasRemaining()) {
      throw new NbdProtocolException(in.remaining() + " bytes in the clear behind STARTTLS");
    }
    channel = TlsChannel.open(socket, engine);
  }

  /// Whether TLS runs.
  boolean encrypted() {
    return channel instanceof TlsChannel;
  }

  SocketChannel socket() {
    return socket;
  }

  BufferPool pool() {
    return pool;
  }

  /// Bytes travel over this from now on; it ends at the socket.
  void through(ByteChannel next) {
    channel = next;
  }

  /// What bytes travel over: the socket, or TLS over it.
  ByteChannel channel() {
    return channel;
  }

  /// Unread bytes, from position to limit. The caller moves the position past what it used, and
  /// restores the limit when it narrowed it.
  ByteBuffer in() {
    return in;
  }

  /// What will be sent; the caller appends at the position. See [#reserve].
  ByteBuffer out() {
    return out;
  }

  /// Makes the input buffer large enough for `bytes` at once, where the pool allows it.
  boolean room(int bytes) {
    if (in.capacity() < bytes) {
      grow(bytes);
    }
    return in.capacity() >= bytes;
  }

  private void grow(int bytes) {
    Optional<ByteBuffer> lent = lend(bytes, in);
    if (lent.isPresent()) {
      ByteBuffer larger = lent.get();
      larger.put(in).flip();
      pool.giveBack(in);
      in = larger;
    }
  }

  /// A small one is lent even where the pool has no more: data does not go in tiny pieces.
  private Optional<ByteBuffer> lend(int bytes, ByteBuffer now) {
    Optional<ByteBuffer> lent = pool.lendPage(bytes);
    boolean tiny = lent.isEmpty() && now.capacity() < BufferPool.SMALL;
    return tiny ? Optional.of(pool.small()) : lent;
  }

  /// Blocks until at least `need` unread bytes are in the buffer; there must be [#room] for them.
  /// False when the peer, or [#stopReading], ended the stream before.
  boolean fill(int need) throws IOException {
    if (in.remaining() >= need) {
      return true;
    }
    flush();
    if (!in.hasRemaining()) {
      in.clear().limit(0);
    }
    if (burst && in.capacity() < BufferPool.MEDIUM) {
      grow(in.capacity() < BufferPool.SMALL ? BufferPool.SMALL : BufferPool.MEDIUM);
    }
    if (in.capacity() - in.position() < need) {
      in.compact().flip();
    }
    while (in.remaining() < need) {
      if (stopped || !readMore()) {
        return false;
      }
    }
    return true;
  }

  private boolean readMore() throws IOException {
    int start = in.position();
    int end = in.limit();
    in.limit(in.capacity()).position(end);
    int count;
    try {
      count = channel.read(in);
    } finally {
      in.limit(in.position()).position(start);
    }
    burst = in.limit() == in.capacity();
    return count >= 0;
  }

  /// Passes over `length` bytes of the stream. False when it ended before.
  boolean skip(long length) throws IOException {
    long left = length;
    while (left > 0) {
      if (!in.hasRemaining() && !fill(1)) {
        return false;
      }
      int step = (int) Math.min(left, in.remaining());
      in.position(in.position() + step);
      left -= step;
    }
    return true;
  }

  /// Makes room for `bytes` in the output buffer, by sending what is in it and by growing; false
  /// when even an empty one is smaller than that.
  boolean reserve(int bytes) throws IOException {
    if (out.remaining() >= bytes) {
      return true;
    }
    flush();
    if (out.capacity() < BufferPool.MEDIUM) {
      boolean small = out.capacity() < BufferPool.SMALL && bytes <= BufferPool.SMALL;
      Optional<ByteBuffer> lent = lend(small ? BufferPool.SMALL : BufferPool.MEDIUM, out);
      if (lent.isPresent()) {
        pool.giveBack(out);
        out = lent.get();
      }
    }
    return out.remaining() >= bytes;
  }

  /// Sends everything in the output buffer.
  void flush() throws IOException {
    if (out.position() == 0) {
      return;
    }
    out.flip();
    while (out.hasRemaining()) {
      channel.write(out);
    }
    out.clear();
  }

  /// From any thread: what was received is still served, nothing more is read.
  void stopReading() throws IOException {
    stopped = true;
    socket.shutdownInput();
  }

  /// Gives the buffers back and goes on with the tiny ones. There is nothing unread and nothing to
  /// be sent.
  void shrink() {
    close();
    in = tinyIn.clear().limit(0);
    out = tinyOut.clear();
  }

  /// From the owning thread, when it is done: gives the buffers back.
  @Override
  public void close() {
    pool.giveBack(in);
    pool.giveBack(out);
  }
}
