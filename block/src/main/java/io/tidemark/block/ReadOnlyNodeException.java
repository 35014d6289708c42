// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.jspecify.annotations.Nullable;

/// A write, zero, discard or resize reached a node that was opened read-only.
public final class ReadOnlyNodeException extends BlockException {
  private static final long serialVersionUID = 1L;

  public ReadOnlyNodeException(String message) {
    super(message, null);
  }

  public ReadOnlyNodeException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
