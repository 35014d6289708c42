// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extents;
import io.tidemark.block.ZeroMode;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/// A client's requests, one after the other on the connection's thread. Between requests it may go
/// without one: [#run].
///
/// Every request that is complete in the input buffer is executed before the replies are sent; so a
/// deep queue costs two system calls a burst beside the disk's own, and a request waits for no
/// hand-off. Payloads are written to the node straight out of the input buffer. No object is made
/// for a request that succeeds, block status and reads of [ReadReplies#LEAST_LENT] bytes apart.
///
/// A request is checked whole before anything is done for it. A write goes to the node when all of
/// its payload is here, so a peer that dies in the middle changes nothing; only payloads that pass
/// [#AT_ONCE] (or what the pool would lend) are written in pieces as they come, each ending at a
/// multiple of [#PIECE_ALIGNMENT]. How reads are answered: [ReadReplies].
///
/// FLUSH covers writes completed on any connection because `BlockNode.flush` does: hence
/// CAN_MULTI_CONN.
///
/// Spec: proto.md, "Transmission phase".
final class ServerTransmission {
  static final int MIN_BLOCK = 1;
  static final int PREFERRED_BLOCK = 4096;

  /// Payloads up to this are written when all of them is here; larger ones as they come, so that
  /// the disk takes one part while the client sends the next.
  static final int AT_ONCE = 128 << 10;

  /// Guest offsets where a write that is applied in pieces is cut.
  static final int PIECE_ALIGNMENT = 64 << 10;

  private static final Logger LOG = System.getLogger(ServerTransmission.class.getName());

  private final PeerStream stream;
  private final ServerHandshake.Opened opened;
  private final BlockNode node;
  private final String peer;
  private final BooleanSupplier mayRest;
  private final Framing framing;
  private final ReplyFrames frames;
  private final ReadReplies reads;
  private final StatusReplies status;
  private @Nullable RequestPipeline pipeline; // null: each request runs on this thread
  private @Nullable PollingSocket polling; // null: a pipeline or TLS is at the socket
  private long failures;

  // The request at hand.
  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  /// @param mayRest whether the connection may go without a thread now, should its client be silent
  ServerTransmission(
      PeerStream stream, ServerHandshake.Opened opened, String peer, BooleanSupplier mayRest) {
    this.stream = stream;
    this.opened = opened;
    this.node = opened.export().node();
    this.peer = peer;
    this.mayRest = mayRest;
    this.framing = opened.framing();
    this.frames = new ReplyFrames(stream, framing);
    this.reads = new ReadReplies(stream, opened, frames, this::logFailure);
    this.status = new StatusReplies(stream, opened, frames);
  }

  /// Serves until the client leaves or the stream is stopped. True when it is neither, but the
  /// client is silent: then nothing is to be done until the socket can be read, and this is called
  /// again, on any thread.
  ///
  /// @throws NbdProtocolException when the client breaks the protocol
  boolean run() throws IOException {
    if (polling != null) {
      polling.resume();
      return serve(polling);
    }
    try (RequestPipeline opening =
        RequestPipeline.open(stream, opened, this::logFailure).orElse(null)) {
      pipeline = opening;
      if (opening != null || stream.encrypted()) {
        serve();
        return false;
      }
    }
    PollingSocket socket =
        new PollingSocket(stream.socket(), PollingSocket.Awake.PROCESS, System::nanoTime);
    polling = socket;
    reads.lendTo(socket);
    stream.through(socket);
    return serve(socket);
  }

  /// Returns whether the connection rests.
  private boolean serve(PollingSocket socket) throws IOException {
    try (socket) {
      serve();
      return socket.rests();
    }
  }

  /// Waits for a request; false when the stream ended, or the connection rests.
  private boolean awaitRequest() throws IOException {
    if (polling != null && !stream.in().hasRemaining() && mayRest.getAsBoolean()) {
      polling.mayRest();
    }
    return stream.fill(Integer.BYTES);
  }

