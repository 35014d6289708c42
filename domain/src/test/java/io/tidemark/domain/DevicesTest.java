// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class DevicesTest {
  private static final int LIVE = 1;
  private static final int CONFIG = 2;

  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  @BeforeEach
  void makeImage() {
    machine.image("/img/n.qcow2", "qcow2", 8 << 20);
  }

  private static String disk(String file, String target) {
    return Daemon.disk(file, "qcow2", target);
  }

  @Test
  void diskIsPluggedInWithANumberOfItsOwnAndIsThereAfterARestart() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.devices().attach(disk("/img/n.qcow2", "vdc"), LIVE | CONFIG);
    assertThat(daemon.takeEvents()).containsExactly("DEVICE_ADDED virtio-disk2");
    assertThat(domain.xmlDesc(0)).contains("<source file='/img/n.qcow2' index='4'/>");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).contains("/img/n.qcow2");
    assertThat(daemon.running().writesTo("vdc")).isEqualTo("/img/n.qcow2");
    daemon.view.kill();
    Daemon second = new Daemon(machine);
    second.domains.restore();
    assertThat(second.driver.reattached.getFirst().drives())
        .extracting(DriveSpec::target)
        .containsExactlyInAnyOrder("vda", "vdb", "vdc");
  }

  @Test
  void diskIsTakenOut() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.devices().detach(disk("/img/b.qcow2", "vdb"), LIVE);
    assertThat(daemon.takeEvents()).containsExactly("DEVICE_REMOVED virtio-disk1");
    assertThat(domain.xmlDesc(0)).doesNotContain("vdb");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).contains("vdb");
    domain.devices().detachAlias("virtio-disk0", LIVE);
    assertThat(daemon.running().drives).isEmpty();
  }

  @Test
  void diskThatTheDriverCannotOpenIsNotThere() throws LibvirtException {
    Domain domain = daemon.startTransient();
    String before = domain.xmlDesc(0);
    daemon.running().failOn("addDrive", DriverException.Kind.IMAGE_BUSY, "Failed to get lock");
    assertRefused(() -> domain.devices().attach(disk("/img/n.qcow2", "vdc"), LIVE), 1, 10);
    assertThat(domain.xmlDesc(0)).isEqualTo(before);
    assertThat(daemon.takeEvents()).isEmpty();
  }

  @Test
  void changesAreRefusedAsLibvirtRefusesThem() throws LibvirtException {
    Domain domain = daemon.startTransient();
    DeviceVerbs devices = domain.devices();
    String n = disk("/img/n.qcow2", "vdc");
    assertRefused(
        () -> devices.attach(disk("/img/n.qcow2", "vda"), LIVE),
        27,
        20,
        "XML error: target 'vda' duplicated for disk sources '/img/a.qcow2' and '/img/n.qcow2'");
    assertRefused(
        () -> devices.attach(n, CONFIG),
        55,
        20,
        "Requested operation is not valid: transient domains do not have any persistent config");
    assertRefused(
        () -> devices.attach(n, 4),
        8,
        10,
        "unsupported flags (0x4) in function qemuDomainAttachDeviceLiveAndConfig");
    assertRefused(
        () -> devices.attach("<bogus/>", LIVE),
        67,
        20,
        "unsupported configuration: unknown device type 'bogus'");
    assertRefused(() -> devices.detach(n, LIVE), 99, 10, "device not found: disk vdc not found");
    assertRefused(
        () -> devices.update(disk("/img/b.qcow2", "vda"), LIVE),
        67,
        10,
        "unsupported configuration: disk source can be changed only in removable drives");
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(
        () -> devices.detach(disk("/img/a.qcow2", "vda"), LIVE),
        83,
        10,
        "block copy still active: disk 'vda' already in active block job");
  }

  @Test
  void mediumOfADriveIsChangedAndEjected() throws LibvirtException {
    machine.image("/img/cd.iso", "raw", 1 << 20);
    String drive =
        "<disk type='file' device='cdrom'><driver type='raw'/>%s<target dev='sda' bus='sata'/></disk>";
    Domain domain = daemon.domains.createXml(Daemon.xml(drive.formatted("")), 0, Daemon.CLIENT);
    daemon.takeEvents();
    domain.devices().update(drive.formatted("<source file='/img/cd.iso'/>"), LIVE);
    assertThat(daemon.takeEvents()).containsExactly("TRAY sata0-0-0 0", "TRAY sata0-0-0 1");
    assertThat(daemon.running().writesTo("sda")).isEqualTo("/img/cd.iso");
    domain.devices().update(drive.formatted(""), LIVE);
    assertThat(daemon.running().drives).isEmpty();
    assertThat(domain.xmlDesc(0)).doesNotContain("cd.iso");
  }

  @Test
  void limitsAreShownToldAndAppliedAgainAfterARestart() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain
        .tuning()
        .setIoTune("vda", List.of(new TypedParam.ULLong("total_bytes_sec", 1_000_000)), LIVE);
    assertThat(daemon.takeEvents())
        .containsExactly("TUNABLE blkdeviotune.disk=vda blkdeviotune.total_bytes_sec=1000000");
    assertThat(domain.xmlDesc(0)).contains("<total_bytes_sec>1000000</total_bytes_sec>");
    domain.tuning().setIoTune("vda", List.of(new TypedParam.ULLong("read_bytes_sec", 5)), LIVE);
    assertThat(domain.tuning().ioTune(Optional.of("vda"), 0))
        .contains(
            new TypedParam.ULLong("total_bytes_sec", 0), new TypedParam.ULLong("read_bytes_sec", 5))
        .hasSize(20);
    daemon.view.kill();
    Daemon second = new Daemon(machine);
    second.domains.restore();
    assertThat(second.running().throttles.get("vda")).contains("READ_BYTES");
  }

  @Test
  void limitsOfAGroupAreThoseOfAllItsDisks() throws LibvirtException {
    Domain domain = daemon.startTransient();
    TypedParam group = new TypedParam.Str("group_name", "g");
    domain
        .tuning()
        .setIoTune("vda", List.of(group, new TypedParam.ULLong("total_iops_sec", 100)), LIVE);
    domain
        .tuning()
        .setIoTune("vdb", List.of(group, new TypedParam.ULLong("total_bytes_sec", 7)), LIVE);
    for (String target : List.of("vda", "vdb")) {
      assertThat(domain.tuning().ioTune(Optional.of(target), 0))
          .contains(
              new TypedParam.ULLong("total_iops_sec", 100),
              new TypedParam.ULLong("total_bytes_sec", 7));
    }
  }

  @Test
  void limitsThatContradictEachOtherAreRefused() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertRefused(
        () ->
            domain
                .tuning()
                .setIoTune(
                    "vda",
                    List.of(
                        new TypedParam.ULLong("total_bytes_sec", 6),
                        new TypedParam.ULLong("read_bytes_sec", 5)),
                    LIVE),
        8,
        10,
        "invalid argument: total and read/write of bytes_sec cannot be set at the same time");
    assertRefused(
        () ->
            domain
                .tuning()
                .setIoTune("vda", List.of(new TypedParam.ULLong("total_iops_sec_max", 5)), LIVE),
        67,
        10,
        "unsupported configuration: cannot reset 'total_iops_sec' when 'total_iops_sec_max' is"
            + " set");
    assertRefused(
        () ->
            domain
                .tuning()
                .setIoTune(
                    "vda", List.of(new TypedParam.ULLong("total_bytes_sec", 1L << 60)), LIVE),
        74,
        10,
        "argument unsupported: block I/O throttle limit value must be no more than"
            + " 1000000000000000");
  }

  @Test
  void writeBeyondAThresholdIsToldUnderBothNames() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.tuning().setThreshold("vda", 300_000, 0);
    assertThat(domain.stats(Flags.STATS_BLOCK, 0))
        .contains(new TypedParam.ULLong("block.0.threshold", 300_000));
    daemon.running().listener.writeThresholdPassed("vda", 300_000, 27_680);
    assertThat(daemon.awaitEvents(2))
        .containsExactly(
            "BLOCK_THRESHOLD vda /img/a.qcow2 300000 27680",
            "BLOCK_THRESHOLD vda[2] /img/a.qcow2 300000 27680");
    assertRefused(
        () -> domain.tuning().setThreshold("vda[9]", 5, 0),
        8,
        10,
        "invalid argument: failed to find disk 'vda[9]'");
  }

  @Test
  void savingIsRefusedForAJobFirstAndElseForWantOfMemory() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertRefused(() -> domain.machine().save(0), 84, 10);
    assertRefused(
        () -> domain.machine().managedSave(0),
        55,
        10,
        "Requested operation is not valid: cannot do managed save for transient domain");
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(
        () -> domain.machine().save(0),
        55,
        10,
        "Requested operation is not valid: domain has active block job");
    domain.machine().reset(0);
    assertThat(daemon.takeEvents()).containsExactly("REBOOT");
  }
}
