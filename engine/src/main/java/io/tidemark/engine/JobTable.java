// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.FileNode;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.JobState;
import io.tidemark.job.Job;
import io.tidemark.job.JobProgress;
import io.tidemark.job.JobStateException;
import io.tidemark.job.JobStatus;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The jobs of a running domain that are not yet dismissed.
///
/// Not thread-safe: guarded by the domain's lock, which no job's thread takes.
final class JobTable {
  private static final Logger LOG = System.getLogger(JobTable.class.getName());

  /// Jobs of one domain, concluded ones included.
  static final int MAX_JOBS = 512;

  /// What the domain makes of a job's end. Called with the domain's lock held.
  interface Effect {
    /// A job that nothing else follows from.
    Effect NONE = new Effect() {};

    /// The job is pending, the drive drained.
    default void before() {}

    /// After [#before]: the job did not take effect after all, the drive is still drained.
    default void undone() {}

    /// The job took effect.
    default void after() throws DriverException {}

    /// The job is over and dismissed, whether or not it took effect.
    default void forgotten() {}
  }

  /// A job and what it uses besides its drive.
  ///
  /// @param node is written by the job, and read with all beneath it
  /// @param scratch of a backup: closed when the job is over
  record Entry(
      Job job,
      JobState.Kind kind,
      GuestDrive drive,
      NodeGraph.Node node,
      Optional<FileNode> scratch,
      Effect effect) {
    boolean over() {
      return job.status().over();
    }
  }

  private final Map<String, Entry> entries = new LinkedHashMap<>();
  private final Notices notices;
  private final DriverListener listener;

  JobTable(Notices notices, DriverListener listener) {
    this.notices = notices;
    this.listener = listener;
  }

  Entry get(String id) throws DriverException {
    Entry entry = entries.get(id);
    if (entry == null) {
      throw DriverErrors.notFound("job", id);
    }
    return entry;
  }

  /// Refuses a job that would stand in another's way: one of that name, one on that drive, one that
  /// writes or reads that node.
  void requireFree(String id, GuestDrive drive, NodeGraph.Node node) throws DriverException {
    if (entries.containsKey(id)) {
      throw DriverErrors.generic("job " + id + " is there already");
    }
    if (entries.size() >= MAX_JOBS) {
      throw new DriverException(
          Kind.UNSUPPORTED, "job " + id + ": " + MAX_JOBS + " jobs are there, that is the most");
    }
    requireIdle(drive);
    requireUnused(node);
  }

  /// Refuses a drive that has a job.
  void requireIdle(GuestDrive drive) throws DriverException {
    for (Entry entry : entries.values()) {
      if (!entry.over() && entry.drive == drive) {
        throw DriverErrors.generic(
            "drive " + drive.target() + " is in use by job " + entry.job.id());
      }
    }
  }

  /// Refuses a node that a job still uses, itself or from above.
  void requireUnused(NodeGraph.Node node) throws DriverException {
    for (Entry entry : entries.values()) {
      if (!entry.over() && entry.node.reaches(node)) {
        throw DriverErrors.generic("node " + node.name() + " is in use by job " + entry.job.id());
      }
    }
  }

  /// Takes a job in before it is started: its moves are told from now on.
  void add(Entry entry) {
    entries.put(entry.job.id(), entry);
    entry.job.addListener((job, status) -> {
      if (status.over()) {
        entry.scratch.ifPresent(Scratch::close);
        if (job.targetLeft()) {
          entry.node.leave();
        }
      }
      notices.tell(() -> listener.jobStatusChanged(job.id(), status(status)));
    });
  }

  /// Forgets a job that was never started.
  void drop(Entry entry) {
    entries.remove(entry.job.id());
    entry.scratch.ifPresent(Scratch::close);
  }

  void dismiss(String id) throws DriverException {
    Entry entry = get(id);
    verb(entry.job::dismiss);
    entries.remove(id);
    entry.effect.forgotten();
  }

  List<JobState> states() {
    return entries.values().stream().map(JobTable::state).toList();
  }

  private static JobState state(Entry entry) {
    Job job = entry.job;
    // Status before error: a job that is seen concluded is seen with its reason.
    JobStatus status = job.status();
    JobProgress progress = job.progress();
    return new JobState(
        job.id(),
        entry.kind,
        status(status),
        progress.current(),
        progress.total(),
        job.bandwidthBytesPerSecond(),
        job.error().map(DriverErrors::of),
        job.cancelled());
  }

  /// Cancels every job and waits for its end.
  ///
  /// @return those that did not end within `limit`
  List<Entry> cancelAll(Duration limit) {
    for (Entry entry : entries.values()) {
      try {
        entry.job.cancel();
      } catch (JobStateException e) {
        LOG.log(Level.DEBUG, "while all jobs are cancelled: {0}", e.getMessage());
      }
    }
    long deadline = System.nanoTime() + limit.toNanos();
    var stuck = new ArrayList<Entry>();
    for (Entry entry : entries.values()) {
      Duration left = Duration.ofNanos(Math.max(0, deadline - System.nanoTime()));
      if (!entry.job.await(JobStatus::over, left)) {
        stuck.add(entry);
      }
    }
    return stuck;
  }

  /// A verb of the job room.
  @FunctionalInterface
  interface Verb {
    void ask() throws JobStateException;
  }

  static void verb(Verb verb) throws DriverException {
    try {
      verb.ask();
    } catch (JobStateException e) {
      throw new DriverException(Kind.JOB_STATE, DriverErrors.textOf(e), e);
    }
  }

  private static DriverJobStatus status(JobStatus status) {
    return switch (status) {
      case UNDEFINED -> DriverJobStatus.UNDEFINED;
      case CREATED -> DriverJobStatus.CREATED;
      case RUNNING -> DriverJobStatus.RUNNING;
      case PAUSED -> DriverJobStatus.PAUSED;
      case READY -> DriverJobStatus.READY;
      case STANDBY -> DriverJobStatus.STANDBY;
      case WAITING -> DriverJobStatus.WAITING;
      case PENDING -> DriverJobStatus.PENDING;
      case ABORTING -> DriverJobStatus.ABORTING;
      case CONCLUDED -> DriverJobStatus.CONCLUDED;
      case NULL -> DriverJobStatus.NULL;
    };
  }
}
