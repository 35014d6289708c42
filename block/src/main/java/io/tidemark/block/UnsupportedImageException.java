// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// Well-formed, but of a kind, feature or size that this program does not handle.
public final class UnsupportedImageException extends BlockException {
  private static final long serialVersionUID = 1L;

  public UnsupportedImageException(String message) {
    super(message, null);
  }

  public UnsupportedImageException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
