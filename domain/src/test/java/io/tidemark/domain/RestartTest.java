// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.StateStore;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// What a restart finds, wherever the daemon was killed.
class RestartTest {
  private static final String COPY = "copy-vda-libvirt-2-format";
  private static final String LOST_COPY =
      "block job copy-vda-libvirt-2-format of disk 'vda' failed: the daemon ended during it";
  private static final String BACKUP =
      "<domainbackup><disks>"
          + "<disk name='vda' type='file'><target file='/bk/a'/></disk>"
          + "<disk name='vdb' type='file'><target file='/bk/b'/></disk>"
          + "</disks></domainbackup>";

  /// What is done until the kill. Ends by itself when there is none.
  interface Work {
    void on(Daemon daemon, Domain domain) throws LibvirtException;
  }

  /// What must hold when the next daemon is up.
  interface Check {
    void on(Daemon before, Daemon after) throws LibvirtException;
  }

  /// Kills at each change that the work makes to what survives, before and after it.
  private static int atEveryChange(Work work, Check check) throws LibvirtException {
    int kills = 0;
    for (int at = 0; ; at++) {
      boolean killed = false;
      for (boolean first : new boolean[] {true, false}) {
        Daemon before = new Daemon(Daemon.usualMachine());
        Domain domain = before.startPersistent();
        before.view.killAtWrite(at, first);
        try {
          work.on(before, domain);
        } catch (Machine.Killed e) {
          assertThat(before.view.isDead()).isTrue();
        }
        boolean wasKilled = before.view.isDead();
        before.view.kill();
        Daemon after = new Daemon(before.machine);
        after.domains.restore();
        check.on(before, after);
        killed |= wasKilled;
        kills += wasKilled ? 1 : 0;
      }
      if (!killed) {
        return kills;
      }
    }
  }

  private static boolean waitFor(Daemon daemon, String event) {
    List<String> seen = new ArrayList<>();
    Daemon.await(() -> {
      seen.addAll(daemon.takeEvents());
      return daemon.view.isDead() || seen.contains(event);
    });
    return seen.contains(event);
  }

  private static String sourceOf(Domain domain, int flags) throws LibvirtException {
    String xml = domain.xmlDesc(flags);
    int start = xml.indexOf("<source file='") + "<source file='".length();
    return xml.substring(start, xml.indexOf('\'', start));
  }

  @Test
  void pivotLeavesTheGuestWhereItsWritesWent() throws LibvirtException {
    int kills =
        atEveryChange(
            (daemon, domain) -> {
              domain.blockCopy(
                  "vda",
                  "<disk><source file='/img/copy'/></disk>",
                  List.of(),
                  Flags.COPY_TRANSIENT_JOB);
              daemon.running().ready(COPY);
              if (waitFor(daemon, "BLOCK_JOB_2 vda COPY READY")) {
                domain.blockJobAbort("vda", Flags.ABORT_PIVOT | Flags.ABORT_ASYNC);
                waitFor(daemon, "BLOCK_JOB_2 vda COPY COMPLETED");
              }
            },
            (before, after) -> {
              Domain domain = after.domains.lookupByName("vm");
              assertThat(domain.isActive()).isTrue();
              String active = sourceOf(domain, 0);
              assertThat(after.running().writesTo("vda")).isEqualTo(active);
              boolean drained =
                  before.running().jobIds().contains(COPY)
                      && before.running().job(COPY).status == DriverJobStatus.PENDING;
              if (!drained) {
                assertThat(active).isEqualTo(before.running().writesTo("vda"));
              }
              assertThat(sourceOf(domain, Flags.XML_INACTIVE)).isEqualTo(active);
              assertThat(domain.xmlDesc(0)).doesNotContain("mirror");
              assertThat(after.machine.document(StateStore.Kind.LIVE, "vm").orElseThrow())
                  .doesNotContain("<copy ");
              domain.blockCopy("vda", "<disk><source file='/img/next'/></disk>", List.of(), 4);
            });
    assertThat(kills).isGreaterThanOrEqualTo(2 * 5);
  }

