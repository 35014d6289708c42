// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.RequestQueue;
import io.tidemark.linux.SocketDescriptor;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Reads and writes of one connection that the node carries out while the connection's thread goes
/// on ([RequestQueue]): for disks past the page cache, where a thread that waits for each request
/// would never have two of them at the disk.
///
/// It stands between the connection's buffers and its socket. When the thread wants more input it
/// waits for the socket and for requests that end, whichever comes first, and answers the latter;
/// so replies come in the order in which requests end. When the socket takes no more, requests that
/// end are let go of in the node at once, and answered later: a peer that does not read its replies
/// holds nothing but its own buffers.
///
/// Only plain reads and writes come here, one buffer each. Everything else runs as ever, after
/// [#quiesce]: so a FLUSH covers what was answered before it. Reads are not looked through for
/// holes.
///
/// Used by the connection's thread.
final class RequestPipeline implements ByteChannel {
  /// Requests of one connection in flight.
  static final int MAX_REQUESTS = 64;

  /// Longest request that comes here; longer ones are applied in pieces, one after the other.
  static final int MAX_REQUEST_BYTES = 1 << 20;

  /// Bytes of payload of one connection in flight, past which it waits for some to end.
  static final int MAX_BYTES = 4 << 20;

  /// In front of a payload, so that its head goes out with it.
  private static final int HEAD = 4096;

  /// Payloads up to this are copied behind one another, to go out together.
  private static final int COPIED = 32 << 10;

  private static final Logger LOG = System.getLogger(RequestPipeline.class.getName());

  /// A request and what its answer needs; used again.
  private static final class Slot extends QueuedRequest {
    long cookie;
    long at; // offset as the client gave it
    @Nullable ByteBuffer buffer; // null: idle
    @Nullable Slot next; // idle ones

    Slot(RequestQueue queue) {
      super(queue);
    }
  }

  private final PeerStream stream;
  private final SocketChannel socket;
  private final SocketDescriptor descriptor;
  private final RequestQueue queue;
  private final BlockNode node;
  private final Framing framing;
  private final ReplyFrames frames;
  private final Consumer<BlockException> failed;
  private @Nullable Slot idle;
  private int used; // slots that are not idle
  private int bytesInFlight;
  private boolean answering;

  private RequestPipeline(
      PeerStream stream,
      SocketDescriptor descriptor,
      RequestQueue queue,
      ServerHandshake.Opened opened,
      Consumer<BlockException> failed) {
    this.stream = stream;
    this.socket = stream.socket();
    this.descriptor = descriptor;
    this.queue = queue;
    this.node = opened.export().node();
    this.framing = opened.framing();
    this.frames = new ReplyFrames(stream, framing);
    this.failed = failed;
  }

  /// Puts a pipeline between a stream and its socket; empty where the node has no use for one, the
  /// connection is encrypted, or the kernel refuses.
  ///
  /// @param failed told of each request that failed
  static Optional<RequestPipeline> open(
      PeerStream stream, ServerHandshake.Opened opened, Consumer<BlockException> failed) {
    if (!opened.export().node().queues() || stream.encrypted()) {
      return Optional.empty();
    }
    try {
      RequestQueue queue = RequestQueue.open(MAX_REQUESTS);
      Optional<SocketDescriptor> descriptor = SocketDescriptor.of(stream.socket());
      if (descriptor.isPresent()) {
        var pipeline = new RequestPipeline(stream, descriptor.get(), queue, opened, failed);
        stream.through(pipeline);
        return Optional.of(pipeline);
      }
      queue.close();
      LOG.log(Level.WARNING, "io_uring: the socket's descriptor was not found: not used");
    } catch (IOException e) {
      LOG.log(
          Level.WARNING,
          "io_uring is not to be had, requests of a connection run one by one: {0}",
          e.getMessage());
    }
    return Optional.empty();
  }

  /// Begins a read; false when it must run as ever, and may: nothing is in flight any more.
  boolean read(long cookie, long offset, long length) throws IOException {
    boolean begun = length <= MAX_REQUEST_BYTES && begin(false, cookie, offset, (int) length);
    return begun || otherwise();
  }

  /// Begins a write of `length` bytes of the input buffer, from `start` on. Else as [#read].
  boolean write(long cookie, long offset, int length, int start) throws IOException {
    if (length > MAX_REQUEST_BYTES || length == 0) {
      return otherwise();
    }
    Slot slot = slot(length);
    if (slot == null) {
      return otherwise();
    }
    payload(slot, length).put(0, stream.in(), start, length);
    return begin(slot, true, cookie, offset, length) || otherwise();
  }

  private boolean begin(boolean write, long cookie, long offset, int length) throws IOException {
    Slot slot = length == 0 ? null : slot(length);
    return slot != null && begin(slot, write, cookie, offset, length);
  }

  private boolean begin(Slot slot, boolean write, long cookie, long offset, int length)
      throws IOException {
    slot.cookie = cookie;
    slot.at = offset;
    boolean begun = false;
    try {
      begun = begin(slot, write, length);
      if (!begun && queue.inFlight() > 0) {
        // One of those may have been in the way: the first write to a new cluster.
        quiesce();
        begun = begin(slot, write, length);
      }
    } finally {
      if (begun) {
        bytesInFlight += length;
      } else {
        free(slot);
      }
    }
    return begun;
  }

  private boolean begin(Slot slot, boolean write, int length) {
    slot.set(write, slot.at, payload(slot, length));
    try {
      return node.begin(slot);
    } catch (BlockException _) {
      return false; // Safe because the request runs as ever next, and fails there.
    }
  }

  private boolean otherwise() throws IOException {
    quiesce();
    return false;
  }

