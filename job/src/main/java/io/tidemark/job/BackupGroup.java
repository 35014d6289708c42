// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

/// Backups of several drives as they all were at one instant. All end well, or none does.
///
/// A job that has copied and flushed everything arrives here and waits. The last one to arrive
/// decides that the group succeeded; the first that fails or is cancelled before that decides that
/// it did not, and the others are cancelled. Both decisions are one step from the same state, so
/// there is no third outcome, and from the first on a cancel is refused.
public final class BackupGroup extends InstantGroup {
  private enum Outcome {
    OPEN,
    SUCCEEDED,
    BROKEN
  }

  private final List<BackupJob> jobs;
  private final AtomicInteger arrived = new AtomicInteger();
  private final AtomicReference<Outcome> outcome = new AtomicReference<>(Outcome.OPEN);

  /// @param members at least one; no drive twice
  public BackupGroup(List<BackupOptions> members) {
    this.jobs = members.stream().map(member -> new BackupJob(member, this)).toList();
    check(jobs);
    jobs.forEach(job -> job.addListener(this::follow));
  }

  /// In the order given. Listeners are added before [#start].
  public List<BackupJob> jobs() {
    return jobs;
  }

  @Override
  List<BackupJob> members() {
    return jobs;
  }

  /// A job has everything on stable storage.
  void arrive(BackupJob job) {
    if (arrived.incrementAndGet() == jobs.size()
        && outcome.compareAndSet(Outcome.OPEN, Outcome.SUCCEEDED)) {
      for (BackupJob each : jobs) {
        each.locked(each.changed::signalAll);
      }
    }
  }

  boolean succeeded() {
    return outcome.get() == Outcome.SUCCEEDED;
  }

  /// Asked by a job that is about to end without success: whether it still may.
  boolean mayBreak() {
    return outcome.compareAndExchange(Outcome.OPEN, Outcome.BROKEN) != Outcome.SUCCEEDED;
  }
}