  @Test
  void interruptedCopyIsReportedFailed() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    before.startTransient().blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    before.view.kill();
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    assertThat(after.takeEvents())
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY FAILED", "BLOCK_JOB_2 vda COPY FAILED");
    assertThat(before.machine.has("/img/copy")).isTrue();
    assertThat(after.domains.lookupByName("vm").messages(0)).containsExactly(LOST_COPY);
    assertThat(after.domains.lookupByName("vm").messages(1)).isEmpty();
  }

  @Test
  void jobsThatRestartsEndedAreToldUntilTheDomainEnds() throws LibvirtException {
    Daemon daemon = new Daemon(Daemon.usualMachine());
    daemon.startPersistent();
    for (int kill = 0; kill < Live.MAX_LOST + 2; kill++) {
      daemon.domains.lookupByName("vm").blockPull("vda", 0, 0);
      daemon.view.kill();
      daemon = new Daemon(daemon.machine);
      daemon.domains.restore();
    }
    Domain domain = daemon.domains.lookupByName("vm");
    assertThat(domain.messages(0))
        .hasSize(Live.MAX_LOST)
        .allMatch(job -> job.endsWith("of disk 'vda' failed: the daemon ended during it"));
    domain.destroy(0);
    domain.create(0, this);
    assertThat(domain.messages(0)).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void backupIsWholeOrNotThere(boolean succeeds) throws LibvirtException {
    int kills =
        atEveryChange(
            (daemon, domain) -> {
              domain.backupBegin(BACKUP, "<domaincheckpoint><name>c1</name></domaincheckpoint>", 0);
              if (succeeds) {
                daemon.running().jobIds().forEach(daemon.running()::finish);
              } else {
                domain.abortJob(0);
              }
              waitFor(daemon, "BLOCK_JOB_2 vdb BACKUP " + (succeeds ? "COMPLETED" : "CANCELED"));
            },
            RestartTest::checkBackup);
    assertThat(kills).isGreaterThanOrEqualTo(2 * 7);
  }

  private static void checkBackup(Daemon before, Daemon after) throws LibvirtException {
    Machine machine = before.machine;
    assertThat(machine.files()).noneMatch(file -> file.endsWith(BackupPlan.PARTIAL_SUFFIX));
    assertThat(machine.has("/bk/a")).isEqualTo(machine.has("/bk/b"));
    if (machine.has("/bk/a")) {
      assertThat(machine.opened("/bk/a").complete()).isTrue();
      assertThat(machine.opened("/bk/b").complete()).isTrue();
    }
    Domain domain = after.domains.lookupByName("vm");
    JobStats last = domain.jobStats(Flags.JOB_STATS_COMPLETED);
    if (last.type() != 0) {
      assertThat(last.type()).isEqualTo(machine.has("/bk/a") ? 3 : 4);
      if (last.type() == 4) {
        assertThat(Daemon.params(last.params()))
            .endsWith("success=false errmsg=the daemon ended during the backup");
      }
    }
    checkCheckpoint(domain, machine, "c1");
    assertRefused(() -> domain.backupXmlDesc(0), 104, 10);
    domain.backupBegin(BACKUP.replace("/bk/", "/new/"), null, 0);
  }

  /// A checkpoint is there with its bitmaps or not at all, and is not trusted after a kill.
  private static void checkCheckpoint(Domain domain, Machine machine, String name)
      throws LibvirtException {
    boolean there = domain.checkpoints(0).stream().anyMatch(one -> one.name().equals(name));
    for (String image : List.of("/img/a.qcow2", "/img/b.qcow2")) {
      assertThat(machine.bitmaps.getOrDefault(Path.of(image), Map.of()).containsKey(name))
          .as("bitmap in %s", image)
          .isEqualTo(there);
    }
    if (there) {
      assertRefused(
          () ->
              domain.backupBegin(
                  BACKUP
                      .replace("/bk/", "/inc/")
                      .replace("<disks>", "<incremental>" + name + "</incremental><disks>"),
                  null,
                  0),
          109,
          10,
          "checkpoint inconsistent: missing or broken bitmap '" + name + "' for disk 'vda'");
    }
  }

  @Test
  void checkpointIsThereWithItsBitmapsOrNotAtAll() throws LibvirtException {
    int kills =
        atEveryChange(
            (_, domain) ->
                domain.checkpointCreateXml(
                    "<domaincheckpoint><name>c1</name></domaincheckpoint>", 0),
            (before, after) ->
                checkCheckpoint(after.domains.lookupByName("vm"), before.machine, "c1"));
    assertThat(kills).isEqualTo(2 * 3);
  }

  @Test
  void deletedCheckpointCanBeDeletedAgain() throws LibvirtException {
    atEveryChange(
        (_, domain) -> {
          for (String name : List.of("a", "b", "c")) {
            domain.checkpointCreateXml(
                "<domaincheckpoint><name>" + name + "</name></domaincheckpoint>", 0);
          }
          domain.checkpointLookupByName("b", 0).delete(0);
        },
        (_, after) -> {
          Domain domain = after.domains.lookupByName("vm");
          for (Checkpoint one : domain.checkpoints(0)) {
            one.delete(Flags.CHECKPOINT_DELETE_METADATA_ONLY);
          }
          assertThat(after.machine.documents.get(StateStore.Kind.CHECKPOINT)).isEmpty();
        });
  }

  @Test
  void cleanRestartTakesUpDomainsWithNumbersAndIds() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    Domain domain = before.startTransient();
    domain.suspend();
    String xml = domain.xmlDesc(0);
    before.domains.shutdown();
    assertThat(before.running().detached).isTrue();
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    Domain again = after.domains.lookupByName("vm");
    assertThat(again.xmlDesc(0)).isEqualTo(xml);
    assertThat(again.state()).isEqualTo(DomainState.PAUSED_USER);
    assertThat(after.driver.reattached.getFirst().paused()).isTrue();
    again.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertThat(again.xmlDesc(0)).contains("file='/img/copy' index='4'");
    Domain second =
        after.domains.createXml(
            "<domain type='tidemark'><name>two</name></domain>", 0, Daemon.CLIENT);
    assertThat(second.id()).isEqualTo(2);
  }

  @Test
  void domainThatCannotBeTakenUpIsShownShutOff() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    before.startPersistent();
    before.view.kill();
    Daemon after = new Daemon(before.machine);
    after.driver.refuseReattach = true;
    after.domains.restore();
    Domain domain = after.domains.lookupByName("vm");
    assertThat(domain.state()).isEqualTo(DomainState.SHUTOFF_FAILED);
    assertThat(before.machine.documents.get(StateStore.Kind.LIVE)).isEmpty();
    domain.create(0, Daemon.CLIENT);
  }

  @Test
  void newerRecordIsLeftAloneAndItsDomainNotStarted() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    before.startTransient();
    before.view.kill();
    Map<String, String> lives =
        java.util.Objects.requireNonNull(before.machine.documents.get(StateStore.Kind.LIVE));
    String newer =
        before
            .machine
            .document(StateStore.Kind.LIVE, "vm")
            .orElseThrow()
            .replace("version='2'", "version='3'");
    lives.put("vm", newer);
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    Domain domain = after.domains.lookupByUuid(Daemon.UUID_A);
    assertThat(domain.isActive()).isFalse();
    assertRefused(
        () -> after.domains.createXml(Daemon.usualXml(), 0, Daemon.CLIENT),
        55,
        10,
        "Requested operation is not valid: domain 'vm' is held by a daemon's state: live record of"
            + " version 3, this program knows 2; start it with the program that wrote it");
    assertThat(lives).containsEntry("vm", newer);
    assertThat(after.driver.running).isEmpty();
  }

  @Test
  void damagedRecordsAreLeftAloneAndTheRestIsTakenUp() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    before.startPersistent();
    before.view.kill();
    String live = before.machine.document(StateStore.Kind.LIVE, "vm").orElseThrow();
    Map<String, String> lives =
        java.util.Objects.requireNonNull(before.machine.documents.get(StateStore.Kind.LIVE));
    for (int cut = 0; cut < live.length(); cut += 7) {
      lives.put("vm", live.substring(0, cut));
      Daemon after = new Daemon(before.machine);
      after.domains.restore();
      assertThat(after.domains.lookupByName("vm").isActive()).isFalse();
      assertThat(before.machine.document(StateStore.Kind.LIVE, "vm"))
          .hasValue(live.substring(0, cut));
    }
  }

  @Test
  void rebootForgetsTransientDomainsAndTheirCheckpoints() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    Domain domain = before.startTransient();
    domain.checkpointCreateXml("<domaincheckpoint><name>c</name></domaincheckpoint>", 0);
    before.view.kill();
    java.util.Objects.requireNonNull(before.machine.documents.get(StateStore.Kind.LIVE)).clear();
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    assertThat(after.domains.list(0)).isEmpty();
    assertThat(before.machine.documents.get(StateStore.Kind.CHECKPOINT)).isEmpty();
  }

  @Test
  void autodestroyedDomainEndsWithItsConnectionOrTheDaemon() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    Object client = new Object();
    Domain domain = before.domains.createXml(Daemon.usualXml(), Flags.START_AUTODESTROY, client);
    before.domains.connectionClosed(new Object());
    assertThat(domain.isActive()).isTrue();
    before.domains.connectionClosed(client);
    assertThat(before.domains.list(0)).isEmpty();
    before.domains.createXml(Daemon.usualXml(), Flags.START_AUTODESTROY, client);
    before.view.kill();
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    assertThat(after.domains.list(0)).isEmpty();
    assertThat(before.machine.documents.get(StateStore.Kind.LIVE)).isEmpty();
  }

  @Test
  void autostartedDomainsRunAfterARestart() throws LibvirtException {
    Daemon before = new Daemon(Daemon.usualMachine());
    Domain domain = before.domains.defineXml(Daemon.usualXml(), 0);
    domain.setAutostart(true);
    before.view.kill();
    Daemon after = new Daemon(before.machine);
    after.domains.restore();
    Domain again = after.domains.lookupByName("vm");
    assertThat(again.autostart()).isTrue();
    assertThat(again.isActive()).isFalse();
    after.domains.autostart();
    assertThat(again.isActive()).isTrue();
  }
}
