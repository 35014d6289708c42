// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.Drive;
import io.tidemark.block.TransportException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// A live copy of a drive that follows the guest's writes, and can take the drive's place.
///
/// **Invariant.** Once the filter stands in the drive's write path, every granule whose target
/// bytes may differ from the source's is dirty, or is being written by a transfer that is out, or
/// lies under a guest write that still holds its range. What is out is in the job's list: the
/// copies of [MirrorWorkers] and the guest writes of [MirrorLanes], and none that is put there
/// overlaps another.
///
/// **Rounds.** Workers go over the bitmap from start to end, again and again. A round that leaves
/// three quarters of what it began with, or at most [#CATCH_UP_BYTES], or that is number
/// [#MAX_ROUNDS], ends background mode: from there on guest writes reach the target before they are
/// acknowledged ([MirrorLanes]), so what is dirty can only shrink and the copy converges whatever
/// the guest does. When nothing is dirty the job is ready, and stays synchronous so that a pivot is
/// short.
///
/// **A target that does not answer.** Past `limits.answer` the drive's range is let go, the guest
/// is acknowledged with its granules marked, and the job is back in background mode until the
/// target has answered all that is out; leaving synchronous mode more than [#MAX_LATE] times fails
/// the job, and so does one request that is out for `limits.stall`. A range that was let go early
/// cannot be corrupted by its late write: until that returns, nothing else writes there, and what
/// the guest wrote meanwhile is dirty.
///
/// **End.** [#complete] leads through: nothing dirty → target flushed, guest still running → drive
/// drained → last dirty extents → target and source flushed → `PENDING` → (the caller records) →
/// [#finalizeJob] → drive on its target → filter gone → guest runs. Up to the finalizing the source
/// is the truth and loses nothing by going back to it: that is what every error, limit and cancel
/// does. `cancel` while running leaves a target of undefined content; once ready, the guest is
/// drained, the last dirty extents copied, the filter taken out, the guest resumed, the target
/// flushed: a consistent copy of that instant.
///
/// Rejected: copying without holding the range (a hot extent is then dirty again before it is
/// written, and a synchronous write cannot be ordered after its copy); a fixed number of rounds
/// with the guest drained at the end (its pause would grow with its writes).
///
/// The fields are guarded by the job's lock.
public final class MirrorJob extends Job {
  /// Rounds of background mode.
  static final int MAX_ROUNDS = 8;

  /// So little that another round in background mode gains nothing.
  static final long CATCH_UP_BYTES = 4L << 20;

  /// Times that a late target is forgiven.
  static final int MAX_LATE = 3;

  /// A target that was in time for so long starts anew.
  private static final long FORGOTTEN_AFTER_NANOS = Duration.ofMinutes(10).toNanos();

  /// For a flush that no guest waits for: a page cache full of the copy may have to go to disk.
  static final Duration FLUSH_LIMIT = Duration.ofMinutes(10);

  static final int MAX_LANES = 8;
  private static final int MIN_BUFFER_BYTES = 64 << 10;
  private static final long IDLE_NANOS = Duration.ofMillis(100).toNanos();

  private static final Logger LOG = System.getLogger(MirrorJob.class.getName());

  private final MirrorOptions options;
  private final Drive source;
  private final BlockNode target;
  private final MirrorCopy copy;
  private final MirrorWorkers workers;
  private final MirrorLanes lanes;

  private final List<Transfer> out = new ArrayList<>();
  private int round;
  private long roundDirtyBytes = Long.MAX_VALUE;
  private int late;
  private long lateAt;
  private long processedBytes;
  private boolean wasReady;
  private boolean stopping;
  private boolean over;
  private boolean filtering;

  // Written under the lock, read without it on the guest's way.
  private volatile boolean synchronous;

