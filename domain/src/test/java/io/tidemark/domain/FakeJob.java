// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.JobState;
import java.util.Optional;

/// A job as the test drives it.
final class FakeJob {
  final String id;
  final String target;
  final JobState.Kind kind;
  final Optional<String> node;
  DriverJobStatus status = DriverJobStatus.RUNNING;
  long current;
  long total = 1 << 20;
  long bandwidth;
  Optional<DriverException> error = Optional.empty();
  boolean cancelled;

  FakeJob(String id, String target, JobState.Kind kind, String node, long bandwidth) {
    this.id = id;
    this.target = target;
    this.kind = kind;
    this.node = Optional.of(node);
    this.bandwidth = bandwidth;
  }
}
