// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.Borrower;
import java.io.IOException;
import java.nio.ByteBuffer;

/// Sends what a node lends for a chunk, behind what waits in the stream's output buffer and before
/// the chunk that ends the reply: all with one system call when the socket has room.
///
/// The call copies the bytes and never waits. Used by the connection's thread.
final class SocketBorrower implements Borrower {
  /// Pieces of a chunk that are shorter are better read into the output buffer, all together.
  static final int LEAST_PIECE = 16 << 10;

  private final PeerStream stream;
  private final PollingSocket socket;
  private final ReplyFrames frames;
  private final ByteBuffer ending = ByteBuffer.allocateDirect(Wire.Size.EXTENDED_CHUNK);
  private final ByteBuffer[] gather = {ending, ending, ending};

  // Of the chunk at hand.
  private int left;
  private boolean last;
  private boolean sent;
  private boolean ended;
  private boolean crowded;

  SocketBorrower(PeerStream stream, PollingSocket socket, ReplyFrames frames) {
    this.stream = stream;
    this.socket = socket;
    this.frames = frames;
  }

  /// The next bytes are those of a chunk whose head is in the output buffer already, or sent.
  ///
  /// @param endsReply whether nothing follows it in its reply
  void begin(int count, boolean endsReply) {
    left = count;
    last = endsReply;
    sent = false;
    ended = false;
    crowded = false;
  }

  /// Whether anything was sent since [#begin]: the output buffer holds no longer what it held.
  boolean sent() {
    return sent;
  }

  /// Whether the reply's end was sent with the last bytes of the chunk.
  boolean ended() {
    return ended;
  }

  /// Whether the socket had no room for all that was lent last.
  boolean crowded() {
    return crowded;
  }

  @Override
  public int take(ByteBuffer bytes) {
    int count = bytes.remaining();
    if (count < LEAST_PIECE && count < left) {
      return 0;
    }
    boolean ends = last && count == left;
    if (ends) {
      frames.putEnd(ending.clear());
    } else {
      ending.limit(0);
    }
    ByteBuffer out = stream.out().flip();
    gather[0] = out;
    gather[1] = bytes;
    gather[2] = ending;
    try {
      sent |= socket.offer(gather) > 0;
    } catch (IOException _) {
      // Safe because nothing was taken: whoever sends, or reads, the same again hears of it.
    }
    gather[1] = ending; // nothing of the node is kept
    out.compact();
    crowded = bytes.hasRemaining();
    if (ends && !crowded && ending.position() > 0) {
      out.put(ending); // the socket may have taken a part of it
      ended = true;
    }
    int taken = count - bytes.remaining();
    left -= taken;
    return taken;
  }
}
