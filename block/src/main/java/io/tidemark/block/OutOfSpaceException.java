// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// The storage beneath is full (ENOSPC, EDQUOT, EFBIG).
public final class OutOfSpaceException extends BlockException {
  private static final long serialVersionUID = 1L;

  public OutOfSpaceException(String message) {
    super(message, null);
  }

  public OutOfSpaceException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
