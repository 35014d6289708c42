// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// Exclusive locks on ranges of one disk: overlapping holders wait for each other, in order of
/// arrival; others do not.
public final class RangeLock {
  /// A held range; closing lets it go.
  public interface Held extends AutoCloseable {
    @Override
    void close();
  }

  /// Waits until no other holder overlaps the range, uninterruptibly.
  public Held lock(long offset, long length) {
    throw new UnsupportedOperationException();
  }
}
