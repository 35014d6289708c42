// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.util.Locale;

/// A verb was asked of a job whose status does not allow it. Nothing was changed.
public final class JobStateException extends Exception {
  private static final long serialVersionUID = 1L;

  private final String jobId;
  private final JobVerb verb;
  private final JobStatus status;

  public JobStateException(String jobId, JobVerb verb, JobStatus status) {
    super(
        "job "
            + jobId
            + ": cannot "
            + verb.name().toLowerCase(Locale.ROOT).replace('_', ' ')
            + " while "
            + status.name().toLowerCase(Locale.ROOT));
    this.jobId = jobId;
    this.verb = verb;
    this.status = status;
  }

  public String jobId() {
    return jobId;
  }

  public JobVerb verb() {
    return verb;
  }

  public JobStatus status() {
    return status;
  }
}