  private void serve() throws IOException {
    while (awaitRequest()) {
      int magic = stream.in().getInt(stream.in().position());
      if (magic != framing.requestMagic()) {
        throw new NbdProtocolException("request magic 0x" + Integer.toHexString(magic));
      }
      if (!stream.fill(framing.requestBytes())) {
        break;
      }
      ByteBuffer in = stream.in();
      int at = in.position();
      flags = Short.toUnsignedInt(in.getShort(at + 4));
      type = Short.toUnsignedInt(in.getShort(at + 6));
      cookie = in.getLong(at + 8);
      offset = in.getLong(at + 16);
      length =
          framing == Framing.EXTENDED
              ? in.getLong(at + 24)
              : Integer.toUnsignedLong(in.getInt(at + 24));
      frames.answer(cookie, offset);
      if (type == Wire.Command.DISC) {
        quiesce();
        stream.flush();
        return;
      }
      if (polling != null) {
        polling.countRequest();
      }
      if (!execute()) {
        break;
      }
    }
    if (polling != null && polling.rests()) {
      stream.shrink();
      return;
    }
    if (stream.in().hasRemaining()) {
      LOG.log(Level.DEBUG, "{0}: left in the middle of a request", peer);
    }
    quiesce();
    stream.flush();
  }

  /// No request is in flight when this returns.
  private void quiesce() throws IOException {
    if (pipeline != null) {
      pipeline.quiesce();
    }
  }

  /// Runs the request whose header is still in front of the input buffer; false when the stream
  /// ended in its payload.
  private boolean execute() throws IOException {
    if (framing == Framing.EXTENDED
        && type != Wire.Command.WRITE
        && (flags & Wire.CommandFlag.PAYLOAD_LENGTH) != 0) {
      return withPayload();
    }
    NbdErrno refused = check();
    if (type == Wire.Command.WRITE) {
      return write(refused);
    }
    stream.in().position(stream.in().position() + framing.requestBytes());
    if (refused != null) {
      frames.error(refused);
      return true;
    }
    if (pipeline != null) {
      if (type == Wire.Command.READ
          && (flags & Wire.CommandFlag.FUA) == 0
          && pipeline.read(cookie, offset, length)) {
        return true;
      }
      quiesce();
    }
    switch (type) {
      case Wire.Command.READ -> reads.answer(offset, length, (flags & Wire.CommandFlag.DF) != 0);
      case Wire.Command.BLOCK_STATUS -> {
        status.wantAll();
        blockStatus();
      }
      default -> change();
    }
    return true;
  }

  /// Why the request must not run; null when it may.
  private @Nullable NbdErrno check() {
    int allowed = Wire.CommandFlag.FUA;
    switch (type) {
      case Wire.Command.READ -> {
        if (framing.chunked()) {
          allowed |= Wire.CommandFlag.DF;
        }
      }
      case Wire.Command.WRITE_ZEROES ->
          allowed |= Wire.CommandFlag.NO_HOLE | Wire.CommandFlag.FAST_ZERO;
      case Wire.Command.BLOCK_STATUS -> allowed |= Wire.CommandFlag.REQ_ONE;
      case Wire.Command.WRITE -> {
        if (framing == Framing.EXTENDED) {
          allowed |= Wire.CommandFlag.PAYLOAD_LENGTH;
        }
      }
      case Wire.Command.FLUSH, Wire.Command.TRIM, Wire.Command.CACHE -> {}
      default -> {
        return NbdErrno.EINVAL;
      }
    }
    if ((flags & ~allowed) != 0) {
      return NbdErrno.EINVAL;
    }
    if (type == Wire.Command.FLUSH) {
      return null; // offset and length are reserved and mean nothing
    }
    boolean changes =
        type == Wire.Command.WRITE
            || type == Wire.Command.TRIM
            || type == Wire.Command.WRITE_ZEROES;
    if (changes && !opened.export().writable()) {
      return NbdErrno.EPERM;
    }
    // The node may have been made smaller since the client was told its size.
    long size = Math.min(opened.size(), node.virtualSize());
    if (offset < 0 || length < 0 || length > size || offset > size - length) {
      return type == Wire.Command.WRITE || type == Wire.Command.WRITE_ZEROES
          ? NbdErrno.ENOSPC
          : NbdErrno.EINVAL;
    }
    if (type == Wire.Command.READ && length > Wire.MAX_PAYLOAD) {
      return NbdErrno.EOVERFLOW;
    }
    if (type == Wire.Command.BLOCK_STATUS && (!status.possible() || length == 0)) {
      return NbdErrno.EINVAL;
    }
    return null;
  }

