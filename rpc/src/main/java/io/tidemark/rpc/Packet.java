// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.WritableByteChannel;
import java.util.Arrays;
import java.util.Optional;

/// One message of the protocol: length word, header, payload.
///
/// Numbers of program, type and status are as they came: whether they are known is the receiver's
/// question, as each has its own answer.
///
/// @param payload from its position to its limit
record Packet(
    int program, int version, int procedure, int type, int serial, int status, ByteBuffer payload) {
  /// Types.
  static final int CALL = 0;

  static final int REPLY = 1;
  static final int MESSAGE = 2;
  static final int STREAM = 3;
  static final int CALL_WITH_FDS = 4;

  /// Statuses.
  static final int OK = 0;

  static final int ERROR = 1;

  private static final class At {
    static final int LENGTH = 0; // u32, whole packet, these four bytes too
    static final int PROGRAM = 4;
    static final int VERSION = 8;
    static final int PROCEDURE = 12;
    static final int TYPE = 16;
    static final int SERIAL = 20;
    static final int STATUS = 24;
    static final int END = 28;
  }

  private static final int LENGTH_BYTES = At.PROGRAM;

  /// How much is asked of the channel at once: also bounds what a peer that names a large length
  /// and sends nothing costs.
  private static final int PIECE = 65_536;

  /// The next packet, or empty when the peer closed between two packets.
  ///
  /// @param limit most bytes of a packet, its length word left out
  /// @throws XdrException the length is impossible; nothing more can be read from the channel
  /// @throws EOFException the peer closed within a packet
  static Optional<Packet> read(ReadableByteChannel from, int limit) throws IOException {
    ByteBuffer header = ByteBuffer.allocate(At.END);
    header.limit(LENGTH_BYTES);
    if (!fill(from, header)) {
      return Optional.empty();
    }
    long length = Integer.toUnsignedLong(header.getInt(At.LENGTH));
    if (length < At.END || length > limit + (long) LENGTH_BYTES) {
      throw new XdrException(
          "packet of "
              + length
              + " bytes, wanted "
              + At.END
              + " to "
              + (limit + (long) LENGTH_BYTES));
    }
    header.limit(At.END);
    fillRest(from, header);
    return Optional.of(
        new Packet(
            header.getInt(At.PROGRAM),
            header.getInt(At.VERSION),
            header.getInt(At.PROCEDURE),
            header.getInt(At.TYPE),
            header.getInt(At.SERIAL),
            header.getInt(At.STATUS),
            payload(from, (int) length - At.END)));
  }

  private static ByteBuffer payload(ReadableByteChannel from, int length) throws IOException {
    byte[] bytes = new byte[Math.min(length, PIECE)];
    int have = 0;
    while (have < length) {
      if (have == bytes.length) {
        bytes = Arrays.copyOf(bytes, Math.min(length, 2 * bytes.length));
      }
      int piece = Math.min(PIECE, bytes.length - have);
      fillRest(from, ByteBuffer.wrap(bytes, have, piece));
      have += piece;
    }
    return ByteBuffer.wrap(bytes, 0, length);
  }

  /// False when the channel ends before the first byte.
  private static boolean fill(ReadableByteChannel from, ByteBuffer into) throws IOException {
    int start = into.position();
    while (into.hasRemaining()) {
      if (from.read(into) < 0) {
        if (into.position() == start) {
          return false;
        }
        throw new EOFException("connection closed within a packet");
      }
    }
    return true;
  }

  private static void fillRest(ReadableByteChannel from, ByteBuffer into) throws IOException {
    if (!fill(from, into)) {
      throw new EOFException("connection closed within a packet");
    }
  }

  /// Writes it whole. One thread at a time for a channel.
  void write(WritableByteChannel to) throws IOException {
    ByteBuffer body = payload.duplicate();
    ByteBuffer bytes = ByteBuffer.allocate(Math.min(At.END + body.remaining(), PIECE));
    bytes
        .putInt(At.END + body.remaining())
        .putInt(program)
        .putInt(version)
        .putInt(procedure)
        .putInt(type)
        .putInt(serial)
        .putInt(status);
    while (true) {
      int piece = Math.min(bytes.remaining(), body.remaining());
      bytes.put(body.slice(body.position(), piece));
      body.position(body.position() + piece);
      bytes.flip();
      while (bytes.hasRemaining()) {
        if (to.write(bytes) < 0) {
          throw new EOFException("connection closed");
        }
      }
      if (!body.hasRemaining()) {
        return;
      }
      bytes.clear();
    }
  }

  /// What the packet takes on the wire.
  int bytes() {
    return At.END + payload.remaining();
  }

  private static final ByteBuffer NO_PAYLOAD = ByteBuffer.allocate(0).asReadOnlyBuffer();

  static Packet keepAlive(int procedure) {
    return new Packet(
        Program.KEEPALIVE.number(), Program.VERSION, procedure, MESSAGE, 0, OK, NO_PAYLOAD);
  }

  /// A reply to this call.
  Packet reply(int replyStatus, ByteBuffer body) {
    return new Packet(program, version, procedure, REPLY, serial, replyStatus, body);
  }
}
