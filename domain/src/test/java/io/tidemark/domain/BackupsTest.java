// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.StateStore;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class BackupsTest {
  private static final String VDA = "backup-vda-libvirt-4-format";
  private static final String VDB = "backup-vdb-libvirt-5-format";
  private static final String BOTH =
      disks(
          "<disk name='vda' type='file'><target file='/bk/a'/></disk>"
              + "<disk name='vdb' type='file'><target file='/bk/b'/><driver type='raw'/></disk>");
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String disks(String disks) {
    return "<domainbackup><disks>" + disks + "</disks></domainbackup>";
  }

  private static String one(String attributes, String children) {
    return disks("<disk name='vda' type='file'" + attributes + ">" + children + "</disk>");
  }

  private static String checkpoint(String name) {
    return "<domaincheckpoint><name>" + name + "</name></domaincheckpoint>";
  }

  private List<String> partials() {
    return machine.files().stream().filter(file -> file.endsWith(".tidemark-partial")).toList();
  }

  @Test
  void writesUnderAPartialNameUntilAllDisksAreComplete() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    assertThat(partials()).hasSize(2).allMatch(file -> file.startsWith("/bk/."));
    assertThat(domain.backupXmlDesc(0))
        .isEqualTo(
            """
            <domainbackup mode='push'>
              <disks>
                <disk name='vda' backup='yes' type='file' backupmode='full' index='4'>
                  <driver type='qcow2'/>
                  <target file='/bk/a'/>
                </disk>
                <disk name='vdb' backup='yes' type='file' backupmode='full' index='5'>
                  <driver type='raw'/>
                  <target file='/bk/b'/>
                </disk>
              </disks>
            </domainbackup>
            """);
    daemon.running().job(VDA).current = 100;
    assertThat(domain.jobStats(0).type()).isEqualTo(2);
    assertThat(Daemon.params(domain.jobStats(0).params()))
        .isEqualTo(
            "operation=9 time_elapsed=0 disk_total=2097152 disk_processed=100"
                + " disk_remaining=2097052");
    assertThat(domain.jobInfo().fileTotal()).isEqualTo(2 << 20);
    assertThat(domain.blockJobInfo("vdb", 0))
        .hasValue(new BlockJobInfo(BlockJobType.BACKUP, 0, 0, 1 << 20));
    daemon.running().finish(VDA);
    assertThat(machine.has("/bk/a")).isFalse();
    daemon.running().finish(VDB);
    String stats =
        "operation=9 time_elapsed=0 disk_total=2097152 disk_processed=2097152 disk_remaining=0"
            + " success=true";
    assertThat(daemon.awaitEvents(5))
        .containsExactly(
            "BLOCK_JOB /img/b.qcow2 BACKUP COMPLETED",
            "BLOCK_JOB_2 vdb BACKUP COMPLETED",
            "JOB_COMPLETED " + stats,
            "BLOCK_JOB /img/a.qcow2 BACKUP COMPLETED",
            "BLOCK_JOB_2 vda BACKUP COMPLETED");
    assertThat(partials()).isEmpty();
    assertThat(machine.opened("/bk/a").complete()).isTrue();
    assertThat(machine.opened("/bk/b").format()).isEqualTo("raw");
    assertThat(domain.jobStats(0)).isEqualTo(JobStats.NONE);
    assertThat(domain.jobStats(3).type()).isEqualTo(3);
    assertThat(Daemon.params(domain.jobStats(1).params())).isEqualTo(stats);
    assertThat(domain.jobStats(1)).isEqualTo(JobStats.NONE);
    assertRefused(
        () -> domain.backupXmlDesc(0),
        104,
        10,
        "Domain backup job id not found: no domain backup job present");
    assertThat(daemon.running().nodes).doesNotContainKeys("libvirt-4-format", "libvirt-5-format");
  }

  @Test
  void namesTargetsByTimeOrCheckpoint() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin("<domainbackup/>", null, 0);
    daemon.running().finish(VDA);
    daemon.running().finish(VDB);
    daemon.awaitEvents(5);
    assertThat(machine.has("/img/a.qcow2.1800000000")).isTrue();
    domain.backupBegin("<domainbackup/>", checkpoint("c1"), 0);
    daemon.running().jobIds().forEach(daemon.running()::finish);
    daemon.awaitEvents(5);
    assertThat(machine.has("/img/b.qcow2.c1")).isTrue();
    assertThat(domain.checkpoints(0)).hasSize(1);
  }

  @Test
  void incrementStandsOnTheSourceAndCopiesWhatTheCheckpointMarks() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.checkpointCreateXml(checkpoint("c1"), 0);
    daemon.running().guestWrites("vda", 131072);
    String xml = BOTH.replace("<disks>", "<incremental>c1</incremental><disks>");
    domain.backupBegin(xml, checkpoint("c2"), 0);
    assertThat(domain.backupXmlDesc(0))
        .contains(
            "<incremental>c1</incremental>", "backupmode='incremental' incremental='c1' index='4'");
    assertThat(machine.opened(partials().getFirst()).backing())
        .hasValueSatisfying(backing -> assertThat(backing.name()).isEqualTo("/img/a.qcow2"));
    assertThat(machine.opened(partials().get(1)).backing()).isEmpty(); // raw
    var bitmaps = requireNonNull(machine.bitmaps.get(Path.of("/img/a.qcow2")));
    assertThat(bitmaps).containsOnlyKeys("backup-vda", "c1", "c2");
    assertThat(bitmaps.get("backup-vda"))
        .isEqualTo(new BitmapState("backup-vda", 65536, 131072, true, false, false));
    daemon.running().finish(VDA);
    daemon.running().finish(VDB);
    daemon.awaitEvents(5);
    assertThat(bitmaps).containsOnlyKeys("c1", "c2");
  }

  @Test
  void checkpointMadeWithABackupRemainsWhenItFails() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, checkpoint("c1"), 0);
    daemon.running().fail(VDA, DriverException.Kind.OUT_OF_SPACE, "write at 5: ENOSPC");
    assertThat(daemon.awaitEvents(5))
        .containsExactly(
            "BLOCK_JOB /img/a.qcow2 BACKUP FAILED",
            "BLOCK_JOB_2 vda BACKUP FAILED",
            "JOB_COMPLETED operation=9 time_elapsed=0 disk_total=2097152 disk_processed=0"
                + " disk_remaining=2097152 success=false errmsg=No space left on device",
            "BLOCK_JOB /img/b.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vdb BACKUP CANCELED");
    assertThat(domain.jobStats(1).type()).isEqualTo(4);
    assertThat(domain.checkpoints(0)).hasSize(1);
    assertThat(partials()).isEmpty();
    assertThat(machine.has("/bk/a")).isFalse();
  }

  @Test
  void abortEndsAllDisks() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    domain.abortJob(0);
    assertThat(daemon.awaitEvents(5))
        .contains("BLOCK_JOB_2 vda BACKUP CANCELED", "BLOCK_JOB_2 vdb BACKUP CANCELED")
        .element(2)
        .asString()
        .endsWith("success=false errmsg=Operation canceled");
    assertThat(domain.jobStats(1).type()).isEqualTo(5);
    assertThat(partials()).isEmpty();
    assertRefused(
        () -> domain.abortJob(0),
        55,
        10,
        "Requested operation is not valid: no job is active on the domain");
  }

  @Test
  void abortOfOneDisksJobEndsTheWholeBackup() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    assertRefused(
        () -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT),
        83,
        10,
        "block copy still active: block job '" + VDA + "' not ready for pivot yet");
    domain.blockJobAbort("vda", 0);
    daemon.awaitEvents(5);
    assertRefused(() -> domain.backupXmlDesc(0), 104, 10);
  }

  @Test
  void destroyTellsOfTheBackupFirstAndLeavesNoFile() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    assertThat(domain.jobInfo().dataTotal()).isEqualTo(2 << 20);
    domain.destroy(0);
    assertThat(daemon.takeEvents())
        .containsExactly(
            "JOB_COMPLETED operation=9 time_elapsed=0 disk_total=2097152 disk_processed=0"
                + " disk_remaining=2097152 success=false",
            "STOPPED_DESTROYED");
    assertThat(partials()).isEmpty();
  }

  @Test
  void nameTakenMeanwhileFailsTheWholeBackup() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    machine.image("/bk/b", "raw", 1);
    daemon.running().finish(VDA);
    daemon.running().finish(VDB);
    assertThat(daemon.awaitEvents(5))
        .element(2)
        .asString()
        .contains("success=false errmsg=/bk/b: File exists");
    assertThat(machine.has("/bk/a")).isFalse();
    assertThat(machine.opened("/bk/b").size()).isEqualTo(1);
    assertThat(partials()).isEmpty();
  }

  @Test
  void reusedTargetsAreWrittenInPlaceAndStay() throws LibvirtException {
    machine.image("/bk/a", "qcow2", 8 << 20);
    machine.image("/bk/small", "qcow2", 1 << 20);
    Domain domain = daemon.startTransient();
    String xml = one("", "<target file='/bk/a'/>");
    assertRefused(
        () -> domain.backupBegin(xml, null, 0),
        8,
        10,
        "invalid argument: store '/bk/a' for backup of 'vda' exists");
    assertRefused(() -> domain.backupBegin(xml.replace("/bk/a", "/bk/small"), null, 1), 1, 10);
    assertRefused(() -> domain.backupBegin(xml.replace("/bk/a", "/bk/no"), null, 1), 1, 10);
    domain.backupBegin(xml, null, Flags.BACKUP_REUSE_EXTERNAL);
    assertThat(partials()).isEmpty();
    assertThat(targetWorth()).isEqualTo(NodeSpec.Worth.DISK);
    domain.abortJob(0);
    daemon.awaitEvents(3);
    assertThat(machine.has("/bk/a")).isTrue();
    domain.backupBegin(one("", "<target file='/bk/new'/>"), null, 0);
    assertThat(targetWorth()).isEqualTo(NodeSpec.Worth.ONCE_FLUSHED);
  }

  private NodeSpec.Worth targetWorth() {
    List<NodeSpec> targets =
        daemon.running().nodes.values().stream()
            .filter(node -> node.file().startsWith("/bk/"))
            .toList();
    assertThat(targets).hasSize(1);
    return targets.getFirst().worth();
  }

  @Test
  void refusedBackupHasUsedUpAnIndexForEachDiskThatWasLookedAt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    String since =
        one("", "<target file='/bk/a'/>").replace("<disks>", "<incremental>c</incremental><disks>");
    assertRefused(() -> domain.backupBegin(since, null, 0), 103, 10);
    assertRefused(
        () -> domain.backupBegin(since, checkpoint("c"), 0),
        109,
        10,
        "checkpoint inconsistent: missing or broken bitmap 'c' for disk 'vda'");
    domain.backupBegin(one("", "<target file='/bk/a'/>"), null, 0);
    assertThat(domain.backupXmlDesc(0)).contains("index='6'");
  }

  @Test
  void checkpointThatCannotBeSavedEndsTheBackup() throws LibvirtException {
    Domain domain = daemon.startTransient();
    daemon.view.failKind = StateStore.Kind.CHECKPOINT;
    assertRefused(() -> domain.backupBegin(BOTH, checkpoint("c1"), 0), 1, 10);
    assertThat(daemon.awaitEvents(4))
        .as("its disks are told, no backup is")
        .containsExactly(
            "BLOCK_JOB /img/a.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vda BACKUP CANCELED",
            "BLOCK_JOB /img/b.qcow2 BACKUP CANCELED",
            "BLOCK_JOB_2 vdb BACKUP CANCELED");
    assertThat(domain.jobStats(1)).isEqualTo(JobStats.NONE);
    assertThat(partials()).isEmpty();
    assertThat(domain.checkpoints(0)).isEmpty();
    assertThat(machine.bitmaps.get(Path.of("/img/a.qcow2"))).isEmpty();
  }

  @Test
  void reusedTargetMayNotBeAnImageOfTheDomain() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertRefused(
        () -> domain.backupBegin(one("", "<target file='/img/base.qcow2'/>"), null, 1), 1, 10);
  }

  @Test
  void secondBackupTimesOutOrTakesItsTurn() throws Exception {
    Domain domain = daemon.startTransient();
    domain.backupBegin(BOTH, null, 0);
    assertRefused(
        () -> domain.backupBegin(BOTH.replace("/bk/", "/two/"), null, 0),
        68,
        0,
        "Timed out during operation: cannot acquire state change lock (held by"
            + " monitor=remoteDispatchDomainBackupBegin)");
    domain.destroy(0);
    var patient = new Daemon(Daemon.usualMachine(), Duration.ofSeconds(60));
    Domain other = patient.startTransient();
    other.backupBegin(BOTH, null, 0);
    var second =
        CompletableFuture.runAsync(() -> {
          try {
            other.backupBegin(BOTH.replace("/bk/", "/two/"), null, 0);
          } catch (LibvirtException e) {
            throw new IllegalStateException(e);
          }
        });
    patient.running().finish(VDA);
    patient.running().finish(VDB);
    second.get(10, java.util.concurrent.TimeUnit.SECONDS);
    assertThat(other.backupXmlDesc(0)).contains("/two/a");
  }

  @Test
  void busyDisksAreRefusedAndOthersAreNot() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.backupBegin(one("", "<target file='/bk/a'/>"), null, 0);
    assertThat(domain.backupXmlDesc(0)).contains("<disk name='vdb' backup='no'/>");
    assertRefused(
        () -> domain.blockRebase("vda", "/img/c", 0, Flags.REBASE_COPY),
        84,
        10,
        "Operation not supported: disk 'vda' already in active block job");
    domain.blockRebase("vdb", "/img/c", 0, Flags.REBASE_COPY);
    domain.checkpointCreateXml(checkpoint("c1"), 0);
    domain.checkpointLookupByName("c1", 0).delete(0);
    domain.suspend();
    domain.resume();
  }

  @Test
  void incrementFromABrokenOrMissingBitmapIsRefused() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.checkpointCreateXml(
        "<domaincheckpoint><name>c1</name><disks><disk name='vda'/></disks></domaincheckpoint>", 0);
    String xml = BOTH.replace("<disks>", "<incremental>c1</incremental><disks>");
    assertRefused(
        () -> domain.backupBegin(xml, null, 0),
        109,
        10,
        "checkpoint inconsistent: missing or broken bitmap 'c1' for disk 'vdb'");
    daemon.running().crashBitmaps();
    assertRefused(
        () -> domain.backupBegin(xml, null, 0),
        109,
        10,
        "checkpoint inconsistent: missing or broken bitmap 'c1' for disk 'vda'");
    assertRefused(
        () -> domain.backupBegin(xml.replace("c1", "nope"), null, 0),
        103,
        10,
        "Domain checkpoint not found: Checkpoint 'nope' for incremental backup of disk 'vda' not"
            + " found");
    assertThat(partials()).isEmpty();
  }

  private static final String SCHEMA =
      "XML document failed to validate against schema: Unable to validate doc against"
          + " domainbackup.rng\n";
  private static final String DISKS =
      SCHEMA
          + "Extra element disks in interleave\nElement domainbackup failed to validate content\n";

  static Stream<Arguments> refusals() {
    String target = "<target file='/bk/a'/>";
    return Stream.of(
        refused("zzz", 35, 20, "(domain_backup):1: Start tag expected, '<' not found\nzzz\n^"),
        refused(
            "<domaincheckpoint/>",
            27,
            5,
            "XML error: expecting root element of 'domainbackup', not 'domaincheckpoint'"),
        refused(
            "<domainbackup mode=''/>",
            92,
            5,
            SCHEMA + "Invalid attribute mode for element domainbackup\n"),
        refused(
            "<domainbackup foo='1'/>",
            92,
            5,
            SCHEMA + "Invalid attribute foo for element domainbackup\n"),
        refused(
            "<domainbackup><foo/></domainbackup>",
            92,
            5,
            SCHEMA + "Element domainbackup has extra content: foo\n"),
        refused(disks(""), 92, 5, DISKS),
        refused(disks("<disk name='vda'/>"), 92, 5, DISKS),
        refused(one(" index='3'", target), 92, 5, DISKS),
        refused(one(" backupmode='bogus'", target), 92, 5, DISKS),
        refused(one(" backupmode='full' incremental='c'", target), 92, 5, DISKS),
        refused(one(" exportname='e'", target), 92, 5, DISKS),
        refused(one("", target + "<driver/>"), 92, 5, DISKS),
        refused(one("", target + "<driver type='bogus'/>"), 92, 5, DISKS),
        refused(one("", "<target file='bk'/>"), 92, 5, DISKS),
        refused(one("", "<scratch file='/bk'/>"), 92, 5, DISKS),
        refused(disks("<disk name='/img/a.qcow2' type='file'>" + target + "</disk>"), 92, 5, DISKS),
        refused(disks("<disk name='vda' backup='no'>" + target + "</disk>"), 92, 5, DISKS),
        refused(disks("<disk name='vda' type='network'><target/></disk>"), 92, 5, DISKS),
        refused(
            disks("<disk name='vda' backup='no'/><disk name='vdb' backup='no'/>"),
            67,
            10,
            "unsupported configuration: no disks selected for backup"),
        refused(
            disks("<disk name='vdz' type='file'>" + target + "</disk>"),
            67,
            20,
            "unsupported configuration: no disk named 'vdz'"),
        refused(
            BOTH.replace("vdb", "vda"),
            67,
            20,
            "unsupported configuration: disk 'vda' specified twice"),
        refused(
            BOTH.replace("/bk/b", "/bk/a"),
            8,
            10,
            "invalid argument: store '/bk/a' for backup of 'vdb' exists"),
        refused(
            one(" backupmode='incremental'", target),
            67,
            20,
            "unsupported configuration: 'incremental' backup mode of disk 'vda' requires setting"
                + " 'incremental' field for disk or backup"),
        refused(
            one("", "<target file='/img/base.qcow2'/>"),
            8,
            10,
            "invalid argument: store '/img/base.qcow2' for backup of 'vda' exists"),
        refused(
            one("", "<target file='/missing/bk'/>"),
            38,
            10,
            "failed to create image file '/missing/bk': No such file or directory"),
        refused(
            one("", "<target file='/full/bk'/>"),
            38,
            10,
            "failed to create image file '/full/bk': No space left on device"),
        refused(
            one("", "").replace("></disk>", "/>"),
            1,
            0,
            "internal error: disk 'vda': argument key 'filename' must not have null value"));
  }

  private static Arguments refused(String xml, int code, int domain, String text) {
    return Arguments.of(xml, code, domain, text);
  }

  @ParameterizedTest
  @MethodSource("refusals")
  void refusesInLibvirtsWordsAndChangesNothing(String xml, int code, int error, String text)
      throws LibvirtException {
    Domain domain = daemon.startTransient();
    List<String> files = machine.files();
    assertRefused(() -> domain.backupBegin(xml, checkpoint("c1"), 0), code, error, text);
    assertThat(machine.files()).isEqualTo(files);
    assertThat(domain.checkpoints(0)).isEmpty();
    assertThat(daemon.takeEvents()).isEmpty();
    assertThat(domain.jobInfo()).isEqualTo(JobInfo.NONE);
    assertThat(machine.document(StateStore.Kind.LIVE, "vm").orElseThrow())
        .doesNotContain("<backup", "<pendingCheckpoint");
  }

  @Test
  void transactionThatFailsLeavesNothing() throws LibvirtException {
    Domain domain = daemon.startTransient();
    daemon.running().failOn("transaction", DriverException.Kind.GENERIC, "sizes differ");
    assertRefused(
        () -> domain.backupBegin(BOTH, checkpoint("c1"), 0),
        1,
        10,
        "internal error: unable to execute the backup's transaction: sizes differ");
    assertThat(partials()).isEmpty();
    assertThat(domain.checkpoints(0)).isEmpty();
    assertThat(machine.bitmaps.get(Path.of("/img/a.qcow2"))).isNullOrEmpty();
    domain.backupBegin(BOTH, checkpoint("c1"), 0);
  }

  @Test
  void stoppedDomainHasNoBackup() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    assertRefused(
        () -> domain.backupBegin("<domainbackup/>", null, 0),
        84,
        10,
        "Operation not supported: cannot perform disk backup for inactive domain");
    assertRefused(() -> domain.jobInfo(), 55, 20);
    assertThat(domain.jobStats(1)).isEqualTo(JobStats.NONE);
    assertRefused(
        () -> domain.jobStats(2),
        8,
        20,
        "Flag 'VIR_DOMAIN_JOB_STATS_COMPLETED' is required by flag"
            + " 'VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED'");
  }
}
