// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;

/// Takes bytes of a node from where they lie: see [BlockNode#lend].
public interface Borrower {
  /// Hands bytes, from position to limit, to a system call that copies them and does not wait. They
  /// may not be looked at, and not be used when this has returned. Returns how many were taken,
  /// from the first on.
  int take(ByteBuffer bytes);
}
