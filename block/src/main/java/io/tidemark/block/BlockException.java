// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/// A request on a node that did not succeed. Each kind exists because a caller acts differently on
/// it; the one mapping to a wire's codes is a `switch` over the kinds.
///
/// Text: object, place, what was found, what was wanted; lower case, no full stop.
public abstract sealed class BlockException extends IOException
    permits CorruptImageException,
        ImageBusyException,
        OutOfSpaceException,
        ReadOnlyNodeException,
        TransportException,
        UnsupportedImageException {
  private static final long serialVersionUID = 1L;

  BlockException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
