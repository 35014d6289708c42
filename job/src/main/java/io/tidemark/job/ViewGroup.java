// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.List;

/// Views of several drives as they all were at one instant: what a client that pulls a backup
/// reads. They last until they are cancelled; that is how they end well.
public final class ViewGroup extends InstantGroup {
  private final List<ViewJob> jobs;

  /// @param members at least one; no drive twice
  public ViewGroup(List<ViewOptions> members) {
    this.jobs = members.stream().map(ViewJob::new).toList();
    check(jobs);
    jobs.forEach(job -> job.addListener(this::follow));
  }

  /// In the order given. Listeners are added before [#start].
  public List<ViewJob> jobs() {
    return jobs;
  }

  @Override
  List<ViewJob> members() {
    return jobs;
  }
}