  // ---- changes

  private void change() throws IOException {
    try {
      switch (type) {
        case Wire.Command.FLUSH -> node.flush();
        case Wire.Command.TRIM -> {
          if (length > 0) {
            node.discard(offset, length);
          }
        }
        case Wire.Command.WRITE_ZEROES -> {
          if ((flags & Wire.CommandFlag.FAST_ZERO) != 0 && !isHole()) {
            frames.error(NbdErrno.ENOTSUP);
            return;
          }
          if (length > 0) {
            boolean keep = (flags & Wire.CommandFlag.NO_HOLE) != 0;
            node.writeZeroes(offset, length, keep ? ZeroMode.NO_UNMAP : ZeroMode.MAY_UNMAP);
          }
        }
        case Wire.Command.CACHE -> {} // a hint: the page cache does without it
        default -> throw new IllegalStateException("command " + type);
      }
      syncIfAsked();
    } catch (BlockException e) {
      replyFailure(e);
      return;
    }
    frames.done(type == Wire.Command.READ);
  }

  private void syncIfAsked() throws BlockException {
    if ((flags & Wire.CommandFlag.FUA) != 0 && type != Wire.Command.FLUSH) {
      node.flush();
    }
  }

  /// Whether the range is a hole already: the one case in which zeroing it is surely faster than
  /// writing, on every kind of node.
  private boolean isHole() throws BlockException {
    if ((flags & Wire.CommandFlag.NO_HOLE) != 0 || length == 0) {
      return length == 0;
    }
    boolean[] data = new boolean[1];
    Extents.walk(
        node,
        offset,
        length,
        (extent, _, _) -> {
          data[0] |= (Allocation.flags(extent) & Wire.State.HOLE) == 0;
          return !data[0];
        });
    return !data[0];
  }

  /// A write; the header is still in front of the input buffer.
  private boolean write(@Nullable NbdErrno refused) throws IOException {
    if (length < 0 || length > Wire.MAX_PAYLOAD) {
      throw new NbdProtocolException(
          "write of " + length + " bytes, at most " + Wire.MAX_PAYLOAD + " are allowed");
    }
    if (refused != null) {
      stream.skip(framing.requestBytes());
      if (!stream.skip(length)) {
        return false;
      }
      frames.error(refused);
      return true;
    }
    int whole = framing.requestBytes() + (int) length;
    if ((length > AT_ONCE && fine()) || !stream.room(whole)) {
      return writeAsItComes();
    }
    if (!stream.fill(whole)) {
      return false;
    }
    ByteBuffer in = stream.in();
    int limit = in.limit();
    int start = in.position() + framing.requestBytes();
    int end = start + (int) length;
    if (pipeline != null) {
      if ((flags & Wire.CommandFlag.FUA) == 0
          && pipeline.write(cookie, offset, (int) length, start)) {
        in.limit(limit).position(end);
        return true;
      }
      quiesce();
    }
    in.limit(end).position(start);
    try {
      if (length > 0) {
        node.write(offset, in);
      }
      syncIfAsked();
    } catch (BlockException e) {
      in.limit(limit).position(end);
      replyFailure(e);
      return true;
    }
    in.limit(limit).position(end);
    frames.done(type == Wire.Command.READ);
    return true;
  }