  /// A slot with a buffer for a payload; null when the pool has none.
  private @Nullable Slot slot(int length) throws IOException {
    while (used == MAX_REQUESTS || (bytesInFlight > 0 && bytesInFlight + length > MAX_BYTES)) {
      if (!answer()) {
        queue.await();
      }
    }
    Optional<ByteBuffer> buffer = stream.pool().lendPage(HEAD + length);
    if (buffer.isEmpty()) {
      return null;
    }
    Slot slot = idle;
    if (slot == null) {
      slot = new Slot(queue);
    } else {
      idle = slot.next;
    }
    used++;
    slot.buffer = buffer.get();
    return slot;
  }

  private static ByteBuffer payload(Slot slot, int length) {
    ByteBuffer buffer = slot.buffer;
    if (buffer == null) {
      throw new IllegalStateException("a slot without a buffer");
    }
    return buffer.slice(HEAD, length);
  }

  private void free(Slot slot) {
    ByteBuffer buffer = slot.buffer;
    slot.buffer = null;
    slot.next = idle;
    idle = slot;
    used--;
    if (buffer != null) {
      stream.pool().giveBack(buffer);
    }
  }

  /// Returns when nothing is in flight, and all that ended is answered (though perhaps not sent).
  void quiesce() throws IOException {
    while (queue.inFlight() > 0) {
      queue.await();
    }
    answer();
  }

  /// Answers what has ended; false when nothing had. Not within itself: sending an answer may wait
  /// for the socket, and come by here.
  private boolean answer() throws IOException {
    if (answering) {
      return false;
    }
    answering = true;
    boolean some = false;
    try {
      while (true) {
        Optional<QueuedRequest> ended = queue.ended();
        if (ended.isEmpty()) {
          return some;
        }
        some = true;
        answer((Slot) ended.get());
      }
    } finally {
      answering = false;
    }
  }

  private void answer(Slot slot) throws IOException {
    bytesInFlight -= slot.length();
    frames.answer(slot.cookie, slot.at);
    try {
      Optional<BlockException> failure =
          slot.failure().isPresent() ? again(slot) : Optional.empty();
      if (failure.isPresent()) {
        failed.accept(failure.get());
        NbdErrno errno = NbdErrno.of(failure.get());
        if (slot.write()) {
          frames.error(errno);
        } else {
          frames.errorAt(errno, slot.at);
        }
      } else if (slot.write()) {
        frames.done(false);
      } else {
        answerRead(slot);
      }
    } finally {
      free(slot);
    }
  }

  /// Makes a request that failed again as ever: there it is decided what becomes of it. That may
  /// wait for a drain, so nothing is in flight then.
  private Optional<BlockException> again(Slot slot) throws IOException {
    while (queue.inFlight() > 0) {
      queue.await();
    }
    ByteBuffer payload = payload(slot, slot.length());
    try {
      if (slot.write()) {
        node.write(slot.at, payload);
      } else {
        node.read(slot.at, payload);
      }
      return Optional.empty();
    } catch (BlockException e) {
      return Optional.of(e);
    }
  }

  private void answerRead(Slot slot) throws IOException {
    int length = slot.length();
    int head = framing.chunked() ? framing.chunkBytes() + Wire.Size.OFFSET : Wire.Size.SIMPLE_REPLY;
    boolean copied = length <= COPIED && stream.reserve(head + length);
    if (!copied) {
      stream.reserve(head);
    }
    ByteBuffer out = stream.out();
    int at = out.position();
    if (framing.chunked()) {
      frames.putChunk(at, true, Wire.Chunk.OFFSET_DATA, Wire.Size.OFFSET + length);
      out.putLong(at + framing.chunkBytes(), slot.at);
    } else {
      frames.putSimple(at);
    }
    ByteBuffer payload = payload(slot, length);
    if (copied) {
      out.put(at + head, payload, 0, length).position(at + head + length);
      return;
    }
    // Head and payload in one piece.
    ByteBuffer whole = slot.buffer == null ? payload : slot.buffer;
    whole.clear().limit(HEAD + length).position(HEAD - head);
    whole.put(HEAD - head, out, at, head);
    stream.flush(); // what came before, without the head
    while (whole.hasRemaining()) {
      write(whole);
    }
  }

  // ---- as the stream's channel

  /// Waits for input, and answers requests that end meanwhile: in the ring only, because what the
  /// ring calls readable may have nothing to read after all ([SocketDescriptor#receive]).
  @Override
  public int read(ByteBuffer into) throws IOException {
    while (true) {
      if (answer()) { // some end as they begin
        stream.flush();
      }
      if (queue.takeReadable()) {
        int count = descriptor.receive(into);
        if (count != 0) {
          return count;
        }
      }
      queue.watchReadable(descriptor);
      queue.await();
    }
  }

  /// Sends some of `from`. While it waits for the socket requests may end, and are answered later.
  @Override
  public int write(ByteBuffer from) throws IOException {
    while (queue.inFlight() > 0) {
      int sent = descriptor.send(from);
      if (sent > 0) {
        return sent;
      }
      queue.watchWritable(descriptor);
      queue.await();
    }
    return socket.write(from);
  }

  @Override
  public boolean isOpen() {
    return socket.isOpen();
  }

  /// Waits for what is in flight and answers nothing.
  @Override
  public void close() throws IOException {
    try (queue;
        descriptor) {
      stream.through(socket);
      while (queue.inFlight() > 0) {
        queue.await();
      }
      for (var ended = queue.ended(); ended.isPresent(); ended = queue.ended()) {
        free((Slot) ended.get());
      }
    }
  }
}
