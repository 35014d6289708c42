// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.ZeroMode;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;

/// A client's requests, one after the other on the connection's thread.
///
/// Every request that is complete in the input buffer is executed before the replies are sent; so a
/// deep queue costs two system calls a burst beside the disk's own, and a request waits for no
/// hand-off. Bytes are read from the node straight into the output buffer behind the reply's
/// header, and written to it straight out of the input buffer. No object is made for a request that
/// succeeds, block status apart.
///
/// A request is checked whole before anything is done for it. A write goes to the node when all of
/// its payload is here, so a peer that dies in the middle changes nothing; only payloads that pass
/// [BufferPool#LARGE] (or what the pool would lend) are written in pieces as they come, each ending
/// at a multiple of [#PIECE_ALIGNMENT]. Reads larger than the output buffer are sent in pieces:
/// chunks where replies are structured, else behind one header; when such a read fails behind its
/// header the connection ends, because nothing else can tell the client.
///
/// FLUSH covers writes completed on any connection because `BlockNode.flush` does: hence
/// CAN_MULTI_CONN.
///
/// Spec: proto.md, "Transmission phase".
final class ServerTransmission {
  static final int MIN_BLOCK = 1;
  static final int PREFERRED_BLOCK = 4096;

  /// Guest offsets where a write that is applied in pieces is cut.
  static final int PIECE_ALIGNMENT = 64 << 10;

  /// Reads from this length on ask for holes first: below, asking costs more than sending zeroes.
  static final int HOLE_PROBE = 256 << 10;

  /// Holes looked for in one read; what follows is sent as data.
  private static final int MAX_PROBED = 64;

  /// Extents of one context in one block status reply.
  static final int MAX_EXTENTS = 16 << 10;

  private static final Logger LOG = System.getLogger(ServerTransmission.class.getName());

  private final PeerStream stream;
  private final ServerHandshake.Opened opened;
  private final BlockNode node;
  private final String peer;
  private long failures;

  // The request at hand.
  private int flags;
  private int type;
  private long cookie;
  private long offset;
  private long length;

  // Extents of a probed read: ends, and whether each is a hole.
  private final long[] probedEnds = new long[MAX_PROBED];
  private final boolean[] probedHoles = new boolean[MAX_PROBED];
  private int probed;

  ServerTransmission(PeerStream stream, ServerHandshake.Opened opened, String peer) {
    this.stream = stream;
    this.opened = opened;
    this.node = opened.export().node();
    this.peer = peer;
  }

  /// Serves until the client leaves or the stream is stopped.
  ///
  /// @throws NbdProtocolException when the client breaks the protocol
  void run() throws IOException {
    while (stream.fill(Wire.Size.REQUEST)) {
      ByteBuffer in = stream.in();
      int at = in.position();
      int magic = in.getInt(at);
      if (magic != Wire.Magic.REQUEST) {
        throw new NbdProtocolException("request magic 0x" + Integer.toHexString(magic));
      }
      flags = Short.toUnsignedInt(in.getShort(at + 4));
      type = Short.toUnsignedInt(in.getShort(at + 6));
      cookie = in.getLong(at + 8);
      offset = in.getLong(at + 16);
      length = Integer.toUnsignedLong(in.getInt(at + 24));
      if (type == Wire.Command.DISC) {
        stream.flush();
        return;
      }
      if (!execute()) {
        break;
      }
    }
    if (stream.in().hasRemaining()) {
      LOG.log(Level.DEBUG, "{0}: left in the middle of a request", peer);
    }
    stream.flush();
  }

  /// Runs the request whose header is still in front of the input buffer; false when the stream
  /// ended in its payload.
  private boolean execute() throws IOException {
    NbdErrno refused = check();
    if (type == Wire.Command.WRITE) {
      return write(refused);
    }
    stream.in().position(stream.in().position() + Wire.Size.REQUEST);
    if (refused != null) {
      replyError(refused);
      return true;
    }
    switch (type) {
      case Wire.Command.READ -> read();
      case Wire.Command.BLOCK_STATUS -> blockStatus();
      default -> change();
    }
    return true;
  }

