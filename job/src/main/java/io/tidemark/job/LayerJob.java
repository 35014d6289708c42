// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.CopyBuffer;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.WriteBehind;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/// A job that moves what some layers of a drive's chain hold into another layer of it, and then
/// takes them out of the chain: [StreamJob] moves up, [CommitJob] down.
///
/// **Invariant.** The guest reads the same bytes before, while and after: what is written into the
/// target is what the guest sees there already, or what a layer above hides. So a job that ends
/// anywhere, by a crash too, leaves a chain that reads as it did; only its end changes what stands
/// over what.
///
/// **Steps.** One thread goes over the disk once: it asks what is to be moved, takes the range on
/// the drive if the guest may write the target, asks again, reads, writes, lets go. Nothing the
/// guest does can make more work, so there are no rounds and no ready state. Then the target is
/// flushed, guest running; the drive is drained; `PENDING`; the caller records the new chain;
/// [#finalizeJob] calls [#takeEffect], and the guest goes on. `cancel` and every error before that
/// leave the old chain, with what was moved so far: harmless.
///
/// On disk after each step, and what a restart makes of it, is with [#takeEffect] of each job and
/// in docs/jobs.md.
abstract class LayerJob extends Job {
  /// Bytes that are looked at in one go.
  private static final long SCAN_BYTES = 16L << 20;

  /// Most bytes of data of one step, and of the buffer.
  private static final int STEP_BYTES = CopyBuffer.BYTES;

  /// Most bytes of zeroes of one step.
  private static final long ZERO_STEP_BYTES = 16L << 20;

  /// For a flush that no guest waits for.
  private static final Duration FLUSH_LIMIT = Duration.ofMinutes(10);

  final Drive drive;
  private final Duration decision;
  private long done; // guarded by lock

  LayerJob(
      String id, Drive drive, long bandwidthBytesPerSecond, Duration decision, JobClock clock) {
    super(id, bandwidthBytesPerSecond, clock);
    this.drive = drive;
    this.decision = decision;
  }

  /// Begins to move.
  public final void start() throws JobStateException {
    launch();
  }

  /// The layer that is written.
  abstract BlockNode target();

  /// Brings the target to the size it needs. Called once, before anything is moved.
  abstract void prepare() throws BlockException;

  /// What is to be moved of the range, `DATA` and `ZERO` extents in order of offset.
  abstract List<Extent> wanted(long offset, long length) throws BlockException;

  /// The range of the target is about to be written. A pull does not tell bitmaps: what the guest
  /// reads does not change by it.
  void writes(long offset, long length) {}

  /// The node to read what is moved from.
  abstract BlockNode source();

  /// Bytes of the disk to go over.
  private long length() {
    return source().virtualSize();
  }

  /// Whether the guest may write the target beside the job.
  abstract boolean guestWritesTarget();

  /// Changes the chain. The drive is drained by the job, everything moved is on stable storage.
  /// When this throws, the chain is as it was.
  abstract void takeEffect() throws BlockException;

  @Override
  public JobProgress progress() {
    lock.lock();
    try {
      // Clients take "all done" for the end: the last byte is kept back until then.
      boolean early = !statusLocked().over() && done == length() && done > 0;
      return new JobProgress(early ? done - 1 : done, length());
    } finally {
      lock.unlock();
    }
  }

  @Override
  void run() throws BlockException {
    prepare();
    moveAll();
    if (!movesOn()) {
      return;
    }
    flushAside(target(), FLUSH_LIMIT, () -> statusLocked() == JobStatus.ABORTING);
    try (var _ = drive.drain()) {
      if (pendingUntilDecided(decision)) {
        takeEffect();
      }
    }
  }

  /// To `WAITING`, unless the job was asked to end.
  private boolean movesOn() {
    lock.lock();
    try {
      while (statusLocked() == JobStatus.PAUSED) {
        changed.awaitUninterruptibly();
      }
      if (statusLocked() != JobStatus.RUNNING) {
        return false;
      }
      move(JobStatus.WAITING);
      return true;
    } finally {
      lock.unlock();
    }
  }

  private void moveAll() throws BlockException {
    ByteBuffer buffer = CopyBuffer.make();
    var behind = new WriteBehind(target());
    long end = length();
    for (long at = 0; at < end; ) {
      long window = Math.min(SCAN_BYTES, end - at);
      for (Extent extent : wanted(at, window)) {
        for (long from = extent.offset(); from < extent.end(); ) {
          long most = extent.state() == Extent.State.ZERO ? ZERO_STEP_BYTES : STEP_BYTES;
          long step = Math.min(extent.end() - from, most);
          if (!awaitTurn()) {
            return;
          }
          move(new ByteRange(from, step), buffer);
          behind.wrote(extent.state() == Extent.State.ZERO ? 0 : step);
          from += step;
          moved(from);
        }
      }
      at += window;
      moved(at);
    }
  }

  private void moved(long upTo) {
    locked(() -> done = upTo);
  }

  /// Waits while paused or throttled.
  ///
  /// @return false when the job ends
  private boolean awaitTurn() {
    lock.lock();
    try {
      while (true) {
        JobStatus now = statusLocked();
        long delay = rate.delayNanos();
        if (now == JobStatus.PAUSED) {
          changed.awaitUninterruptibly();
        } else if (now != JobStatus.RUNNING) {
          return false;
        } else if (delay > 0) {
          waitFor(delay);
        } else {
          return true;
        }
      }
    } finally {
      lock.unlock();
    }
  }

  private void move(ByteRange range, ByteBuffer buffer) throws BlockException {
    if (!guestWritesTarget()) {
      moveHeld(range, buffer);
      return;
    }
    try (var _ = drive.lockRange(range.offset(), range.length())) {
      moveHeld(range, buffer);
    }
  }

  /// Asks again, since the guest may have written before the range was taken.
  private void moveHeld(ByteRange range, ByteBuffer buffer) throws BlockException {
    for (Extent extent : wanted(range.offset(), range.length())) {
      writes(extent.offset(), extent.length());
      if (extent.state() == Extent.State.ZERO) {
        zero(extent.offset(), extent.length());
      } else {
        copy(extent, buffer);
      }
    }
  }

  /// A node may leave out zeroes that it reads anyway, as a qcow2 image of version 2 does past the
  /// end of what it stands on. It will stand on something else: there they are written as data.
  private void zero(long offset, long length) throws BlockException {
    BlockNode node = target();
    node.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
    List<Extent> left = new ArrayList<>();
    node.extents(
        offset,
        length,
        extent -> {
          if (extent.state() == Extent.State.UNALLOCATED) {
            left.add(extent);
          }
          return true;
        });
    for (Extent extent : left) {
      for (long at = extent.offset(); at < extent.end(); ) {
        int step = (int) Math.min(extent.end() - at, Zeroes.BLOCK);
        node.write(at, Zeroes.of(step));
        at += step;
      }
    }
  }

  private void copy(Extent extent, ByteBuffer buffer) throws BlockException {
    for (long at = extent.offset(); at < extent.end(); at += buffer.limit()) {
      int length = (int) Math.min(extent.end() - at, buffer.capacity());
      buffer.clear().limit(length);
      source().read(at, buffer);
      locked(() -> rate.take(length));
      if (Zeroes.isZero(buffer.flip())) {
        zero(at, length);
      } else {
        target().write(at, buffer);
      }
    }
  }
}
