// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// The storage beneath failed or went away: EIO, a missing file, a lost peer, a failed flush.
public final class TransportException extends BlockException {
  private static final long serialVersionUID = 1L;

  public TransportException(String message) {
    super(message, null);
  }

  public TransportException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