  public MirrorJob(MirrorOptions options) {
    super(options.id(), options.bandwidthBytesPerSecond(), options.clock());
    this.options = options;
    this.source = options.source();
    this.target = options.target();
    this.copy = new MirrorCopy(options);
    long share =
        Math.clamp(options.bufferBytes() / 4, MIN_BUFFER_BYTES, (long) MirrorWorkers.EXTENT_BYTES);
    int bufferBytes = (int) Long.highestOneBit(share);
    long buffers = options.bufferBytes() / bufferBytes;
    int maxWorkers = Math.clamp(buffers / 2, 1, MirrorWorkers.MAX_WORKERS);
    int maxLanes = Math.clamp(buffers - maxWorkers, 1, MAX_LANES);
    this.workers = new MirrorWorkers(this, copy, source, maxWorkers, bufferBytes);
    this.lanes = new MirrorLanes(this, copy, target, maxLanes, bufferBytes);
  }

  public MirrorOptions options() {
    return options;
  }

  /// Begins to follow the drive and to copy.
  public void start() throws JobStateException {
    launch();
  }

  /// Whether every acknowledged guest write is in the target, and the next ones will be: QEMU's
  /// `actively-synced`. A ready job loses it while its target does not answer.
  public boolean activelySynced() {
    lock.lock();
    try {
      return synced();
    } finally {
      lock.unlock();
    }
  }

  @Override
  public JobProgress progress() {
    lock.lock();
    try {
      long total = processedBytes + workers.copyingBytes() + copy.dirty.dirtyBytes();
      boolean early = !wasReady && total == processedBytes && total > 0;
      return new JobProgress(early ? total - 1 : processedBytes, total);
    } finally {
      lock.unlock();
    }
  }

  @Override
  void run() {
    Thread.ofVirtual().name("job-" + id() + "-watch").start(this::watch);
    try {
      install();
      skipWhatStays();
      workers.start();
      awaitVerdict();
      if (endsWell()) {
        finish();
      }
    } catch (BlockException e) {
      fail(e);
    } catch (RuntimeException | Error e) {
      failInternally(e);
    } finally {
      tearDown();
    }
  }

  private void install() {
    try (var _ = source.drain()) {
      locked(() -> {
        synchronous = options.synchronousWrites();
        filtering = true;
      });
      source.addFilter(lanes);
    }
  }

  /// Clears the bits of what the target holds by being new, in large steps.
  private void skipWhatStays() throws BlockException {
    long size = source.virtualSize();
    if (!copy.skipsAnything()) {
      return;
    }
    for (long at = 0; at < size && !ending(); ) {
      ByteRange window = copy.scanWindow(at);
      try (var _ = source.lockRange(window.offset(), window.length())) {
        for (ByteRange range : copy.skippable(window)) {
          locked(() -> {
            copy.dirty.clear(range.offset(), range.length());
            processedBytes += range.length();
          });
        }
      }
      at = window.end();
    }
  }

  private boolean ending() {
    JobStatus now = status();
    return now == JobStatus.ABORTING || now.over();
  }

