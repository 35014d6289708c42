// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.domain.spi.ViewServerSpec.Address;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PullBackupTest {
  private static final String VDA = "backup-vda-libvirt-4-format";
  private static final String VDB = "backup-vdb-libvirt-5-format";
  private static final String SERVER = "<server transport='unix' socket='/run/s'/>";
  private static final String ONE =
      pull("", "<disk name='vda' incremental='c1'><scratch file='/bk/s'/></disk>");
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String pull(String incremental, String disks) {
    return "<domainbackup mode='pull'>"
        + incremental
        + SERVER
        + (disks.isEmpty() ? "" : "<disks>" + disks + "</disks>")
        + "</domainbackup>";
  }

  private static String checkpoint(String name) {
    return "<domaincheckpoint><name>" + name + "</name></domaincheckpoint>";
  }

  @Test
  void servesAViewOfEachDiskUntilItsClientEndsIt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.checkpointCreateXml(checkpoint("c1"), 0);
    domain.backupBegin(pull("<incremental>c1</incremental>", ""), checkpoint("c2"), 0);
    FakeDomain running = daemon.running();
    assertThat(running.viewServer)
        .hasValue(new ViewServerSpec(new Address.Unix(Path.of("/run/s")), false));
    assertThat(running.viewExports)
        .containsExactly(
            new ViewExportSpec(VDA, "vda", Optional.of("backup-vda")),
            new ViewExportSpec(VDB, "vdb", Optional.of("backup-vdb")));
    assertThat(domain.checkpoints(0)).hasSize(2);
    assertThat(domain.backupXmlDesc(0))
        .contains(
            "<server transport='unix' socket='/run/s'/>",
            "exportname='vda' exportbitmap='backup-vda' index='4'",
            "<scratch file='/img/a.qcow2.c2'/>");
    running.job(VDA).current = 300;
    assertThat(Daemon.params(domain.jobStats(0).params()))
        .isEqualTo("operation=9 time_elapsed=0 disk_temp_used=300 disk_temp_total=2097152");
    domain.abortJob(0);
    assertThat(daemon.awaitEvents(5))
        .containsExactly(
            "BLOCK_JOB /img/b.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vdb BACKUP CANCELED",
            "JOB_COMPLETED operation=9 time_elapsed=0 disk_temp_used=300"
                + " disk_temp_total=2097152 success=true errmsg=Operation canceled",
            "BLOCK_JOB /img/a.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vda BACKUP CANCELED");
    assertThat(domain.jobStats(1).type()).isEqualTo(3);
    assertThat(running.viewServer).isEmpty();
    assertThat(machine.files()).noneMatch(file -> file.endsWith(".c2"));
    assertThat(machine.bitmaps.get(Path.of("/img/a.qcow2"))).containsOnlyKeys("c1", "c2");
  }

  @Test
  void scratchThatFailsEndsTheBackupAsFailed() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(pull("", ""), null, 0);
    daemon.running().fail(VDB, DriverException.Kind.OUT_OF_SPACE, "write at 5: ENOSPC");
    assertThat(daemon.awaitEvents(5))
        .containsExactly(
            "BLOCK_JOB /img/b.qcow2 BACKUP FAILED",
            "BLOCK_JOB_2 vdb BACKUP FAILED",
            "JOB_COMPLETED operation=9 time_elapsed=0 disk_temp_used=0 disk_temp_total=2097152"
                + " success=false errmsg=No space left on device",
            "BLOCK_JOB /img/a.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vda BACKUP CANCELED");
    assertThat(domain.jobStats(1).type()).isEqualTo(4);
    assertThat(daemon.running().viewServer).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(strings = {"addNode libvirt-4", "startViewServer", "transaction", "exportView"})
  void beginThatFailsLeavesNothing(String verb) throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.checkpointCreateXml(checkpoint("c1"), 0);
    daemon.running().failOn(verb, DriverException.Kind.GENERIC, "no");
    assertRefused(() -> domain.backupBegin(ONE, null, 0), 1, 10);
    assertThat(machine.has("/bk/s")).isFalse();
    assertThat(daemon.running().viewServer).isEmpty();
    assertThat(domain.jobStats(0)).isEqualTo(JobStats.NONE);
    assertThat(domain.jobStats(1)).isEqualTo(JobStats.NONE);
    assertThat(machine.bitmaps.get(Path.of("/img/a.qcow2"))).containsOnlyKeys("c1");
    assertThat(daemon.takeEvents()).noneMatch(event -> event.startsWith("JOB_COMPLETED"));
    domain.backupBegin(ONE, null, 0);
  }

  @Test
  void reusedScratchStays() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.checkpointCreateXml(checkpoint("c1"), 0);
    domain.backupBegin(ONE, null, 0);
    domain.abortJob(0);
    daemon.awaitEvents(3);
    assertThat(machine.has("/bk/s")).isFalse();
    machine.image("/bk/s", "qcow2", 8 << 20);
    domain.backupBegin(ONE, null, Flags.BACKUP_REUSE_EXTERNAL);
    domain.abortJob(0);
    daemon.awaitEvents(3);
    assertThat(machine.has("/bk/s")).isTrue();
  }

  @Test
  void destroyTellsTheEndOfTheBackupOnly() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(pull("", ""), null, 0);
    domain.destroy(0);
    assertThat(daemon.takeEvents())
        .containsExactly(
            "JOB_COMPLETED operation=9 time_elapsed=0 success=false", "STOPPED_DESTROYED");
    assertThat(machine.files()).noneMatch(file -> file.matches("/img/a.qcow2.+"));
  }

  @Test
  void refusesEncryptedImagesAndWhatNoSchemaKnows() throws LibvirtException {
    Domain domain = daemon.startTransient();
    String scratch = "<disk name='vda'><scratch file='/bk/s'>%s</scratch></disk>";
    assertRefused(
        () ->
            domain.backupBegin(pull("", scratch.formatted("<encryption format='luks'/>")), null, 0),
        67,
        10);
    assertRefused(() -> domain.backupBegin(pull("", scratch.formatted("<x/>")), null, 0), 92, 5);
    assertThat(machine.has("/bk/s")).isFalse();
  }

  /// What a kill leaves: the record knows the scratch, and the next daemon removes it.
  @Test
  void killedDaemonsBackupIsReportedFailedAndItsScratchRemoved() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(
        pull("", "<disk name='vda'><scratch file='/bk/s'/></disk>"), checkpoint("c1"), 0);
    assertThat(machine.has("/bk/s")).isTrue();
    daemon.view.kill();
    Daemon next = new Daemon(machine);
    next.domains.restore();
    assertThat(machine.has("/bk/s")).isFalse();
    Domain again = next.domains.lookupByName("vm");
    assertThat(again.jobStats(0)).isEqualTo(JobStats.NONE);
    JobStats over = again.jobStats(1);
    assertThat(over.type()).isEqualTo(4);
    assertThat(Daemon.params(over.params()))
        .contains("success=false errmsg=the daemon ended during the backup");
    assertThat(again.checkpoints(0)).hasSize(1);
    assertRefused(
        () ->
            again.backupBegin(
                pull("", "<disk name='vda' incremental='c1'><scratch file='/bk/s'/></disk>"),
                null,
                0),
        109,
        10);
  }

  /// Who put a file under the scratch's name after a kill keeps it.
  @Test
  void anotherFileOfTheScratchsNameStays() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(pull("", "<disk name='vda'><scratch file='/bk/s'/></disk>"), null, 0);
    daemon.view.kill();
    machine.image("/bk/s", "qcow2", 4096);
    Daemon next = new Daemon(machine);
    next.domains.restore();
    assertThat(machine.has("/bk/s")).isTrue();
  }
}
