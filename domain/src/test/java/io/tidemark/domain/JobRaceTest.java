// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriverException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.RepeatedTest;
import org.junit.jupiter.api.RepetitionInfo;

/// Driver, clients and the end of the domain at once: each job tells its end once, nobody waits for
/// ever.
class JobRaceTest {
  private static final String COPY = "copy-vda-libvirt-2-format";
  private static final List<String> ENDS =
      List.of(
          "BLOCK_JOB_2 vda COPY COMPLETED",
          "BLOCK_JOB_2 vda COPY CANCELED",
          "BLOCK_JOB_2 vda COPY FAILED");

  interface Action {
    void run() throws Exception;
  }

  @RepeatedTest(150)
  void copyEndsOnceWhoeverIsFaster(RepetitionInfo repetition) throws Exception {
    long seed = repetition.getCurrentRepetition();
    Random random = new Random(seed);
    Daemon daemon = new Daemon(Daemon.usualMachine());
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    FakeDomain running = daemon.running();
    running.ready(COPY);
    List<Action> actions = new ArrayList<>();
    actions.add(() -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT));
    actions.add(() -> domain.blockJobAbort("vda", 0));
    actions.add(() -> domain.blockJobInfo("vda", 0));
    actions.add(() -> domain.xmlDesc(0));
    actions.add(() -> domain.blockJobSetSpeed("vda", 1, 0));
    if (random.nextBoolean()) {
      actions.add(() -> running.failIfThere(COPY, DriverException.Kind.GENERIC, "oops"));
    }
    boolean destroyed = random.nextInt(4) == 0;
    if (destroyed) {
      actions.add(() -> domain.destroy(0));
    }
    runAll(seed, actions, random);
    List<String> seen = new ArrayList<>();
    if (!destroyed) {
      Daemon.await(() -> {
        seen.addAll(daemon.takeEvents());
        return seen.stream().anyMatch(ENDS::contains);
      });
      assertThat(running.writesTo("vda"))
          .as("seed %d", seed)
          .isEqualTo(seen.contains(ENDS.getFirst()) ? "/img/copy" : "/img/a.qcow2");
      assertThat(domain.xmlDesc(0)).contains(running.writesTo("vda")).doesNotContain("mirror");
      assertThat(domain.blockJobInfo("vda", 0)).isEmpty();
    }
    seen.addAll(daemon.takeEvents());
    assertThat(seen.stream().filter(ENDS::contains).count())
        .as("seed %d: %s", seed, seen)
        .isLessThanOrEqualTo(1);
  }

  @RepeatedTest(100)
  void backupEndsOnceWhoeverIsFaster(RepetitionInfo repetition) throws Exception {
    long seed = repetition.getCurrentRepetition();
    Random random = new Random(seed);
    Daemon daemon = new Daemon(Daemon.usualMachine());
    Domain domain = daemon.startTransient();
    domain.backupBegin("<domainbackup/>", null, 0);
    FakeDomain running = daemon.running();
    List<Action> actions = new ArrayList<>();
    for (String job : running.jobIds()) {
      actions.add(() -> running.finishIfThere(job));
    }
    actions.add(() -> domain.abortJob(0));
    actions.add(() -> domain.blockJobAbort("vda", 0));
    actions.add(() -> domain.jobStats(0));
    actions.add(() -> domain.backupXmlDesc(0));
    boolean destroyed = random.nextInt(4) == 0;
    if (destroyed) {
      actions.add(() -> domain.destroy(0));
    }
    runAll(seed, actions, random);
    List<String> seen = new ArrayList<>();
    Daemon.await(() -> {
      seen.addAll(daemon.takeEvents());
      return seen.stream().anyMatch(event -> event.startsWith("JOB_COMPLETED"));
    });
    Daemon.await(() -> destroyed || noBackup(domain));
    seen.addAll(daemon.takeEvents());
    assertThat(seen.stream().filter(event -> event.startsWith("JOB_COMPLETED")))
        .as("seed %d: %s", seed, seen)
        .hasSize(1);
    boolean success = seen.stream().anyMatch(event -> event.contains("success=true"));
    assertThat(daemon.machine.has("/img/a.qcow2.1800000000")).isEqualTo(success);
    assertThat(daemon.machine.has("/img/b.qcow2.1800000000")).isEqualTo(success);
    assertThat(daemon.machine.files()).noneMatch(file -> file.endsWith(BackupPlan.PARTIAL_SUFFIX));
  }

  private static boolean noBackup(Domain domain) {
    try {
      return domain.jobInfo().type() == 0;
    } catch (LibvirtException e) {
      return true;
    }
  }

  private static void runAll(long seed, List<Action> actions, Random random)
      throws InterruptedException {
    java.util.Collections.shuffle(actions, random);
    var start = new CountDownLatch(1);
    List<Thread> threads = new ArrayList<>();
    List<Throwable> wrong = java.util.Collections.synchronizedList(new ArrayList<>());
    for (Action action : actions) {
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try {
                  start.await();
                  action.run();
                } catch (LibvirtException e) {
                  // Refused: another was faster.
                  assertThat(e.code().number()).isPositive();
                } catch (Throwable e) {
                  wrong.add(e);
                }
              }));
    }
    start.countDown();
    for (Thread thread : threads) {
      assertThat(thread.join(Duration.ofSeconds(20))).as("seed %d: a call hangs", seed).isTrue();
    }
    assertThat(wrong).as("seed %d", seed).isEmpty();
  }
}
