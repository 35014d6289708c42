// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.time.Duration;
import java.util.Optional;
import java.util.function.LongSupplier;

/// What becomes of a guest's requests that fail at the disk: the guest is told, or not, or the
/// request is held until someone has mended the cause and says so.
///
/// A held request is not in flight and holds no range: the drive can be drained and re-pointed
/// meanwhile, and the request is then made again, on what the drive stands on by then. One policy
/// serves one drive; any thread.
///
/// Spec: QEMU 7.2, `werror=` and `rerror=` of disks, `io-status` of `query-block`.
public final class FailurePolicy {
  /// What to do.
  public enum Choice {
    /// The guest is told.
    REPORT,
    /// The guest is told that it was done; what it reads is zeroes.
    IGNORE,
    /// The request is held.
    HOLD,
    /// Held when there is no space, reported otherwise.
    HOLD_WITHOUT_SPACE
  }

  /// What was done.
  public enum Outcome {
    REPORTED,
    IGNORED,
    HELD
  }

  /// Hears of failures on the guest's thread, and returns at once. Of requests that are held it
  /// hears of the first after each [#retry]; of others once a second at most, since a guest may
  /// fail as fast as it asks.
  public interface Listener {
    void failed(Outcome outcome, boolean noSpace);
  }

  private static final long INTERVAL_NANOS = Duration.ofSeconds(1).toNanos();

  private final Choice onRead;
  private final Choice onWrite;
  private final Listener listener;
  private final LongSupplier nanoTime;

  // All guarded by this object's monitor.
  private int held;
  private boolean heldForSpace; // the first since the last retry
  private long round;
  private boolean ended;
  private long told; // when
  private boolean everTold;

  /// @param onRead not [Choice#HOLD_WITHOUT_SPACE]: a read needs none
  public FailurePolicy(Choice onRead, Choice onWrite, Listener listener) {
    this(onRead, onWrite, listener, System::nanoTime);
  }

  FailurePolicy(Choice onRead, Choice onWrite, Listener listener, LongSupplier nanoTime) {
    this.onRead = onRead;
    this.onWrite = onWrite;
    this.listener = listener;
    this.nanoTime = nanoTime;
  }

  /// Decides about a failure, and waits where the request is to be held.
  ///
  /// @return whether it is to be made again; else it counts as done
  /// @throws BlockException the failure, which the guest is to be told
  boolean again(BlockException failure, boolean read) throws BlockException {
    boolean noSpace = failure instanceof OutOfSpaceException;
    return switch (outcome(read ? onRead : onWrite, noSpace)) {
      case REPORTED -> {
        tellNowAndThen(Outcome.REPORTED, noSpace);
        throw failure;
      }
      case IGNORED -> {
        tellNowAndThen(Outcome.IGNORED, noSpace);
        yield false;
      }
      case HELD -> {
        hold(failure, noSpace);
        yield true;
      }
    };
  }

  private static Outcome outcome(Choice choice, boolean noSpace) {
    return switch (choice) {
      case REPORT -> Outcome.REPORTED;
      case IGNORE -> Outcome.IGNORED;
      case HOLD -> Outcome.HELD;
      case HOLD_WITHOUT_SPACE -> noSpace ? Outcome.HELD : Outcome.REPORTED;
    };
  }

  private void tellNowAndThen(Outcome outcome, boolean noSpace) {
    synchronized (this) {
      long now = nanoTime.getAsLong();
      if (everTold && now - told < INTERVAL_NANOS) {
        return;
      }
      everTold = true;
      told = now;
    }
    listener.failed(outcome, noSpace);
  }

  private void hold(BlockException failure, boolean noSpace) throws BlockException {
    long since;
    boolean first;
    synchronized (this) {
      since = round;
      first = held == 0;
      held++;
      if (first) {
        heldForSpace = noSpace;
      }
    }
    if (first) {
      listener.failed(Outcome.HELD, noSpace);
    }
    Waiting.until(this, () -> round != since || ended);
    synchronized (this) {
      if (ended) {
        throw failure;
      }
    }
  }

  /// Whether requests are held now; then, whether the first of them found no space.
  public synchronized Optional<Boolean> heldForSpace() {
    return held == 0 ? Optional.empty() : Optional.of(heldForSpace);
  }

  /// Has what is held made again.
  public synchronized void retry() {
    round++;
    held = 0;
    notifyAll();
  }

  /// Ends what is held, and what would be, with its failure.
  public synchronized void end() {
    ended = true;
    held = 0;
    notifyAll();
  }
}
