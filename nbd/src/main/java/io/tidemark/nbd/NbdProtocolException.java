// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;

/// A peer said something that the protocol forbids, or that passes a limit: the connection ends.
final class NbdProtocolException extends IOException {
  private static final long serialVersionUID = 1L;

  NbdProtocolException(String message) {
    super(message);
  }
}
