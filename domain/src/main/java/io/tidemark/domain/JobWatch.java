// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.RequestFailure;
import java.util.Optional;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;

/// Hears a driver and looks after a running domain's jobs on a thread of its own, so that a driver
/// never waits for the domain's lock, and may be waited for while it is held.
///
/// What was said of jobs is not kept: the domain looks at all jobs as they are now. So
/// notifications may come late, twice or merged.
final class JobWatch implements DriverListener {
  private final Semaphore news = new Semaphore(0);
  private final AtomicReference<Optional<String>> stopped = new AtomicReference<>(Optional.empty());
  // One for each threshold that a client sets, so as many as clients set.
  private final Queue<Passed> passed = new ConcurrentLinkedQueue<>();
  // A driver tells of one a second for each disk, and of one for each time that it is resumed.
  private final Queue<RequestFailure> failed = new ConcurrentLinkedQueue<>();
  private volatile boolean closed;

  @Override
  public void jobStatusChanged(String jobId, DriverJobStatus status) {
    news.release();
  }

  /// A guest write beyond a threshold.
  record Passed(String target, long threshold, long excess) {}

  @Override
  public void writeThresholdPassed(String target, long threshold, long excess) {
    passed.add(new Passed(target, threshold, excess));
    news.release();
  }

  /// Takes the next of those that were passed.
  Optional<Passed> nextPassed() {
    return Optional.ofNullable(passed.poll());
  }

  @Override
  public void requestFailed(RequestFailure failure) {
    failed.add(failure);
    news.release();
  }

  /// Takes the next failure.
  Optional<RequestFailure> nextFailed() {
    return Optional.ofNullable(failed.poll());
  }

  @Override
  public void stopped(String reason) {
    stopped.compareAndSet(Optional.empty(), Optional.of(reason));
    news.release();
  }

  /// Why the domain ended by itself, if it did.
  Optional<String> stopReason() {
    return stopped.get();
  }

  /// Looks again although nobody said anything.
  void poke() {
    news.release();
  }

  void start(String domain, Runnable look) {
    Thread.ofVirtual()
        .name("jobs of " + domain)
        .start(() -> {
          while (!closed) {
            news.acquireUninterruptibly();
            news.drainPermits();
            if (!closed) {
              look.run();
            }
          }
        });
  }

  void close() {
    closed = true;
    news.release();
  }
}
