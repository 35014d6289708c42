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

/// Jobs over several drives that begin at one instant of all of them. When one ends without
/// success, all do.
public abstract sealed class InstantGroup permits BackupGroup, ViewGroup {
  /// Drives in one group.
  public static final int MAX_MEMBERS = 1024;

  /// What else happens at the instant, with every drive of the group drained.
  @FunctionalInterface
  public interface InstantAction<X extends Exception> {
    void run() throws X;
  }

  InstantGroup() {}

  abstract List<? extends InstantJob> members();

  /// Called once the members are there.
  static void check(List<? extends InstantJob> members) {
    if (members.isEmpty() || members.size() > MAX_MEMBERS) {
      throw new IllegalArgumentException(
          "a group of %d drives, 1 to %d are wanted".formatted(members.size(), MAX_MEMBERS));
    }
    Set<Drive> drives = Collections.newSetFromMap(new IdentityHashMap<>());
    for (InstantJob member : members) {
      if (!drives.add(member.source())) {
        throw new IllegalArgumentException(
            "job %s: drive %s is in the group twice"
                .formatted(member.id(), member.source().name()));
      }
    }
  }

  /// Drains every drive, in the order of their names; runs `action`; takes the bitmaps as they then
  /// are; begins to keep old bytes; lets the guest go on; starts the jobs. When `action` throws, or
  /// a job was cancelled before, nothing of this was done and every job is concluded as cancelled.
  public final <X extends Exception> void start(InstantAction<X> action)
      throws X, JobStateException {
    for (InstantJob job : members()) {
      if (job.status() != JobStatus.CREATED) {
        throw new JobStateException(job.id(), JobVerb.START, job.status());
      }
    }
    Deque<Drive.Drained> drained = new ArrayDeque<>();
    boolean started = false;
    try {
      members().stream()
          .map(InstantJob::source)
          .sorted(Comparator.comparing(Drive::name))
          .forEach(drive -> drained.push(drive.drain()));
      action.run();
      members().forEach(InstantJob::freeze);
      for (InstantJob job : members()) {
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
    for (InstantJob job : members()) {
      job.cancelQuietly();
      job.thaw();
    }
  }

  /// A listener of each member: one that ends without success takes the others with it.
  final void follow(Job job, JobStatus status) {
    if (status == JobStatus.ABORTING) {
      members().stream().filter(other -> other != job).forEach(Job::cancelQuietly);
    }
  }
}