  /// A large write, each part of it while the client sends the next. After a failure the rest is
  /// passed over.
  private boolean writeAsItComes() throws IOException {
    quiesce();
    stream.skip(framing.requestBytes());
    boolean fine = fine();
    stream.room(fine ? BufferPool.QUARTER : BufferPool.LARGE); // as far as the pool has one
    int most = stream.in().capacity();
    int alignment = most > 2 * PIECE_ALIGNMENT ? PIECE_ALIGNMENT : PREFERRED_BLOCK;
    long at = offset;
    long end = offset + length;
    while (at < end) {
      if (!stream.fill(cut(at, end, fine ? alignment : most, alignment))) {
        return false;
      }
      ByteBuffer in = stream.in();
      int piece = cut(at, end, in.remaining(), alignment);
      int limit = in.limit();
      int pieceEnd = in.position() + piece;
      in.limit(pieceEnd);
      try {
        node.write(at, in);
      } catch (BlockException e) {
        in.limit(limit).position(pieceEnd);
        if (!stream.skip(end - at - piece)) {
          return false;
        }
        replyFailure(e);
        return true;
      }
      in.limit(limit).position(pieceEnd);
      at += piece;
    }
    try {
      syncIfAsked();
    } catch (BlockException e) {
      replyFailure(e);
      return true;
    }
    frames.done(type == Wire.Command.READ);
    return true;
  }

  /// Whether the node loses nothing when a write is cut at [#PIECE_ALIGNMENT].
  private boolean fine() {
    return node.writeUnit() <= PIECE_ALIGNMENT;
  }

  /// Bytes of the next piece: at most so many, and up to the end or a multiple of the alignment.
  private static int cut(long at, long end, int most, int alignment) {
    return end - at <= most ? (int) (end - at) : most - (int) ((at + most) % alignment);
  }

  // ---- block status

  /// Takes the payload of a block status request, which names contexts and the length that is
  /// meant; false when the stream ended in it. Any other request that comes with a payload it has
  /// no use for is refused, its payload passed over.
  ///
  /// Spec: proto.md, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_FLAG_BLOCK_STATUS_PAYLOAD.
  private boolean withPayload() throws IOException {
    if (length < 0 || length > Wire.MAX_PAYLOAD) {
      throw new NbdProtocolException("payload of " + Long.toUnsignedString(length) + " bytes");
    }
    quiesce();
    stream.in().position(stream.in().position() + framing.requestBytes());
    int payload = (int) length;
    int ids = payload - Long.BYTES;
    if (type != Wire.Command.BLOCK_STATUS
        || ids <= 0
        || ids % Integer.BYTES != 0
        || ids > status.maxIdBytes()
        || !stream.room(payload)) {
      if (!stream.skip(payload)) {
        return false;
      }
      frames.error(NbdErrno.EINVAL);
      return true;
    }
    if (!stream.fill(payload)) {
      return false;
    }
    ByteBuffer in = stream.in();
    length = in.getLong();
    boolean known = status.want(in.slice(in.position(), ids));
    in.position(in.position() + ids);
    flags &= ~Wire.CommandFlag.PAYLOAD_LENGTH;
    NbdErrno refused = known ? check() : NbdErrno.EINVAL;
    if (refused == null) {
      blockStatus();
    } else {
      frames.error(refused);
    }
    return true;
  }

  private void blockStatus() throws IOException {
    try {
      status.answer(offset, length, (flags & Wire.CommandFlag.REQ_ONE) != 0);
    } catch (BlockException e) {
      replyFailure(e);
    }
  }

  // ---- failures

  /// The node failed: the peer learns the kind, the log the rest.
  private void replyFailure(BlockException failure) throws IOException {
    logFailure(failure);
    frames.error(NbdErrno.of(failure));
  }

  /// At powers of two, so that a dying disk does not fill the log.
  private void logFailure(BlockException failure) {
    failures++;
    if (Long.bitCount(failures) == 1) {
      LOG.log(
          Level.WARNING,
          "{0}: export {1}: command {2} at {3} of {4} bytes, failure {5}: {6}",
          peer,
          ServerHandshake.quote(opened.export().name()),
          type,
          Long.toUnsignedString(offset),
          Long.toString(length),
          failures,
          failure.getMessage());
    }
  }
}
