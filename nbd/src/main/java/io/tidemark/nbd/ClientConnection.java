// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.GatheringByteChannel;
import java.nio.channels.SocketChannel;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// A client's connection in transmission: many callers send, one reader takes the replies.
///
/// Callers put their request into the table, send it under a lock, and wait. The reader finds the
/// request by the reply's cookie, checks the reply against it, reads payloads straight into the
/// caller's buffer, and ends it. When anything is wrong with the connection it is closed, and the
/// reader, which sees that, ends every request in the table as lost: nobody else takes one out, so
/// a caller's buffer is never written to after the caller went on.
///
/// Spec: proto.md, "Transmission phase".
final class ClientConnection {
  /// Bytes of a block status chunk, and of an error chunk.
  private static final int MAX_STATUS_BYTES = 16 << 20;

  private static final int MAX_ERROR_BYTES = 64 << 10;
  private static final int INPUT_BYTES = 64 << 10;

  private final NbdUri uri;
  private final SocketChannel socket;
  private final ByteChannel channel; // the socket, or TLS over it
  private final ClientHandshake.Terms terms;
  private final Semaphore slots;

  private final ReentrantLock sending = new ReentrantLock(true);
  private final ByteBuffer[] outgoing = {
    ByteBuffer.allocateDirect(Wire.Size.EXTENDED_REQUEST), ByteBuffer.allocate(0)
  }; // under `sending`

  private final Map<Long, ClientRequest> waiting = new HashMap<>(); // also its lock
  private long nextCookie; // under `waiting`
  private @Nullable ConnectionLostException lost; // under `waiting`

  private final ByteBuffer in = ByteBuffer.allocateDirect(INPUT_BYTES).limit(0); // the reader's

  private ClientConnection(
      NbdUri uri,
      SocketChannel socket,
      ByteChannel channel,
      ClientHandshake.Terms terms,
      int inFlight) {
    this.uri = uri;
    this.socket = socket;
    this.channel = channel;
    this.terms = terms;
    this.slots = new Semaphore(inFlight, true);
  }

  /// Connects, opens the export and starts the reader.
  static ClientConnection open(NbdUri uri, ClientOptions options) throws BlockException {
    return ClientSocket.open(
        uri,
        options.connectTime(),
        socket -> {
          ClientHandshake.Terms terms;
          ByteChannel channel;
          try (var stream = new PeerStream(socket, new BufferPool(0))) {
            var handshake = new ClientHandshake(stream, uri.toString());
            handshake.begin(uri);
            terms = handshake.open(uri.export(), options.contexts());
            if (stream.in().hasRemaining()) {
              throw new NbdProtocolException(uri + ": bytes behind the handshake");
            }
            channel = stream.channel();
          }
          var connection = new ClientConnection(uri, socket, channel, terms, options.inFlight());
          Thread.ofPlatform().name("nbd-reader " + uri).daemon().start(connection::readReplies);
          return connection;
        });
  }

  ClientHandshake.Terms terms() {
    return terms;
  }

  /// Whether requests can still be sent.
  boolean alive() {
    synchronized (waiting) {
      return lost == null;
    }
  }

  /// Sends a request and waits for its reply.
  ///
  /// @throws ConnectionLostException when no reply came, and none will
  void call(ClientRequest request) throws BlockException, ConnectionLostException {
    slots.acquireUninterruptibly();
    try {
      long cookie;
      synchronized (waiting) {
        if (lost != null) {
          throw lost.again();
        }
        cookie = nextCookie++;
        waiting.put(cookie, request);
      }
      try {
        send(request, cookie);
      } catch (IOException e) {
        fail(e);
      }
      request.await();
    } finally {
      slots.release();
    }
  }

  private void send(ClientRequest request, long cookie) throws IOException {
    sending.lock();
    try {
      boolean extended = terms.framing() == Framing.EXTENDED;
      boolean write = request.type == Wire.Command.WRITE;
      int flags = request.flags | (extended && write ? Wire.CommandFlag.PAYLOAD_LENGTH : 0);
      outgoing[0]
          .clear()
          .putInt(terms.framing().requestMagic())
          .putShort((short) flags)
          .putShort((short) request.type)
          .putLong(cookie)
          .putLong(request.offset);
      if (extended) {
        outgoing[0].putLong(request.length);
      } else {
        outgoing[0].putInt((int) request.length);
      }
      outgoing[0].flip();
      if (write) {
        outgoing[1] = request.data;
        sendBoth();
        outgoing[1] = ByteBuffer.allocate(0);
      } else {
        sendAll(outgoing[0]);
      }
    } finally {
      sending.unlock();
    }
  }

  private void sendBoth() throws IOException {
    if (channel instanceof GatheringByteChannel gathering) {
      while (outgoing[0].hasRemaining() || outgoing[1].hasRemaining()) {
        gathering.write(outgoing);
      }
    } else {
      sendAll(outgoing[0]);
      sendAll(outgoing[1]);
    }
  }

  private void sendAll(ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
  }

