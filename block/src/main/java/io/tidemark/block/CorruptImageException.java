// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// Bytes of an image contradict its format's specification. Nothing was changed.
public final class CorruptImageException extends BlockException {
  private static final long serialVersionUID = 1L;

  public CorruptImageException(String message) {
    super(message, null);
  }

  public CorruptImageException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
