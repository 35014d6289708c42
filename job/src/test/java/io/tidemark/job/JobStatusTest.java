// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static io.tidemark.job.JobStatus.ABORTING;
import static io.tidemark.job.JobStatus.CONCLUDED;
import static io.tidemark.job.JobStatus.CREATED;
import static io.tidemark.job.JobStatus.NULL;
import static io.tidemark.job.JobStatus.PAUSED;
import static io.tidemark.job.JobStatus.PENDING;
import static io.tidemark.job.JobStatus.READY;
import static io.tidemark.job.JobStatus.RUNNING;
import static io.tidemark.job.JobStatus.STANDBY;
import static io.tidemark.job.JobStatus.UNDEFINED;
import static io.tidemark.job.JobStatus.WAITING;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.EnumSet;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

class JobStatusTest {
  /// QEMU's two tables, as rows of what is allowed.
  private static final Map<JobStatus, Set<JobStatus>> NEXT =
      Map.ofEntries(
          Map.entry(UNDEFINED, Set.of(CREATED)),
          Map.entry(CREATED, Set.of(RUNNING, ABORTING, NULL)),
          Map.entry(RUNNING, Set.of(PAUSED, READY, WAITING, ABORTING)),
          Map.entry(PAUSED, Set.of(RUNNING)),
          Map.entry(READY, Set.of(STANDBY, WAITING, ABORTING)),
          Map.entry(STANDBY, Set.of(READY)),
          Map.entry(WAITING, Set.of(PENDING, ABORTING)),
          Map.entry(PENDING, Set.of(ABORTING, CONCLUDED)),
          Map.entry(ABORTING, Set.of(ABORTING, CONCLUDED)),
          Map.entry(CONCLUDED, Set.of(NULL)),
          Map.entry(NULL, Set.of()));

  private static final Map<JobVerb, Set<JobStatus>> ALLOWED =
      Map.of(
          JobVerb.START, EnumSet.of(CREATED),
          JobVerb.CANCEL, EnumSet.of(CREATED, RUNNING, PAUSED, READY, STANDBY, WAITING, PENDING),
          JobVerb.PAUSE, EnumSet.of(CREATED, RUNNING, PAUSED, READY, STANDBY),
          JobVerb.RESUME, EnumSet.of(CREATED, RUNNING, PAUSED, READY, STANDBY),
          JobVerb.SET_SPEED, EnumSet.of(CREATED, RUNNING, PAUSED, READY, STANDBY),
          JobVerb.COMPLETE, EnumSet.of(READY),
          JobVerb.FINALIZE, EnumSet.of(PENDING),
          JobVerb.DISMISS, EnumSet.of(CONCLUDED));

  /// A job that goes where it is sent.
  private static final class Sent extends Job {
    Sent() {
      super("sent", 0, JobClock.SYSTEM);
    }

    @Override
    public JobProgress progress() {
      return new JobProgress(0, 0);
    }

    @Override
    void run() {}

    void send(JobStatus to) {
      locked(() -> move(to));
    }

    static Sent in(JobStatus wanted) {
      var job = new Sent();
      for (JobStatus step : path(wanted)) {
        job.send(step);
      }
      return job;
    }

    private static java.util.List<JobStatus> path(JobStatus to) {
      return switch (to) {
        case UNDEFINED, CREATED -> java.util.List.of();
        case RUNNING -> java.util.List.of(RUNNING);
        case PAUSED -> java.util.List.of(RUNNING, PAUSED);
        case READY -> java.util.List.of(RUNNING, READY);
        case STANDBY -> java.util.List.of(RUNNING, READY, STANDBY);
        case WAITING -> java.util.List.of(RUNNING, WAITING);
        case PENDING -> java.util.List.of(RUNNING, WAITING, PENDING);
        case ABORTING -> java.util.List.of(ABORTING);
        case CONCLUDED -> java.util.List.of(ABORTING, CONCLUDED);
        case NULL -> java.util.List.of(NULL);
      };
    }
  }

  @Test
  void everyMoveIsAllowedOrRefusedAsQemusTableSays() {
    for (JobStatus from : JobStatus.values()) {
      assertThat(from.next()).as(from.name()).isEqualTo(NEXT.get(from));
      if (from == UNDEFINED) {
        continue;
      }
      for (JobStatus to : JobStatus.values()) {
        Sent job = Sent.in(from);
        if (NEXT.getOrDefault(from, Set.of()).contains(to)) {
          job.send(to);
          assertThat(job.status()).isEqualTo(to);
        } else {
          assertThatThrownBy(() -> job.send(to)).isInstanceOf(IllegalStateException.class);
          assertThat(job.status()).isEqualTo(from);
        }
      }
    }
  }

  @Test
  void everyVerbIsAllowedOrRefusedAsQemusTableSays() {
    for (JobVerb verb : JobVerb.values()) {
      assertThat(verb.allowedIn()).as(verb.name()).isEqualTo(ALLOWED.get(verb));
      for (JobStatus status : JobStatus.values()) {
        if (status == UNDEFINED || verb.allowedIn(status)) {
          continue;
        }
        Sent job = Sent.in(status);
        assertThatThrownBy(() -> ask(job, verb))
            .isInstanceOfSatisfying(
                JobStateException.class,
                e -> {
                  assertThat(e.jobId()).isEqualTo("sent");
                  assertThat(e.verb()).isEqualTo(verb);
                  assertThat(e.status()).isEqualTo(status);
                });
        assertThat(job.status()).isEqualTo(status);
      }
    }
  }

  private static void ask(Job job, JobVerb verb) throws JobStateException {
    switch (verb) {
      case START -> job.launch();
      case CANCEL -> job.cancel();
      case PAUSE -> job.pause();
      case RESUME -> job.resume();
      case SET_SPEED -> job.setSpeed(1);
      case COMPLETE -> job.complete();
      case FINALIZE -> job.finalizeJob();
      case DISMISS -> job.dismiss();
    }
  }

  @Test
  void refusalNamesJobVerbAndStatus() {
    assertThat(new JobStateException("copy-vda", JobVerb.COMPLETE, RUNNING))
        .hasMessage("job copy-vda: cannot complete while running");
  }

  @Test
  void listenersHearEveryStatusInOrderWithoutTheJobsLock() throws Exception {
    var heard = new java.util.concurrent.LinkedBlockingQueue<JobStatus>();
    var locked = new java.util.concurrent.atomic.AtomicBoolean();
    var job = new Sent();
    job.addListener((j, status) -> {
      locked.compareAndSet(false, j.lock.isHeldByCurrentThread());
      heard.add(status);
    });
    for (JobStatus to : new JobStatus[] {RUNNING, PAUSED, RUNNING, READY, WAITING, PENDING}) {
      job.send(to);
    }
    job.send(CONCLUDED);
    job.dismiss();
    for (JobStatus to :
        new JobStatus[] {RUNNING, PAUSED, RUNNING, READY, WAITING, PENDING, CONCLUDED, NULL}) {
      assertThat(heard.poll(10, java.util.concurrent.TimeUnit.SECONDS)).isEqualTo(to);
    }
    assertThat(locked).isFalse();
  }

  @Test
  void cancelBeforeTheStartConcludes() throws Exception {
    var job = new Sent();
    job.cancel();
    assertThat(job.status()).isEqualTo(CONCLUDED);
    assertThat(job.cancelled()).isTrue();
  }
}
