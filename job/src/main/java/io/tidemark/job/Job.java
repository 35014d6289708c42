// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.TransportException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/// A long operation with QEMU's life: see [JobStatus] and [JobVerb].
///
/// Any thread may call any public method. A verb returns once it is taken note of, and the job's
/// own threads do the rest; only [#finalizeJob] returns when its effect is there. A verb that the
/// status does not allow is a [JobStateException] and changes nothing.
///
/// One controller thread (`job-<id>-0`) runs [#run]; what else a job needs it starts itself, as
/// platform threads `job-<id>-N`. They stop by flag, none is ever interrupted. `lock` guards the
/// fields of this class and those that a subclass says it guards; nothing blocks while it is held
/// but waiting on `changed`, which is signalled whenever status, speed or work changes.
public abstract class Job {
  private static final Logger LOG = System.getLogger(Job.class.getName());

  final ReentrantLock lock = new ReentrantLock();
  final Condition changed = lock.newCondition();
  final JobClock clock;
  final RateLimit rate;
  private final String id;
  private final List<JobListener> listeners = new CopyOnWriteArrayList<>();
  private final ArrayDeque<News> untold = new ArrayDeque<>();
  private boolean telling;
  private int flushesOut;
  private int nextThread = 1;
  private JobStatus status = JobStatus.UNDEFINED;
  private boolean pauseAtStart;
  private boolean finalizeAsked;
  private boolean cancelled;
  // Null while the job was not asked to cancel.
  private @Nullable JobStatus cancelledFrom;
  // Null while nothing failed.
  private @Nullable BlockException error;
  private boolean targetLeft;

  /// A status that those who listened when it was taken have not heard of.
  private record News(JobStatus status, List<JobListener> listeners) {}

  Job(String id, long bandwidthBytesPerSecond, JobClock clock) {
    this.id = id;
    this.clock = clock;
    this.rate = new RateLimit(bandwidthBytesPerSecond, clock);
    locked(() -> move(JobStatus.CREATED));
  }

  public final String id() {
    return id;
  }

  public final JobStatus status() {
    lock.lock();
    try {
      return status;
    } finally {
      lock.unlock();
    }
  }

  /// How far the job is.
  public abstract JobProgress progress();

  /// 0 for no limit.
  public final long bandwidthBytesPerSecond() {
    lock.lock();
    try {
      return rate.bytesPerSecond();
    } finally {
      lock.unlock();
    }
  }

  /// Why the job failed. Empty while it did not, and when it ended because it was cancelled.
  public final Optional<BlockException> error() {
    lock.lock();
    try {
      return Optional.ofNullable(error);
    } finally {
      lock.unlock();
    }
  }

  /// Whether the job ended, or is ending, because someone asked, and has not failed in doing so.
  public final boolean cancelled() {
    lock.lock();
    try {
      return cancelled;
    } finally {
      lock.unlock();
    }
  }

  /// Whether the job ended while requests were out on its target that had not returned in time.
  /// They may still be carried out: closing the target may take as long as they do.
  public final boolean targetLeft() {
    lock.lock();
    try {
      return targetLeft;
    } finally {
      lock.unlock();
    }
  }

  /// Holding `lock`, before the job is over.
  final void leaveTarget(BlockNode target, int requests) {
    targetLeft = true;
    LOG.log(
        Level.WARNING,
        "job %s: %d requests on target %s never returned".formatted(id, requests, target.name()));
  }

  /// Statuses taken from now on are told to `listener`.
  public final void addListener(JobListener listener) {
    listeners.add(listener);
  }

