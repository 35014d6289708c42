// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.util.UUID;

/// Reads XDR values one after another. Every count is held against the bytes that are there before
/// anything is allocated by it.
///
/// Spec: RFC 4506. Padding bytes are not looked at, as in libvirt's own reader.
final class XdrReader {
  private final ByteBuffer bytes;

  /// Reads from the buffer's position to its limit; the caller's buffer does not move.
  XdrReader(ByteBuffer bytes) {
    this.bytes = bytes.slice().order(ByteOrder.BIG_ENDIAN);
  }

  int remaining() {
    return bytes.remaining();
  }

  int readInt() throws XdrException {
    need(4);
    return bytes.getInt();
  }

  long readHyper() throws XdrException {
    need(8);
    return bytes.getLong();
  }

  double readDouble() throws XdrException {
    need(8);
    return bytes.getDouble();
  }

  /// The word before an optional value. Any non-zero word means present: one client in the field
  /// sends 0x01000000.
  boolean readPresent() throws XdrException {
    return readInt() != 0;
  }

  /// The count of an array whose elements take at least `least` bytes each.
  int readCount(int limit, int least) throws XdrException {
    long count = Integer.toUnsignedLong(readInt());
    if (count > limit) {
      throw new XdrException("array of " + count + " elements passes the limit of " + limit);
    }
    if (count * least > bytes.remaining()) {
      throw new XdrException(
          "array of " + count + " elements in " + bytes.remaining() + " remaining bytes");
    }
    return (int) count;
  }

  byte[] readOpaque(int limit) throws XdrException {
    byte[] value = new byte[readCount(limit, 1)];
    bytes.get(value);
    skipPadding(value.length);
    return value;
  }

  String readString() throws XdrException {
    int length = readCount(Limits.STRING_BYTES, 1);
    ByteBuffer raw = bytes.slice(bytes.position(), length);
    bytes.position(bytes.position() + length);
    skipPadding(length);
    String text;
    try {
      text = UTF_8.newDecoder().decode(raw).toString();
    } catch (CharacterCodingException e) {
      throw new XdrException("string of " + length + " bytes is not UTF-8");
    }
    if (text.indexOf('\0') >= 0) {
      throw new XdrException("string of " + length + " bytes holds a NUL");
    }
    return text;
  }

  UUID readUuid() throws XdrException {
    return new UUID(readHyper(), readHyper());
  }

  private void skipPadding(int length) throws XdrException {
    int padding = -length & 3;
    need(padding);
    bytes.position(bytes.position() + padding);
  }

  private void need(int count) throws XdrException {
    if (bytes.remaining() < count) {
      throw new XdrException(
          "wanted " + count + " bytes at " + bytes.position() + ", found " + bytes.remaining());
    }
  }
}