  private void awaitVerdict() {
    lock.lock();
    try {
      while (statusLocked() != JobStatus.WAITING && statusLocked() != JobStatus.ABORTING) {
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
  }

  private boolean endsWell() {
    lock.lock();
    try {
      return !failed() && (statusLocked() == JobStatus.WAITING || endsOrderly());
    } finally {
      lock.unlock();
    }
  }

  // ---- rounds and modes; all with the lock held

  /// The throttle is off: someone waits for the end.
  boolean hurry() {
    return statusLocked() == JobStatus.WAITING || statusLocked() == JobStatus.ABORTING;
  }

  /// The workers have gone over the whole bitmap once more.
  void endRound() {
    if (synchronous) {
      return;
    }
    long left = copy.dirty.dirtyBytes();
    round++;
    if (round >= MAX_ROUNDS || left <= CATCH_UP_BYTES || left > roundDirtyBytes / 4 * 3) {
      enterSynchronous(left);
    }
    roundDirtyBytes = left;
  }

  /// The workers have nothing to claim from the start on.
  void settle() {
    if (!clean()) {
      return;
    }
    if (!synchronous) {
      enterSynchronous(0);
    }
    if (synchronous && statusLocked() == JobStatus.RUNNING) {
      wasReady = true;
      move(JobStatus.READY);
    }
  }

  private boolean clean() {
    return workers.copyingBytes() == 0
        && out.stream().noneMatch(t -> t.background || t.abandoned)
        && copy.dirty.nextDirty(0, 1).isEmpty();
  }

  private boolean synced() {
    return synchronous && clean();
  }

  private void enterSynchronous(long left) {
    if (!stopping && out.stream().noneMatch(t -> t.abandoned)) {
      LOG.log(
          Level.DEBUG,
          () -> "job %s: synchronous after %d rounds, %d bytes left".formatted(id(), round, left));
      synchronous = true;
    }
  }

  private void leaveSynchronous() {
    synchronous = false;
    round = 0;
    roundDirtyBytes = Long.MAX_VALUE;
    lanes.release(false);
    changed.signalAll();
  }

  // ---- what workers and lanes use; with the lock held, but for the first two

  boolean synchronous() {
    return synchronous;
  }

  void dirtied() {
    workers.dirtied();
  }

  /// Whether workers are to begin nothing more.
  boolean stopping() {
    return stopping;
  }

  boolean meetsTransfer(long offset, long length) {
    return firstOverlapping(offset, length) != null;
  }

  /// The one that begins first; null: none.
  @Nullable Transfer firstOverlapping(long offset, long length) {
    Transfer first = null;
    for (Transfer transfer : out) {
      if (transfer.overlaps(offset, length) && (first == null || transfer.offset < first.offset)) {
        first = transfer;
      }
    }
    return first;
  }

  void add(Transfer transfer) {
    out.add(transfer);
  }

  void remove(Transfer transfer) {
    out.remove(transfer);
    if (transfer.abandoned || hurry()) {
      changed.signalAll();
    }
  }

  void mirroredBytes(long bytes) {
    processedBytes += bytes;
  }

  void failed(Throwable error) {
    if (error instanceof BlockException known) {
      fail(known);
    } else {
      failInternally(error);
    }
    leaveSynchronous();
  }

  /// A guest has waited for the target as long as it may.
  void targetIsLate() {
    if (!synchronous) {
      return;
    }
    long now = clock.nanoTime();
    late = now - lateAt > FORGOTTEN_AFTER_NANOS ? 1 : late + 1;
    lateAt = now;
    LOG.log(
        Level.INFO,
        () ->
            "job %s: target %s did not answer within %s, time %d of %d"
                .formatted(id(), target.name(), options.limits().answer(), late, MAX_LATE));
    leaveSynchronous();
    if (late > MAX_LATE) {
      fail(
          new TransportException(
              "job %s: target %s did not answer within %s, %d times"
                  .formatted(id(), target.name(), options.limits().answer(), late)));
    }
  }

  // ---- limits

  private void watch() {
    long answer = options.limits().answer().toNanos();
    long stall = options.limits().stall().toNanos();
    long tick = Math.clamp(Math.min(answer, stall) / 4, 1_000_000L, 250_000_000L);
    lock.lock();
    try {
      while (!over) {
        long now = clock.nanoTime();
        for (Transfer transfer : List.copyOf(out)) {
          if (!transfer.counting) {
            continue;
          }
          if (now - transfer.since > stall && !failed()) {
            fail(
                new TransportException(
                    "job %s: target %s did not answer a request at %d of %d bytes within %s"
                        .formatted(
                            id(),
                            target.name(),
                            transfer.offset,
                            transfer.length,
                            options.limits().stall())));
          }
          if (transfer.background
              && !transfer.abandoned
              && (now - transfer.since > answer || stopping)) {
            transfer.abandoned = true;
            targetIsLate();
            transfer.letGo();
          }
        }
        waitFor(tick);
      }
    } finally {
      lock.unlock();
    }
  }

  // ---- the end

  /// From `WAITING`, or `ABORTING` of a job that was ready, to its effect or its undoing. Whatever
  /// happens the drive is resumed.
  private void finish() throws BlockException {
    if (!catchUp()) {
      return;
    }
    if (status() == JobStatus.WAITING) {
      flushAside(target, FLUSH_LIMIT, () -> statusLocked() != JobStatus.WAITING);
      source.root().flush();
    }
    try (var _ = source.drain()) {
      long held = clock.nanoTime() + options.limits().held().toNanos();
      awaitNothingOut(held);
      if (status() == JobStatus.WAITING) {
        var left = Duration.ofNanos(Math.max(1, held - clock.nanoTime()));
        flushAside(target, left, () -> false);
        source.root().flush();
        requireSameSize();
        if (pendingUntilDecided(options.limits().decision())) {
          source.repoint(target);
          removeFilter();
          return;
        }
      }
      removeFilter();
    }
    if (endsWell()) {
      flushAside(target, FLUSH_LIMIT, this::failed);
    }
  }

  /// Waits, with the guest running, until the target holds everything. A cancelled job does not
  /// wait longer than a held guest would.
  private boolean catchUp() throws TransportException {
    long limit = options.limits().held().toNanos();
    lock.lock();
    try {
      long since = clock.nanoTime();
      boolean cancelling = false;
      while (!synced()) {
        if (statusLocked() == JobStatus.ABORTING) {
          if (failed() || !endsOrderly()) {
            return false;
          }
          if (!cancelling) {
            cancelling = true;
            since = clock.nanoTime();
          }
          if (clock.nanoTime() - since > limit) {
            throw new TransportException(
                "job %s: target %s did not catch up within %s"
                    .formatted(id(), target.name(), options.limits().held()));
          }
        }
        waitFor(IDLE_NANOS);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  private void awaitNothingOut(long deadline) throws TransportException {
    lock.lock();
    try {
      changed.signalAll();
      while (!out.isEmpty() || !clean()) {
        long left = deadline - clock.nanoTime();
        if (left <= 0) {
          throw new TransportException(
              "job %s: target %s did not take the last writes within %s, the guest was held"
                  .formatted(id(), target.name(), options.limits().held()));
        }
        if (failed()) {
          return;
        }
        waitFor(Math.min(left, IDLE_NANOS));
      }
    } finally {
      lock.unlock();
    }
  }

  /// What re-pointing will ask for, while going back is still possible.
  private void requireSameSize() throws TransportException {
    if (target.virtualSize() != source.virtualSize()) {
      throw new TransportException(
          "job %s: target %s has %d bytes by now, the drive %d"
              .formatted(id(), target.name(), target.virtualSize(), source.virtualSize()));
    }
  }

  /// The caller has drained the drive.
  private void removeFilter() {
    source.removeFilter(lanes);
    locked(() -> filtering = false);
  }

  /// Stops the threads, frees the drive, and waits for what is out on the target, so that it can be
  /// closed; what does not return within `limits.stall` is left behind.
  private void tearDown() {
    lock.lock();
    try {
      stopping = true;
      synchronous = false;
      lanes.release(true);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
    if (filtering) {
      try (var _ = source.drain()) {
        removeFilter();
      }
    }
    long deadline = clock.nanoTime() + options.limits().held().toNanos();
    lock.lock();
    try {
      while (!out.isEmpty() || flushesOut() > 0) {
        long left = deadline - clock.nanoTime();
        if (left <= 0) {
          leaveTarget(target, out.size() + flushesOut());
          break;
        }
        waitFor(Math.min(left, IDLE_NANOS));
      }
      over = true;
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }
}
