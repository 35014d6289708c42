// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.Zeroes;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Answers reads. Used by the connection's thread.
///
/// Bytes are read from the node straight into the output buffer behind the reply's header. Reads
/// larger than the buffer are sent in pieces: chunks where replies are structured, else behind one
/// header; when such a read fails behind its header the connection ends, because nothing else can
/// tell the client.
///
/// Large chunks are sent from where the node has their bytes in memory ([BlockNode#lend]): the
/// kernel copies them to the socket while the node holds them, as many as the socket takes at once,
/// and what it does not take is read into the output buffer, so that nothing of the node is held
/// while a slow client is waited for. The replies that lie in a socket are copies: no later change
/// of the disk shows in them. A failure behind such a chunk's header is told too: the chunk is
/// filled up with zeroes, and an error chunk names the place.
///
/// Spec: proto.md, NBD_CMD_READ, NBD_REPLY_TYPE_OFFSET_DATA, NBD_REPLY_TYPE_OFFSET_HOLE,
/// NBD_REPLY_TYPE_ERROR_OFFSET.
final class ReadReplies {
  /// Reads from this length on ask for holes first: below, asking costs more than sending zeroes.
  static final int HOLE_PROBE = 256 << 10;

  /// Holes looked for in one read; what follows is sent as data.
  private static final int MAX_PROBED = 64;

  /// Chunks of at least this length are sent from where they lie, where they can.
  static final int LEAST_LENT = 64 << 10;

  /// Bytes of a chunk so sent.
  private static final int LENT_CHUNK = 512 << 10;

  private final PeerStream stream;
  private final BlockNode node;
  private final Framing framing;
  private final ReplyFrames frames;
  private final Consumer<BlockException> failed;
  private @Nullable PollingSocket direct; // null: everything goes through the output buffer
  private @Nullable SocketBorrower borrower; // null until a chunk is large enough

  // The request at hand.
  private long offset;
  private long length;

  // Extents of a probed read: ends, and whether each is a hole. Empty until a read is probed.
  private long[] probedEnds = {};
  private boolean[] probedHoles = {};
  private int probed;

  /// @param failed hears of what the node throws
  ReadReplies(
      PeerStream stream,
      ServerHandshake.Opened opened,
      ReplyFrames frames,
      Consumer<BlockException> failed) {
    this.stream = stream;
    this.node = opened.export().node();
    this.framing = opened.framing();
    this.frames = frames;
    this.failed = failed;
  }

  /// From now on large chunks may go straight to the socket, which is where the stream ends.
  void lendTo(PollingSocket socket) {
    if (framing.chunked()) {
      direct = socket;
    }
  }

  /// Made when first wanted: an idle connection needs none. Null where chunks are not lent.
  private @Nullable SocketBorrower borrower() {
    if (borrower == null && direct != null) {
      borrower = new SocketBorrower(stream, direct, frames);
    }
    return borrower;
  }

  /// Answers a request that was checked.
  ///
  /// @param unfragmented whether the client wants its data in one chunk
  void answer(long from, long count, boolean unfragmented) throws IOException {
    offset = from;
    length = count;
    if (length == 0) {
      frames.done(true);
    } else if (!framing.chunked()) {
      readSimple();
    } else if (unfragmented) {
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
      failed.accept(e);
      frames.error(NbdErrno.of(e));
      return;
    }
    frames.putSimple(at);
  }

  /// One data chunk, however long.
  private void readUnfragmented() throws IOException {
    int header = framing.chunkBytes() + Wire.Size.OFFSET;
    if (stream.reserve(header + (int) length)) {
      readChunk(offset, (int) length, true);
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
      failed.accept(e);
      frames.error(NbdErrno.of(e));
      return;
    }
    if (header == Wire.Size.SIMPLE_REPLY) {
      frames.putSimple(at);
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
        failed.accept(e);
        throw new NbdProtocolException("read failed behind its reply's header");
      }
      done += piece;
    }
  }

  /// Data chunks for a part of the request, as many as the output buffer makes necessary. Returns
  /// whether it went well; else the request was answered with an error.
  private boolean readChunks(long from, long count, boolean last) throws IOException {
    int header = framing.chunkBytes() + Wire.Size.OFFSET;
    long at = from;
    long end = from + count;
    while (at < end) {
      long wanted = end - at;
      SocketBorrower to = wanted >= LEAST_LENT ? borrower() : null;
      long most = to == null ? wanted : Math.min(wanted, LENT_CHUNK);
      stream.reserve((int) Math.min(header + most, BufferPool.MEDIUM));
      int piece = (int) Math.min(most, stream.out().remaining() - header);
      boolean ends = last && piece == wanted;
      if (!(to == null ? readChunk(at, piece, ends) : lendChunk(to, at, piece, ends))) {
        return false;
      }
      at += piece;
    }
    return true;
  }

  private boolean readChunk(long at, int count, boolean last) throws IOException {
    ByteBuffer out = stream.out();
    int start = out.position();
    out.position(start + framing.chunkBytes() + Wire.Size.OFFSET);
    try {
      readInto(at, count);
    } catch (BlockException e) {
      out.position(start);
      failed.accept(e);
      frames.errorAt(NbdErrno.of(e), at);
      return false;
    }
    putDataHeader(start, at, count, last);
    return true;
  }

  /// As [#readChunk], there being room for all of it in the output buffer; but what the node lends
  /// is sent at once, behind all that waits to be sent.
  private boolean lendChunk(SocketBorrower to, long at, int count, boolean last)
      throws IOException {
    ByteBuffer out = stream.out();
    int start = out.position();
    putDataHeader(start, at, count, false);
    out.position(start + framing.chunkBytes() + Wire.Size.OFFSET);
    boolean headSent = to.crowded();
    if (headSent) {
      stream.flush(); // once a full socket takes again, it takes much
    }
    to.begin(count, last);
    int taken = node.lend(at, count, to);
    headSent |= to.sent();
    int rest = out.position();
    try {
      readInto(at + taken, count - taken);
    } catch (BlockException e) {
      failed.accept(e);
      if (headSent) {
        Zeroes.fill(out.limit(rest + count - taken).position(rest));
        out.limit(out.capacity());
      } else {
        out.position(start);
      }
      frames.errorAt(NbdErrno.of(e), at + taken);
      return false;
    }
    if (last && !to.ended()) {
      stream.reserve(framing.chunkBytes());
      frames.appendChunk(true, Wire.Chunk.NONE, 0);
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
    frames.putChunk(at, done, Wire.Chunk.OFFSET_DATA, Wire.Size.OFFSET + count);
    out.putLong(at + framing.chunkBytes(), from);
  }

  /// Looks for holes in the range; true when there is one worth a chunk of its own.
  private boolean probe() {
    if (probedEnds.length == 0) {
      probedEnds = new long[MAX_PROBED];
      probedHoles = new boolean[MAX_PROBED];
    }
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
        stream.reserve(framing.chunkBytes() + Wire.Size.HOLE);
        frames.appendChunk(false, Wire.Chunk.OFFSET_HOLE, Wire.Size.HOLE);
        stream.out().putLong(at).putInt((int) (to - at));
      }
      at = to;
    }
    if (at < end && !readChunks(at, end - at, false)) {
      return;
    }
    stream.reserve(framing.chunkBytes());
    frames.appendChunk(true, Wire.Chunk.NONE, 0);
  }
}
