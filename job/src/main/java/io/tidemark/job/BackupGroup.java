// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.Drive;
import java.util.ArrayDeque;
import java.util.Collections;
import java.util.Comparator;
import java.util.Deque;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

/// Backups of several drives as they all were at one instant. All end well, or none does.
///
/// A job that has copied and flushed everything arrives here and waits. The last one to arrive
/// decides that the group succeeded; the first that fails or is cancelled before that decides that
/// it did not, and the others are cancelled. Both decisions are one step from the same state, so
/// there is no third outcome, and from the first on a cancel is refused.
public final class BackupGroup {
  /// Drives in one group.
  public static final int MAX_MEMBERS = 1024;

  /// What else happens at the instant, with every drive of the group drained.
  @FunctionalInterface
  public interface InstantAction<X extends Exception> {
    void run() throws X;
  }

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
    Set<Drive> drives = Collections.newSetFromMap(new IdentityHashMap<>());
    for (BackupOptions member : members) {
      if (!drives.add(member.source())) {
        throw new IllegalArgumentException(
            "job " + member.id() + ": drive " + member.source().name() + " is in the group twice");
      }
    }
    if (members.isEmpty() || members.size() > MAX_MEMBERS) {
      throw new IllegalArgumentException(
          "a backup group of %d drives, 1 to %d are wanted".formatted(members.size(), MAX_MEMBERS));
    }
    this.jobs = members.stream().map(member -> new BackupJob(member, this)).toList();
    jobs.forEach(job -> job.addListener(this::follow));
  }

  /// In the order given. Listeners are added before [#start].
  public List<BackupJob> jobs() {
    return jobs;
  }

  /// Drains every drive, in the order of their names; runs `action`; takes the bitmaps as they then
  /// are; begins to keep old bytes; lets the guest go on; starts the jobs. When `action` throws, or
  /// a job was cancelled before, nothing of this was done and every job is concluded as cancelled.
  public <X extends Exception> void start(InstantAction<X> action) throws X, JobStateException {
    for (BackupJob job : jobs) {
      if (job.status() != JobStatus.CREATED) {
        throw new JobStateException(job.id(), JobVerb.START, job.status());
      }
    }
    Deque<Drive.Drained> drained = new ArrayDeque<>();
    boolean started = false;
    try {
      jobs.stream()
          .map(job -> job.options().source())
          .sorted(Comparator.comparing(Drive::name))
          .forEach(drive -> drained.push(drive.drain()));
      action.run();
      jobs.forEach(BackupJob::freeze);
      for (BackupJob job : jobs) {
        job.launch();
      }
      started = true;
    } finally {
      if (!started) {
        undo();
      }
      drained.forEach(Drive.Drained::close);
    }
  }

  private void undo() {
    for (BackupJob job : jobs) {
      job.cancelQuietly();
      job.thaw();
    }
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

  private void follow(Job job, JobStatus status) {
    if (status == JobStatus.ABORTING) {
      jobs.stream().filter(other -> other != job).forEach(Job::cancelQuietly);
    }
  }
}
