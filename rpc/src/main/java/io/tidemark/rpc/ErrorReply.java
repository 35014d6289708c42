// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.nio.ByteBuffer;
import java.util.Optional;

/// The body of a reply that is an error.
///
/// Clients read number, domain, text and level; the parts of the text (`str1` to `str3`) stay
/// absent.
final class ErrorReply {
  private static final int UNUSED = -1;

  private ErrorReply() {}

  static ByteBuffer encode(RpcException failure) {
    String message = failure.getMessage();
    if (message.length() > Limits.STRING_BYTES / 4) {
      message = message.substring(0, Limits.STRING_BYTES / 4);
    }
    try {
      XdrWriter out = new XdrWriter();
      Structure.of(Wire.ErrorBody.class)
          .encode(
              new Wire.ErrorBody(
                  failure.code(),
                  failure.domain(),
                  Optional.of(message),
                  RpcException.LEVEL_ERROR,
                  Optional.empty(),
                  Optional.empty(),
                  Optional.empty(),
                  Optional.empty(),
                  UNUSED,
                  UNUSED,
                  Optional.empty()),
              out);
      return out.written();
    } catch (XdrException e) {
      throw new AssertionError("error reply", e);
    }
  }

  static RpcException decode(ByteBuffer payload) throws XdrException {
    Wire.ErrorBody body = Structure.of(Wire.ErrorBody.class).decode(new XdrReader(payload));
    return new RpcException(body.code(), body.domain(), body.message().orElse("unknown error"));
  }
}