  /// Marks the connection lost and closes it; the reader does the rest.
  private void fail(Throwable cause) {
    synchronized (waiting) {
      if (lost == null) {
        lost = new ConnectionLostException(uri + ": connection lost: " + cause.getMessage(), cause);
      }
    }
    closeChannel();
  }

  /// Says goodbye where that does not wait, and closes. Requests under way end as lost.
  void close() {
    if (sending.tryLock()) {
      try {
        synchronized (waiting) {
          if (lost != null || !waiting.isEmpty()) {
            return;
          }
        }
        send(new ClientRequest(Wire.Command.DISC, 0, 0, 0, ByteBuffer.allocate(0)), 0);
      } catch (IOException _) {
        // It ends here in any case.
      } finally {
        sending.unlock();
        fail(new IOException("closed here"));
      }
    } else {
      fail(new IOException("closed here"));
    }
  }

  private void closeChannel() {
    try {
      socket.close();
    } catch (IOException _) {
      // Nothing depends on it.
    }
  }

  // ---- the reader's thread

  private void readReplies() {
    try {
      while (true) {
        readReply();
      }
    } catch (IOException | RuntimeException | Error e) {
      fail(e);
    }
    Map<Long, ClientRequest> orphans;
    ConnectionLostException cause;
    synchronized (waiting) {
      cause = lost;
      orphans = new HashMap<>(waiting);
      waiting.clear();
    }
    orphans.values().forEach(request -> request.end(cause));
  }

  private void readReply() throws IOException {
    need(4);
    int magic = in.getInt();
    if (magic == Wire.Magic.SIMPLE_REPLY && terms.framing() != Framing.EXTENDED) {
      need(Wire.Size.SIMPLE_REPLY - 4);
      int error = in.getInt();
      simple(in.getLong(), error);
    } else if (magic == Wire.Magic.EXTENDED_REPLY && terms.framing() == Framing.EXTENDED) {
      need(Wire.Size.EXTENDED_CHUNK - 4);
      int flags = Short.toUnsignedInt(in.getShort());
      int chunk = Short.toUnsignedInt(in.getShort());
      long cookie = in.getLong();
      long offset = in.getLong();
      long payload = in.getLong();
      if (payload < 0 || offset != find(cookie).offset) {
        throw new NbdProtocolException(
            "chunk " + chunk + " of " + payload + " bytes for a request at " + offset);
      }
      structured(cookie, flags, chunk, payload);
    } else if (magic == Wire.Magic.STRUCTURED_REPLY && terms.framing() == Framing.STRUCTURED) {
      need(Wire.Size.CHUNK - 4);
      int flags = Short.toUnsignedInt(in.getShort());
      int chunk = Short.toUnsignedInt(in.getShort());
      long cookie = in.getLong();
      long payload = Integer.toUnsignedLong(in.getInt());
      structured(cookie, flags, chunk, payload);
    } else {
      throw new NbdProtocolException("reply magic 0x" + Integer.toHexString(magic));
    }
  }

  private void simple(long cookie, int error) throws IOException {
    ClientRequest request = find(cookie);
    if (error != 0) {
      complain(request, error, "");
    } else if (request.type == Wire.Command.READ) {
      if (terms.framing().chunked()) {
        throw new NbdProtocolException("simple reply to a read");
      }
      readFully(request.data);
      request.covered = request.length;
    } else if (request.type == Wire.Command.BLOCK_STATUS) {
      throw new NbdProtocolException("simple reply to block status");
    }
    end(cookie, request);
  }

  private void structured(long cookie, int flags, int chunk, long payload) throws IOException {
    ClientRequest request = find(cookie);
    switch (chunk) {
      case Wire.Chunk.NONE -> {
        wanted(payload == 0 && (flags & Wire.Chunk.FLAG_DONE) != 0, chunk, payload);
      }
      case Wire.Chunk.OFFSET_DATA -> {
        wanted(request.type == Wire.Command.READ && payload > Wire.Size.OFFSET, chunk, payload);
        need(Wire.Size.OFFSET);
        readFully(part(request, in.getLong(), payload - Wire.Size.OFFSET));
      }
      case Wire.Chunk.OFFSET_HOLE -> {
        wanted(request.type == Wire.Command.READ && payload == Wire.Size.HOLE, chunk, payload);
        need(Wire.Size.HOLE);
        long at = in.getLong();
        zero(part(request, at, Integer.toUnsignedLong(in.getInt())));
      }
      case Wire.Chunk.BLOCK_STATUS, Wire.Chunk.EXTENDED_BLOCK_STATUS ->
          status(request, chunk, payload);
      default -> {
        wanted((chunk & Wire.Chunk.ERROR_BIT) != 0, chunk, payload);
        error(request, chunk, payload);
      }
    }
    if ((flags & Wire.Chunk.FLAG_DONE) != 0) {
      end(cookie, request);
    }
  }

  private static void wanted(boolean held, int chunk, long payload) throws IOException {
    if (!held) {
      throw new NbdProtocolException("chunk " + chunk + " of " + payload + " bytes out of place");
    }
  }

