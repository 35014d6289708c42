// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.List;

/// Backups of several drives as they all were at one instant. All end well, or none does.
public final class BackupGroup {
  /// What else happens at the instant, with every drive of the group drained.
  @FunctionalInterface
  public interface InstantAction<X extends Exception> {
    void run() throws X;
  }

  private final List<BackupJob> jobs;

  /// @param members at least one; no drive twice
  public BackupGroup(List<BackupOptions> members) {
    this.jobs = members.stream().map(BackupJob::new).toList();
  }

  /// In the order given. Listeners are added before [#start].
  public List<BackupJob> jobs() {
    return jobs;
  }

  /// Drains every drive, in the order of their names; runs `action`; takes the bitmaps as they then
  /// are; begins to keep old bytes; lets the guest go on; starts the jobs. When `action` throws,
  /// nothing of this was done and every job is concluded as cancelled.
  public <X extends Exception> void start(InstantAction<X> action) throws X, JobStateException {
    throw new UnsupportedOperationException();
  }
}
