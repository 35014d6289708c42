// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// Another program or node holds the image in a way that excludes this use.
public final class ImageBusyException extends BlockException {
  private static final long serialVersionUID = 1L;

  public ImageBusyException(String message) {
    super(message, null);
  }

  public ImageBusyException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
