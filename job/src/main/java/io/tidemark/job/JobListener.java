// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

/// Hears of every status a job takes.
@FunctionalInterface
public interface JobListener {
  /// The job took `status`. Calls for one job come one after the other, in the order of the moves,
  /// from a thread of the job's own that holds none of its locks; by then the job may have moved
  /// on.
  void statusChanged(Job job, JobStatus status);
}
