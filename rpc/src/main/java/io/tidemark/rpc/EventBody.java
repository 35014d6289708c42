// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.nio.ByteBuffer;

/// The body of a domain event: a callback number, save for clients that registered the old way,
/// then what the event carries.
final class EventBody {
  private EventBody() {}

  static ByteBuffer encode(EventKind kind, Record message, boolean old, int callbackId) {
    if (old && !kind.old()) {
      throw new IllegalArgumentException(kind + " has no message for old clients");
    }
    if (kind.payload().isEmpty() || !kind.payload().get().isInstance(message)) {
      throw new IllegalArgumentException(kind + " does not carry " + message.getClass());
    }
    try {
      XdrWriter out = new XdrWriter();
      if (!old) {
        out.writeInt(callbackId);
      }
      encode(kind.payload().get(), message, out);
      return out.written();
    } catch (XdrException e) {
      throw new IllegalArgumentException(kind + ": " + e.getMessage(), e);
    }
  }

  private static <M extends Record> void encode(Class<M> type, Record message, XdrWriter out)
      throws XdrException {
    Structure.of(type).encode(type.cast(message), out);
  }
}