  /// Why the request must not run; null when it may.
  private @Nullable NbdErrno check() {
    int allowed = Wire.CommandFlag.FUA;
    switch (type) {
      case Wire.Command.READ -> {
        if (opened.structured()) {
          allowed |= Wire.CommandFlag.DF;
        }
      }
      case Wire.Command.WRITE_ZEROES ->
          allowed |= Wire.CommandFlag.NO_HOLE | Wire.CommandFlag.FAST_ZERO;
      case Wire.Command.BLOCK_STATUS -> allowed |= Wire.CommandFlag.REQ_ONE;
      case Wire.Command.WRITE, Wire.Command.FLUSH, Wire.Command.TRIM, Wire.Command.CACHE -> {}
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
    if (offset < 0 || length > size || offset > size - length) {
      return type == Wire.Command.WRITE || type == Wire.Command.WRITE_ZEROES
          ? NbdErrno.ENOSPC
          : NbdErrno.EINVAL;
    }
    if (type == Wire.Command.READ && length > Wire.MAX_PAYLOAD) {
      return NbdErrno.EOVERFLOW;
    }
    if (type == Wire.Command.BLOCK_STATUS && (opened.contexts().isEmpty() || length == 0)) {
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
            replyError(NbdErrno.ENOTSUP);
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
    replyDone();
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
    if (length > Wire.MAX_PAYLOAD) {
      throw new NbdProtocolException(
          "write of " + length + " bytes, at most " + Wire.MAX_PAYLOAD + " are allowed");
    }
    if (refused != null) {
      stream.skip(Wire.Size.REQUEST);
      if (!stream.skip(length)) {
        return false;
      }
      replyError(refused);
      return true;
    }
    int whole = Wire.Size.REQUEST + (int) length;
    if (!stream.room(whole)) {
      return writeInPieces();
    }
    if (!stream.fill(whole)) {
      return false;
    }
    ByteBuffer in = stream.in();
    int limit = in.limit();
    int start = in.position() + Wire.Size.REQUEST;
    int end = start + (int) length;
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
    replyDone();
    return true;
  }

  /// A write larger than the buffer. After a failure the rest is passed over.
  private boolean writeInPieces() throws IOException {
    stream.skip(Wire.Size.REQUEST);
    stream.room(BufferPool.LARGE); // as far as the pool has one
    int most = stream.in().capacity();
    int alignment = most > 2 * PIECE_ALIGNMENT ? PIECE_ALIGNMENT : PREFERRED_BLOCK;
    long at = offset;
    long end = offset + length;
    while (at < end) {
      int piece = (int) Math.min(end - at, most);
      if (at + piece < end) {
        piece -= (int) ((at + piece) % alignment);
      }
      if (!stream.fill(piece)) {
        return false;
      }
      ByteBuffer in = stream.in();
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
    replyDone();
    return true;
  }

  // ---- reads

  private void read() throws IOException {
    if (length == 0) {
      replyDone();
    } else if (!opened.structured()) {
      readSimple();
    } else if ((flags & Wire.CommandFlag.DF) != 0) {
      readUnfragmented();
    } else if (length >= HOLE_PROBE && probe()) {
      readAroundHoles();
    } else {
      readChunks(offset, length, true);
    }
  }

  private void readSimple() throws IOException {
    int payload = (int) length;
    if (!stream.reserve(Wire.Size.SIMPLE_REPLY + payload)) {
      readBehindHeader(Wire.Size.SIMPLE_REPLY);
      return;
    }
    ByteBuffer out = stream.out();
    int at = out.position();
    out.position(at + Wire.Size.SIMPLE_REPLY);
    try {
      readInto(offset, payload);
    } catch (BlockException e) {
      out.position(at);
      replyFailure(e);
      return;
    }
    out.putInt(at, Wire.Magic.SIMPLE_REPLY);
    out.putInt(at + 4, 0);
    out.putLong(at + 8, cookie);
  }

  /// One data chunk, however long.
  private void readUnfragmented() throws IOException {
    int header = Wire.Size.CHUNK + Wire.Size.OFFSET;
    if (stream.reserve(header + (int) length)) {
      readChunks(offset, length, true);
    } else {
      readBehindHeader(header);
    }
  }

  /// A payload larger than the output buffer behind one header. A failure of the first piece is
  /// still answered; a later one ends the connection.
  private void readBehindHeader(int header) throws IOException {
    stream.reserve(BufferPool.MEDIUM);
    ByteBuffer out = stream.out();
    int at = out.position();
    int first = (int) Math.min(length, out.remaining() - header);
    out.position(at + header);
    try {
      readInto(offset, first);
    } catch (BlockException e) {
      out.position(at);
      replyFailure(e);
      return;
    }
    if (header == Wire.Size.SIMPLE_REPLY) {
      out.putInt(at, Wire.Magic.SIMPLE_REPLY);
      out.putInt(at + 4, 0);
      out.putLong(at + 8, cookie);
    } else {
      putDataHeader(at, offset, (int) length, true);
    }
    long done = first;
    while (done < length) {
      stream.flush();
      int piece = (int) Math.min(length - done, out.capacity());
      try {
        readInto(offset + done, piece);
      } catch (BlockException e) {
        logFailure(e);
        throw new NbdProtocolException("read failed behind its reply's header");
      }
      done += piece;
    }
  }

  /// Data chunks for a part of the request, as many as the output buffer makes necessary. Returns
  /// whether it went well; else the request was answered with an error.
  private boolean readChunks(long from, long count, boolean last) throws IOException {
    int header = Wire.Size.CHUNK + Wire.Size.OFFSET;
    long at = from;
    long end = from + count;
    while (at < end) {
      long wanted = end - at;
      stream.reserve((int) Math.min(header + wanted, BufferPool.MEDIUM));
      ByteBuffer out = stream.out();
      int start = out.position();
      int piece = (int) Math.min(wanted, out.remaining() - header);
      out.position(start + header);
      try {
        readInto(at, piece);
      } catch (BlockException e) {
        out.position(start);
        replyFailure(e);
        return false;
      }
      at += piece;
      putDataHeader(start, at - piece, piece, last && at == end);
    }
    return true;
  }

  /// Reads bytes to the output buffer's position and moves it behind them.
  private void readInto(long from, int count) throws BlockException {
    ByteBuffer out = stream.out();
    int end = out.position() + count;
    out.limit(end);
    try {
      node.read(from, out);
    } finally {
      out.limit(out.capacity());
    }
    if (out.position() != end) {
      throw new IllegalStateException(
          node.name() + ": read left " + (end - out.position()) + " of " + count + " bytes");
    }
  }

  private void putDataHeader(int at, long from, int count, boolean done) {
    ByteBuffer out = stream.out();
    putChunk(at, done, Wire.Chunk.OFFSET_DATA, Wire.Size.OFFSET + count);
    out.putLong(at + Wire.Size.CHUNK, from);
  }

  /// Looks for holes in the range; true when there is one worth a chunk of its own.
  private boolean probe() {
    probed = 0;
    try {
      Extents.walk(node, offset, length, (extent, _, _) -> note(extent));
    } catch (BlockException e) {
      return false; // the read itself will say
    }
    for (int i = 0; i < probed; i++) {
      if (probedHoles[i]) {
        return true;
      }
    }
    return false;
  }

  private boolean note(Extent extent) {
    boolean hole = (Allocation.flags(extent) & Wire.State.ZERO) != 0;
    if (probed > 0 && probedHoles[probed - 1] == hole) {
      probedEnds[probed - 1] = extent.end();
      return true;
    }
    if (probed == MAX_PROBED) {
      return false;
    }
    probedEnds[probed] = extent.end();
    probedHoles[probed] = hole;
    probed++;
    return true;
  }

  private void readAroundHoles() throws IOException {
    long at = offset;
    long end = offset + length;
    for (int i = 0; i < probed && at < end; i++) {
      long to = Math.min(end, probedEnds[i]);
      if (to <= at) {
        continue;
      }
      if (!probedHoles[i]) {
        if (!readChunks(at, to - at, false)) {
          return;
        }
      } else {
        stream.reserve(Wire.Size.CHUNK + Wire.Size.HOLE);
        appendChunk(false, Wire.Chunk.OFFSET_HOLE, Wire.Size.HOLE);
        stream.out().putLong(at).putInt((int) (to - at));
      }
      at = to;
    }
    if (at < end && !readChunks(at, end - at, false)) {
      return;
    }
    stream.reserve(Wire.Size.CHUNK);
    appendChunk(true, Wire.Chunk.NONE, 0);
  }

  // ---- block status

  private void blockStatus() throws IOException {
    boolean one = (flags & Wire.CommandFlag.REQ_ONE) != 0;
    int count = opened.contexts().size();
    for (int i = 0; i < count; i++) {
      MetaContext context = opened.contexts().get(i);
      int header = Wire.Size.CHUNK + 4;
      stream.reserve(header + (one ? 1 : MAX_EXTENTS) * Wire.Size.EXTENT);
      ByteBuffer out = stream.out();
      int at = out.position();
      int room = (out.remaining() - header) / Wire.Size.EXTENT;
      out.position(at + header);
      var extents = new ExtentList(out, one ? 1 : Math.min(room, MAX_EXTENTS));
      try {
        if (context.bitmap() == null) {
          extents.allocation(node, offset, length);
        } else {
          extents.dirty(context.bitmap(), offset, length);
        }
      } catch (BlockException e) {
        out.position(at);
        replyFailure(e);
        return;
      }
      if (extents.count() == 0) {
        throw new IllegalStateException(node.name() + ": no extent at " + offset);
      }
      putChunk(at, i == count - 1, Wire.Chunk.BLOCK_STATUS, 4 + extents.count() * Wire.Size.EXTENT);
      out.putInt(at + Wire.Size.CHUNK, context.id());
    }
  }

  // ---- replies

  private void putChunk(int at, boolean done, int chunk, int payload) {
    ByteBuffer out = stream.out();
    out.putInt(at, Wire.Magic.STRUCTURED_REPLY);
    out.putShort(at + 4, (short) (done ? Wire.Chunk.FLAG_DONE : 0));
    out.putShort(at + 6, (short) chunk);
    out.putLong(at + 8, cookie);
    out.putInt(at + 16, payload);
  }

  private void appendChunk(boolean done, int chunk, int payload) {
    ByteBuffer out = stream.out();
    putChunk(out.position(), done, chunk, payload);
    out.position(out.position() + Wire.Size.CHUNK);
  }

  /// Success without a payload.
  private void replyDone() throws IOException {
    stream.reserve(Wire.Size.CHUNK);
    if (opened.structured() && type == Wire.Command.READ) {
      appendChunk(true, Wire.Chunk.NONE, 0);
    } else {
      stream.out().putInt(Wire.Magic.SIMPLE_REPLY).putInt(0).putLong(cookie);
    }
  }

  /// The node failed: the peer learns the kind, the log the rest.
  private void replyFailure(BlockException failure) throws IOException {
    logFailure(failure);
    replyError(NbdErrno.of(failure));
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

  private void replyError(NbdErrno errno) throws IOException {
    if (!opened.structured()) {
      stream.reserve(Wire.Size.SIMPLE_REPLY);
      stream.out().putInt(Wire.Magic.SIMPLE_REPLY).putInt(errno.number()).putLong(cookie);
      return;
    }
    byte[] text = errno.text().getBytes(UTF_8);
    stream.reserve(Wire.Size.CHUNK + Wire.Size.ERROR + text.length);
    appendChunk(true, Wire.Chunk.ERROR, Wire.Size.ERROR + text.length);
    stream.out().putInt(errno.number()).putShort((short) text.length).put(text);
  }
}
