// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.concurrent.atomic.LongAdder;
import org.jspecify.annotations.Nullable;

/// What becomes of the guest requests of one drive that have failed: each is put before the drive's
/// [FailurePolicy], made again, and put before it again when it fails again.
///
/// **Invariants.** A request that comes here is in flight no more, holds no range, and has its
/// buffer as it was: the drive can be drained and re-pointed while it is held, and what is made
/// again goes to what the drive stands on by then. Each failure that leaves here for the guest is
/// counted, once. A failure is the guest's, whatever the policy, when the drive has ended, or when
/// the node is read-only: no waiting mends that.
///
/// **Threads.** The thread of the request, whichever it is; nobody else waits for it. Nothing here
/// is on the way of a request that does not fail.
final class FailedRequests {
  /// One making of a request; it goes in flight and out again.
  interface Attempt {
    void make() throws BlockException;
  }

  private final Flight flight;
  private final LongAdder told = new LongAdder();

  // Null where the guest is told of each failure.
  private volatile @Nullable FailurePolicy policy;

  FailedRequests(Flight flight) {
    this.flight = flight;
  }

  /// What becomes of failures from now on.
  void goBy(FailurePolicy newPolicy) {
    policy = newPolicy;
  }

  /// Decides about a request that has failed, and makes it again as often as that is said.
  ///
  /// @return whether it was done in the end; else it only counts as done
  /// @throws BlockException the last failure, to be told to the guest
  boolean again(BlockException first, boolean read, Attempt attempt) throws BlockException {
    BlockException failure = first;
    while (decide(failure, read)) {
      try {
        attempt.make();
        return true;
      } catch (BlockException e) {
        failure = e;
      }
    }
    return false;
  }

  private boolean decide(BlockException failure, boolean read) throws BlockException {
    FailurePolicy present = policy;
    boolean decided = false;
    try {
      if (present == null || flight.closed() || failure instanceof ReadOnlyNodeException) {
        throw failure;
      }
      boolean again = present.again(failure, read);
      decided = true;
      return again;
    } finally {
      if (!decided) {
        told.increment();
      }
    }
  }

  /// Ends what is held, and what would be, with its failure. Once the drive has ended.
  void end() {
    FailurePolicy present = policy;
    if (present != null) {
      present.end();
    }
  }

  /// Failures that the guest was told.
  long told() {
    return told.sum();
  }
}
