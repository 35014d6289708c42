// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;

/// A client's connection ended before its request did; whether the server executed it is not known.
final class ConnectionLostException extends IOException {
  private static final long serialVersionUID = 1L;

  ConnectionLostException(String message, Throwable cause) {
    super(message, cause);
  }

  /// The same loss, for another request.
  ConnectionLostException again() {
    return new ConnectionLostException(text(), this);
  }

  String text() {
    return String.valueOf(getMessage());
  }

  /// Whether the server broke the protocol: then asking again is no use.
  boolean byProtocol() {
    for (Throwable cause = getCause(); cause != null; cause = cause.getCause()) {
      if (cause instanceof NbdProtocolException) {
        return true;
      }
    }
    return false;
  }
}
