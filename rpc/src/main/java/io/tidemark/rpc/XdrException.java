// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.IOException;

/// Bytes that are not the structure they should be, or a value that its structure cannot hold.
public final class XdrException extends IOException {
  private static final long serialVersionUID = 1L;

  public XdrException(String message) {
    super(message);
  }
}
