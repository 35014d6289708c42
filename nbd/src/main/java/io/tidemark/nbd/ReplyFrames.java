// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;

/// Writes the heads of a server's replies, in the framing that the client agreed on, and the
/// replies that are nothing but a head. Used by the connection's thread.
///
/// Spec: proto.md, "Simple reply message", "Structured reply chunk message", "Extended reply chunk
/// message".
final class ReplyFrames {
  private final PeerStream stream;
  private final Framing framing;

  // Of the request that is answered.
  private long cookie;
  private long offset;

  ReplyFrames(PeerStream stream, Framing framing) {
    this.stream = stream;
    this.framing = framing;
  }

  /// From now on replies go to this request.
  void answer(long requestCookie, long requestOffset) {
    cookie = requestCookie;
    offset = requestOffset;
  }

  /// Puts a chunk's head at a place of the output buffer that was left for it.
  void putChunk(int at, boolean done, int chunk, int payload) {
    putChunk(stream.out(), at, done, chunk, payload);
  }

  /// Puts the chunk that ends a reply, and holds nothing, into a buffer of its own, ready to be
  /// sent.
  void putEnd(ByteBuffer into) {
    putChunk(into, 0, true, Wire.Chunk.NONE, 0);
    into.position(0).limit(framing.chunkBytes());
  }

  private void putChunk(ByteBuffer out, int at, boolean done, int chunk, int payload) {
    int flags = done ? Wire.Chunk.FLAG_DONE : 0;
    boolean extended = framing == Framing.EXTENDED;
    out.putInt(at, extended ? Wire.Magic.EXTENDED_REPLY : Wire.Magic.STRUCTURED_REPLY);
    out.putShort(at + 4, (short) flags);
    out.putShort(at + 6, (short) chunk);
    out.putLong(at + 8, cookie);
    if (extended) {
      out.putLong(at + 16, offset);
      out.putLong(at + 24, payload);
    } else {
      out.putInt(at + 16, payload);
    }
  }

  /// Appends a chunk's head; there is room for it.
  void appendChunk(boolean done, int chunk, int payload) {
    ByteBuffer out = stream.out();
    putChunk(out.position(), done, chunk, payload);
    out.position(out.position() + framing.chunkBytes());
  }

  /// Puts the head of a simple reply without error.
  void putSimple(int at) {
    ByteBuffer out = stream.out();
    out.putInt(at, Wire.Magic.SIMPLE_REPLY);
    out.putInt(at + 4, 0);
    out.putLong(at + 8, cookie);
  }

  /// Success without a payload.
  ///
  /// @param read whether a read is answered, which is never answered simply once chunks are agreed
  ///   on
  void done(boolean read) throws IOException {
    stream.reserve(framing.chunkBytes());
    if (framing == Framing.EXTENDED || (framing == Framing.STRUCTURED && read)) {
      appendChunk(true, Wire.Chunk.NONE, 0);
    } else {
      int at = stream.out().position();
      putSimple(at);
      stream.out().position(at + Wire.Size.SIMPLE_REPLY);
    }
  }

  void error(NbdErrno errno) throws IOException {
    if (framing == Framing.SIMPLE) {
      stream.reserve(Wire.Size.SIMPLE_REPLY);
      stream.out().putInt(Wire.Magic.SIMPLE_REPLY).putInt(errno.number()).putLong(cookie);
      return;
    }
    byte[] text = errno.text().getBytes(UTF_8);
    stream.reserve(framing.chunkBytes() + Wire.Size.ERROR + text.length);
    appendChunk(true, Wire.Chunk.ERROR, Wire.Size.ERROR + text.length);
    stream.out().putInt(errno.number()).putShort((short) text.length).put(text);
  }

  /// An error of a read, and from where on its bytes are not known.
  void errorAt(NbdErrno errno, long where) throws IOException {
    if (framing == Framing.SIMPLE) {
      error(errno);
      return;
    }
    byte[] text = errno.text().getBytes(UTF_8);
    int payload = Wire.Size.ERROR + text.length + Wire.Size.OFFSET;
    stream.reserve(framing.chunkBytes() + payload);
    appendChunk(true, Wire.Chunk.ERROR_OFFSET, payload);
    stream.out().putInt(errno.number()).putShort((short) text.length).put(text).putLong(where);
  }
}
