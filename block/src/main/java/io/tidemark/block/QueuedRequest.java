// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A read or write that runs while the thread that made it goes on: see [RequestQueue] and
/// [BlockNode#begin].
///
/// Used by the thread of its queue, and used again after it ended. On its way down each node may
/// move the offset, and leaves word of what is to be done at the end; that is done in the reverse
/// order as soon as the end is noticed, also when the request failed.
public class QueuedRequest {
  /// Nodes that may leave word.
  private static final int MAX_ENDINGS = 16;

  /// Of which so many are left for one more of a format, and those of its file.
  private static final int ENDINGS_BENEATH = 3;

  /// What a node does when a request ends that it let pass. It may [#fail] the request, and must
  /// not wait: other requests of the thread are in flight.
  public interface Ending {
    /// @param number as it was left
    /// @param held as it was left; null when nothing was
    void ended(QueuedRequest request, boolean done, long number, RangeLock.@Nullable Held held);
  }

  private final RequestQueue queue;
  private final Ending[] endings = new Ending[MAX_ENDINGS];
  private final long[] numbers = new long[MAX_ENDINGS];
  private final RangeLock.@Nullable Held[] held = new RangeLock.@Nullable Held[MAX_ENDINGS];
  private int depth;

  private boolean write;
  private long offset;
  private int length;
  private @Nullable ByteBuffer bytes; // null: not in use
  private @Nullable DirectFile file; // null: not begun
  private @Nullable BlockException failure; // null: none so far

  public QueuedRequest(RequestQueue queue) {
    this.queue = queue;
  }

  /// Makes this a read into `into`, or a write of `into`, from position to limit. The buffer is
  /// direct, and the caller leaves it alone until the request has ended.
  public void set(boolean isWrite, long atOffset, ByteBuffer into) {
    write = isWrite;
    offset = atOffset;
    length = into.remaining();
    bytes = into;
    failure = null;
    depth = 0;
  }

  public boolean write() {
    return write;
  }

  /// Where it is in the node that it was handed to.
  public long offset() {
    return offset;
  }

  public int length() {
    return length;
  }

  /// Why it failed; empty when it did what it was asked for. Once it has ended.
  public Optional<BlockException> failure() {
    return Optional.ofNullable(failure);
  }

  RequestQueue queue() {
    return queue;
  }

  ByteBuffer bytes() {
    return Objects.requireNonNull(bytes);
  }

  /// For a node that hands it on to one beneath, whose offsets are others; before that.
  public void moveTo(long newOffset) {
    offset = newOffset;
  }

  /// Whether a format, of which a chain may have many, can leave word.
  public boolean takesEnding() {
    return depth < MAX_ENDINGS - ENDINGS_BENEATH;
  }

  /// Endings left so far: for [#forget].
  public int mark() {
    return depth;
  }

  /// Leaves word of what is to be done at the end. Before the request is handed on.
  ///
  /// @param number for the ending
  /// @param range for the ending too; null: none
  public void atEnd(Ending ending, long number, RangeLock.@Nullable Held range) {
    if (depth == MAX_ENDINGS) {
      throw new IllegalStateException("a request through more than " + MAX_ENDINGS + " nodes");
    }
    endings[depth] = ending;
    numbers[depth] = number;
    held[depth] = range;
    depth++;
  }

  /// Takes back what was left since, because the request has not begun.
  public void forget(int mark) {
    depth = mark;
  }

  /// Makes a failure of a request that did what it was asked for, while it ends.
  public void fail(BlockException why) {
    failure = why;
  }

  void begunIn(DirectFile by) {
    file = by;
  }

  /// Ends a read of bytes that are all zero: it begins and ends in one, and its queue has it among
  /// those that ended.
  public void endAsZeroes() {
    Zeroes.fill(bytes().duplicate());
    ended();
    queue.endedAtOnce(this);
  }

  /// The kernel is done with it.
  ///
  /// @param result bytes or a negated error number
  void end(int result) {
    try {
      Objects.requireNonNull(file).finish(this, result);
    } catch (BlockException e) {
      failure = e;
    } finally {
      file = null;
      ended();
    }
  }

  private void ended() {
    while (depth > 0) {
      depth--;
      endings[depth].ended(this, failure == null, numbers[depth], held[depth]);
      held[depth] = null;
    }
  }
}
