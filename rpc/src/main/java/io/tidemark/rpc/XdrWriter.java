// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.UUID;

/// Writes XDR values one after another into a growing array, up to the size of a packet.
///
/// Spec: RFC 4506.
final class XdrWriter {
  private byte[] bytes = new byte[512];
  private int end;

  ByteBuffer written() {
    return ByteBuffer.wrap(bytes, 0, end);
  }

  void writeInt(int value) throws XdrException {
    room(4).putInt(value);
  }

  void writeHyper(long value) throws XdrException {
    room(8).putLong(value);
  }

  void writeDouble(double value) throws XdrException {
    room(8).putDouble(value);
  }

  void writePresent(boolean present) throws XdrException {
    writeInt(present ? 1 : 0);
  }

  void writeCount(int count, int limit) throws XdrException {
    if (count > limit) {
      throw new XdrException("array of " + count + " elements passes the limit of " + limit);
    }
    writeInt(count);
  }

  void writeOpaque(byte[] value, int limit) throws XdrException {
    writeCount(value.length, limit);
    int padded = Math.addExact(value.length, -value.length & 3);
    room(padded).put(value);
  }

  void writeString(String value) throws XdrException {
    writeOpaque(value.getBytes(UTF_8), Limits.STRING_BYTES);
  }

  void writeUuid(UUID value) throws XdrException {
    writeHyper(value.getMostSignificantBits());
    writeHyper(value.getLeastSignificantBits());
  }

  /// Zeroed room for `count` bytes at the end.
  private ByteBuffer room(int count) throws XdrException {
    int wanted = Math.addExact(end, count);
    if (wanted > Limits.PAYLOAD_BYTES) {
      throw new XdrException("message passes the limit of " + Limits.PAYLOAD_BYTES + " bytes");
    }
    if (wanted > bytes.length) {
      bytes = Arrays.copyOf(bytes, Math.min(Limits.PAYLOAD_BYTES, Math.max(wanted, 2 * end)));
    }
    ByteBuffer room = ByteBuffer.wrap(bytes, end, count);
    end = wanted;
    return room;
  }
}