  /// The part of a read's buffer that a chunk fills.
  private static ByteBuffer part(ClientRequest request, long at, long count) throws IOException {
    long start = at - request.offset;
    if (start < 0 || count <= 0 || count > request.length - start) {
      throw new NbdProtocolException(
          "chunk at " + Long.toUnsignedString(at) + " of " + count + " bytes outside of its read");
    }
    request.covered += count;
    return request.data.slice(request.data.position() + (int) start, (int) count);
  }

  private static void zero(ByteBuffer part) {
    while (part.remaining() >= Long.BYTES) {
      part.putLong(0);
    }
    while (part.hasRemaining()) {
      part.put((byte) 0);
    }
  }

  private void status(ClientRequest request, int chunk, long payload) throws IOException {
    Framing framing = terms.framing();
    int head = framing.statusBytes();
    int each = framing.extentBytes();
    wanted(
        request.type == Wire.Command.BLOCK_STATUS
            && chunk == framing.statusChunk()
            && payload >= head + each
            && payload <= MAX_STATUS_BYTES
            && (payload - head) % each == 0,
        chunk,
        payload);
    need(head);
    int context = in.getInt();
    if (framing == Framing.EXTENDED) {
      wanted(in.getInt() == (payload - head) / each, chunk, payload);
    }
    wanted(terms.contexts().containsValue(context), chunk, payload);
    boolean asked = context == request.context;
    wanted(!asked || request.extentCount() == 0, chunk, payload);
    for (long left = payload - head; left > 0; left -= each) {
      need(each);
      boolean extended = framing == Framing.EXTENDED;
      long length = extended ? in.getLong() : Integer.toUnsignedLong(in.getInt());
      long flags = extended ? in.getLong() : Integer.toUnsignedLong(in.getInt());
      if (length <= 0) {
        throw new NbdProtocolException("extent of " + length + " bytes");
      }
      if (asked) {
        request.addExtent(length, flags);
      }
    }
  }

  private void error(ClientRequest request, int chunk, long payload) throws IOException {
    wanted(payload >= Wire.Size.ERROR && payload <= MAX_ERROR_BYTES, chunk, payload);
    byte[] bytes = new byte[(int) payload];
    readFully(ByteBuffer.wrap(bytes));
    ByteBuffer data = ByteBuffer.wrap(bytes);
    int error = data.getInt();
    int length = Short.toUnsignedInt(data.getShort());
    wanted(error != 0 && length <= data.remaining(), chunk, payload);
    complain(request, error, UTF_8.decode(data.limit(data.position() + length)).toString());
  }

  private ClientRequest find(long cookie) throws IOException {
    synchronized (waiting) {
      ClientRequest request = waiting.get(cookie);
      if (request == null) {
        throw new NbdProtocolException("reply to an unknown cookie");
      }
      return request;
    }
  }

  private void end(long cookie, ClientRequest request) throws IOException {
    if (request.failure == null) {
      if (request.type == Wire.Command.READ && request.covered != request.length) {
        throw new NbdProtocolException(
            "read of " + request.length + " bytes answered with " + request.covered);
      }
      if (request.type == Wire.Command.BLOCK_STATUS && request.extentCount() == 0) {
        throw new NbdProtocolException("block status without extents");
      }
    }
    synchronized (waiting) {
      waiting.remove(cookie);
    }
    request.end(null);
  }

  private void complain(ClientRequest request, int error, String why) throws IOException {
    Optional<NbdErrno> errno = NbdErrno.ofNumber(error);
    if (errno.isPresent() && errno.get() == NbdErrno.ESHUTDOWN) {
      throw new IOException("the server is shutting down");
    }
    if (request.failure != null) {
      return;
    }
    String text =
        uri
            + ": command "
            + request.type
            + " at "
            + request.offset
            + " of "
            + request.length
            + " bytes: "
            + errno.map(NbdErrno::text).orElse("error " + error)
            + (why.isEmpty() ? "" : ": " + ServerHandshake.quote(why));
    request.failure =
        switch (errno.orElse(NbdErrno.EIO)) {
          case ENOSPC -> new OutOfSpaceException(text);
          case EPERM -> new ReadOnlyNodeException(text);
          case ENOTSUP -> new UnsupportedImageException(text);
          case EIO, ENOMEM, EINVAL, EOVERFLOW, ESHUTDOWN -> new TransportException(text);
        };
  }

  /// Makes `bytes` available in the input buffer.
  private void need(int bytes) throws IOException {
    if (in.remaining() >= bytes) {
      return;
    }
    in.compact();
    while (in.position() < bytes) {
      if (channel.read(in) < 0) {
        throw new EOFException("the server closed it");
      }
    }
    in.flip();
  }

  /// Fills a buffer from its position to its limit, from the input buffer first.
  private void readFully(ByteBuffer into) throws IOException {
    int buffered = Math.min(in.remaining(), into.remaining());
    int limit = in.limit();
    into.put(in.limit(in.position() + buffered));
    in.limit(limit);
    while (into.hasRemaining()) {
      if (channel.read(into) < 0) {
        throw new EOFException("the server closed it");
      }
    }
  }
}