  /// Ends the job without effect. What its target then holds, the subclass says.
  public final void cancel() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.CANCEL);
      if (finalizeAsked || !mayAbort()) {
        throw new JobStateException(id, JobVerb.CANCEL, status);
      }
      cancelled = true;
      cancelledFrom = status;
      boolean started = status != JobStatus.CREATED;
      abort();
      if (!started) {
        move(JobStatus.CONCLUDED);
      }
    } finally {
      lock.unlock();
    }
  }

  /// Asks a ready job to complete: it goes on to `WAITING`, then by itself to `PENDING`.
  public final void complete() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.COMPLETE);
      move(JobStatus.WAITING);
    } finally {
      lock.unlock();
    }
  }

  /// Lets a pending job take effect, and returns when it has, the job `CONCLUDED`. The caller has
  /// made durable whatever records the effect. When this throws, the job did not take effect: the
  /// caller takes its record back.
  public final void finalizeJob() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.FINALIZE);
      finalizeAsked = true;
      changed.signalAll();
      while (!status.over()) {
        changed.awaitUninterruptibly();
      }
      if (error != null) {
        throw new JobStateException(id, JobVerb.FINALIZE, status);
      }
    } finally {
      lock.unlock();
    }
  }

  /// Forgets a concluded job.
  public final void dismiss() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.DISMISS);
      move(JobStatus.NULL);
    } finally {
      lock.unlock();
    }
  }

  /// @param bytesPerSecond live; 0 for no limit
  public final void setSpeed(long bytesPerSecond) throws JobStateException {
    if (bytesPerSecond < 0) {
      throw new IllegalArgumentException("job " + id + ": bandwidth " + bytesPerSecond);
    }
    lock.lock();
    try {
      require(JobVerb.SET_SPEED);
      rate.set(bytesPerSecond);
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// Stops background work until [#resume]; what follows the guest goes on. Pausing twice is
  /// harmless.
  public final void pause() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.PAUSE);
      switch (status) {
        case CREATED -> pauseAtStart = true;
        case RUNNING -> move(JobStatus.PAUSED);
        case READY -> move(JobStatus.STANDBY);
        default -> {}
      }
    } finally {
      lock.unlock();
    }
  }

  /// Resuming what is not paused is harmless.
  public final void resume() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.RESUME);
      pauseAtStart = false;
      unpause();
    } finally {
      lock.unlock();
    }
  }

  /// Waits until the status satisfies `wanted`, at most `limit`; returns whether it did.
  public final boolean await(Predicate<JobStatus> wanted, Duration limit) {
    long deadline = System.nanoTime() + limit.toNanos();
    lock.lock();
    try {
      while (!wanted.test(status)) {
        long left = deadline - System.nanoTime();
        if (left <= 0) {
          return false;
        }
        waitFor(JobClock.SYSTEM, changed, left);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  /// The job's work, on its controller thread, from `RUNNING` on. When it returns, the job is
  /// `PENDING` and its effect is there, or `ABORTING` and everything is undone; whatever it throws
  /// fails the job.
  abstract void run() throws BlockException;

  /// Holding `lock`, asked before the job is cancelled or fails: false when it has succeeded for
  /// good, though its status does not say so yet.
  boolean mayAbort() {
    return true;
  }

  /// Moves to `RUNNING` and starts the controller. The caller has done what must precede.
  final void launch() throws JobStateException {
    lock.lock();
    try {
      require(JobVerb.START);
      move(JobStatus.RUNNING);
      if (pauseAtStart) {
        move(JobStatus.PAUSED);
      }
    } finally {
      lock.unlock();
    }
    thread(0, this::control);
  }

  /// Starts a data thread of this job.
  final Thread thread(int number, Runnable body) {
    return Thread.ofPlatform().daemon().name("job-" + id + "-" + number).start(body);
  }

  /// Flushes `target` on a thread of its own, so that it can be left behind.
  ///
  /// @param giveUp asked with `lock` held; once true this returns, without an error
  final void flushAside(BlockNode target, Duration limit, BooleanSupplier giveUp)
      throws BlockException {
    long since = clock.nanoTime();
    var flush = new Flush(target);
    locked(() -> flushesOut++);
    thread(nextThreadNumber(), flush);
    lock.lock();
    try {
      while (!flush.done) {
        long left = limit.toNanos() - (clock.nanoTime() - since);
        if (giveUp.getAsBoolean()) {
          return;
        }
        if (left <= 0) {
          throw new TransportException(
              "job %s: target %s was not flushed within %s".formatted(id, target.name(), limit));
        }
        waitFor(left);
      }
      if (flush.error instanceof BlockException known) {
        throw known;
      } else if (flush.error != null) {
        failInternally(flush.error);
      }
    } finally {
      lock.unlock();
    }
  }

  private final class Flush implements Runnable {
    private final BlockNode target;
    private boolean done;
    // Null unless the flush failed.
    private @Nullable Throwable error;

    Flush(BlockNode target) {
      this.target = target;
    }

    @Override
    public void run() {
      Throwable outcome = null;
      try {
        target.flush();
      } catch (BlockException | RuntimeException | Error e) {
        outcome = e;
      }
      lock.lock();
      try {
        error = outcome;
        done = true;
        flushesOut--;
        changed.signalAll();
      } finally {
        lock.unlock();
      }
    }
  }

  /// Holding `lock`.
  final int flushesOut() {
    return flushesOut;
  }

  final int nextThreadNumber() {
    lock.lock();
    try {
      return nextThread++;
    } finally {
      lock.unlock();
    }
  }

  /// Moves from `WAITING` to `PENDING`, and waits for what becomes of it. The caller has drained
  /// what the job changes.
  ///
  /// @param limit past it the job is undone and fails
  /// @return true when the job is to take effect now
  final boolean pendingUntilDecided(Duration limit) {
    lock.lock();
    try {
      if (status != JobStatus.WAITING) {
        return false;
      }
      move(JobStatus.PENDING);
      long since = clock.nanoTime();
      while (!finalizeAsked) {
        if (status == JobStatus.ABORTING) {
          return false;
        }
        long left = limit.toNanos() - (clock.nanoTime() - since);
        if (left <= 0) {
          // Under the lock, so that finalizing cannot slip in between.
          fail(
              new TransportException(
                  "job %s: was not finalized within %s, the guest was held".formatted(id, limit)));
          return false;
        }
        waitFor(left);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }

  private void control() {
    try {
      run();
    } catch (BlockException e) {
      fail(e);
    } catch (RuntimeException | Error e) {
      failInternally(e);
    }
    locked(() -> {
      if (status != JobStatus.PENDING && status != JobStatus.ABORTING) {
        throw new IllegalStateException("job " + id + ": its work ended while " + status);
      }
      move(JobStatus.CONCLUDED);
    });
  }

  /// Fails the job with `cause`, unless it is over or has failed before. A job cancelled before it
  /// was ready stays cancelled: its target is worth nothing in any case.
  final void fail(BlockException cause) {
    lock.lock();
    try {
      if (status.over() || error != null) {
        return;
      }
      if (cancelled && !endsOrderly()) {
        LOG.log(Level.DEBUG, () -> "job " + id + ": while being cancelled: " + cause.getMessage());
        return;
      }
      if (!mayAbort()) {
        LOG.log(Level.WARNING, "job " + id + ": after it had succeeded", cause);
        return;
      }
      LOG.log(Level.INFO, () -> "job " + id + ": failed: " + cause.getMessage());
      error = cause;
      cancelled = false;
      if (status != JobStatus.ABORTING) {
        abort();
      }
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// Our own bug: logged whole, and the job fails.
  final void failInternally(Throwable bug) {
    LOG.log(Level.ERROR, "job " + id + ": internal error", bug);
    fail(new TransportException("job " + id + ": internal error: " + bug, bug));
  }

  /// Ends the job as cancelled because another of its group ended; no effect when it is ending.
  final void cancelQuietly() {
    lock.lock();
    try {
      if (JobVerb.CANCEL.allowedIn(status) && !finalizeAsked && mayAbort()) {
        cancel();
      }
    } catch (JobStateException e) {
      throw new IllegalStateException(e);
    } finally {
      lock.unlock();
    }
  }

  /// Holding `lock`: was the job cancelled when it had something consistent to leave.
  final boolean endsOrderly() {
    return cancelledFrom == JobStatus.READY
        || cancelledFrom == JobStatus.STANDBY
        || cancelledFrom == JobStatus.WAITING
        || cancelledFrom == JobStatus.PENDING;
  }

  /// Holding `lock`.
  final JobStatus statusLocked() {
    return status;
  }

  /// Holding `lock`.
  final boolean failed() {
    return error != null;
  }

  /// Holding `lock`.
  final boolean finalizeAsked() {
    return finalizeAsked;
  }

  private void abort() {
    unpause();
    move(JobStatus.ABORTING);
  }

  private void unpause() {
    switch (status) {
      case PAUSED -> move(JobStatus.RUNNING);
      case STANDBY -> move(JobStatus.READY);
      default -> {}
    }
  }

  private void require(JobVerb verb) throws JobStateException {
    if (!verb.allowedIn(status)) {
      throw new JobStateException(id, verb, status);
    }
  }

  /// The one place where a status changes: checked against the table, logged, told. Holding `lock`.
  final void move(JobStatus to) {
    if (!status.next().contains(to)) {
      throw new IllegalStateException("job " + id + ": no way from " + status + " to " + to);
    }
    JobStatus from = status;
    LOG.log(Level.DEBUG, () -> "job " + id + ": " + from + " to " + to);
    status = to;
    changed.signalAll();
    if (listeners.isEmpty()) {
      return;
    }
    untold.add(new News(to, List.copyOf(listeners)));
    if (!telling) {
      telling = true;
      Thread.ofVirtual().name("job-" + id + "-notifier").start(this::tell);
    }
  }

  private void tell() {
    while (true) {
      News next;
      lock.lock();
      try {
        News first = untold.poll();
        if (first == null) {
          telling = false;
          return;
        }
        next = first;
      } finally {
        lock.unlock();
      }
      for (JobListener listener : next.listeners()) {
        try {
          listener.statusChanged(this, next.status());
        } catch (RuntimeException e) {
          LOG.log(Level.ERROR, "job " + id + ": a listener failed", e);
        }
      }
    }
  }

  final void locked(Runnable action) {
    lock.lock();
    try {
      action.run();
    } finally {
      lock.unlock();
    }
  }

  /// Holding `lock`, waits for a signal or `nanos` of the job's clock.
  final void waitFor(long nanos) {
    waitFor(clock, changed, nanos);
  }

  /// Holding the condition's lock, waits for a signal or `nanos` of `time`. An interrupt that
  /// someone else sent is kept for whoever wants it.
  static void waitFor(JobClock time, Condition condition, long nanos) {
    boolean interrupted = false;
    try {
      while (true) {
        try {
          time.await(condition, nanos);
          return;
        } catch (InterruptedException e) {
          interrupted = true;
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }
}
