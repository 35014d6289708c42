// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.StateStore;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class DomainsTest {
  private final Daemon daemon = new Daemon(Daemon.usualMachine());

  @Test
  void showsARunningDomainWithItsChainNumberedFromTheLastDisk() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertThat(domain.xmlDesc(0))
        .isEqualTo(
            """
            <domain type='tidemark' id='1'>
              <name>vm</name>
              <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
              <vcpu placement='static'>1</vcpu>
              <os>
                <type>hvm</type>
              </os>
              <clock offset='utc'/>
              <on_poweroff>destroy</on_poweroff>
              <on_reboot>restart</on_reboot>
              <on_crash>destroy</on_crash>
              <devices>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='qcow2'/>
                  <source file='/img/a.qcow2' index='2'/>
                  <backingStore type='file' index='3'>
                    <format type='qcow2'/>
                    <source file='/img/base.qcow2'/>
                    <backingStore/>
                  </backingStore>
                  <target dev='vda' bus='virtio'/>
                  <alias name='virtio-disk0'/>
                </disk>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='qcow2'/>
                  <source file='/img/b.qcow2' index='1'/>
                  <backingStore/>
                  <target dev='vdb' bus='virtio'/>
                  <alias name='virtio-disk1'/>
                </disk>
              </devices>
            </domain>
            """);
  }

  @Test
  void tellsOfAStartInLibvirtsOrder() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    domain.create(0, Daemon.CLIENT);
    assertThat(daemon.takeEvents())
        .containsExactly("DEFINED_ADDED", "RESUMED_UNPAUSED", "STARTED_BOOTED");
    domain.destroy(0);
    domain.create(Flags.START_PAUSED, Daemon.CLIENT);
    assertThat(daemon.takeEvents())
        .containsExactly("STOPPED_DESTROYED", "STARTED_BOOTED", "SUSPENDED_PAUSED");
    assertThat(domain.state()).isEqualTo(DomainState.PAUSED_USER);
  }

  private static List<String> names(List<Domain> domains) {
    return domains.stream().map(Domain::name).toList();
  }

  @Test
  void listsByTheFiltersOfEachGroup() throws LibvirtException {
    daemon.startTransient();
    Domain off = daemon.domains.defineXml("<domain type='tidemark'><name>off</name></domain>", 0);
    Domain paused =
        daemon.domains.defineXml("<domain type='tidemark'><name>paused</name></domain>", 0);
    paused.create(Flags.START_PAUSED, Daemon.CLIENT);
    off.setAutostart(true);
    assertThat(names(daemon.domains.list(0))).containsExactly("off", "paused", "vm");
    assertThat(names(daemon.domains.list(Flags.LIST_ACTIVE))).containsExactly("paused", "vm");
    assertThat(names(daemon.domains.list(Flags.LIST_INACTIVE))).containsExactly("off");
    assertThat(names(daemon.domains.list(Flags.LIST_TRANSIENT))).containsExactly("vm");
    assertThat(names(daemon.domains.list(Flags.LIST_RUNNING | Flags.LIST_SHUTOFF)))
        .containsExactly("off", "vm");
    assertThat(names(daemon.domains.list(Flags.LIST_PAUSED | Flags.LIST_PERSISTENT)))
        .containsExactly("paused");
    assertThat(names(daemon.domains.list(Flags.LIST_AUTOSTART))).containsExactly("off");
    assertThat(daemon.domains.list(Flags.LIST_OTHER)).isEmpty();
    assertThat(daemon.domains.list(Flags.LIST_HAS_SNAPSHOT)).isEmpty();
    assertRefused(
        () -> daemon.domains.list(1 << 20),
        8,
        10,
        "unsupported flags (0x100000) in function qemuConnectListAllDomains");
  }

  @Test
  void findsDomainsOrSaysWhatWasLookedFor() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertThat(daemon.domains.lookupById(domain.id())).isSameAs(domain);
    assertThat(daemon.domains.lookupByUuid(Daemon.UUID_A)).isSameAs(domain);
    assertRefused(
        () -> daemon.domains.lookupByName("nope"),
        42,
        10,
        "Domain not found: no domain with matching name 'nope'");
    assertRefused(
        () -> daemon.domains.lookupById(999),
        42,
        10,
        "Domain not found: no domain with matching id 999");
    assertRefused(
        () -> daemon.domains.lookupById(-1),
        42,
        10,
        "Domain not found: no domain with matching id -1");
    domain.destroy(0);
    String gone =
        "Domain not found: no domain with matching uuid 'c7a5fdbd-edaf-9455-926a-d65c16db1809'"
            + " (vm)";
    assertRefused(domain::state, 42, 10, gone);
    assertRefused(() -> domain.xmlDesc(0), 42, 10, gone);
    assertRefused(() -> domain.destroy(0), 42, 10, gone);
    assertRefused(() -> daemon.domains.resolve(domain.ref()), 42, 10, gone);
  }

  @Test
  void nameAndUuidBelongTogether() throws LibvirtException {
    daemon.domains.defineXml(Daemon.usualXml(), 0);
    String other = "11111111-2222-3333-4444-555555555555";
    assertRefused(
        () -> daemon.domains.defineXml(Daemon.usualXml().replace("" + Daemon.UUID_A, other), 0),
        9,
        20,
        "operation failed: domain 'vm' already exists with uuid " + Daemon.UUID_A);
    assertRefused(
        () -> daemon.domains.defineXml(Daemon.usualXml().replace("vm", "x2"), 0),
        9,
        20,
        "operation failed: domain 'vm' is already defined with uuid " + Daemon.UUID_A);
    Domain running = daemon.domains.createXml(Daemon.usualXml(), 0, Daemon.CLIENT);
    assertThat(running.isPersistent()).isTrue();
    assertRefused(
        () -> daemon.domains.createXml(Daemon.usualXml(), 0, Daemon.CLIENT),
        55,
        20,
        "Requested operation is not valid: domain 'vm' is already active");
  }

  @Test
  void goesThroughItsStatesAsLibvirtsDomainsDo() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    String off = "Requested operation is not valid: domain is not running";
    assertThat(domain.state()).isEqualTo(DomainState.SHUTOFF_UNKNOWN);
    assertRefused(() -> domain.destroy(0), 55, 20, off);
    assertRefused(domain::suspend, 55, 20, off);
    assertRefused(domain::resume, 55, 20, off);
    assertRefused(() -> domain.shutdown(0), 55, 10, off);
    domain.create(0, Daemon.CLIENT);
    assertThat(domain.state()).isEqualTo(DomainState.RUNNING_BOOTED);
    assertRefused(
        () -> domain.create(0, Daemon.CLIENT),
        55,
        10,
        "Requested operation is not valid: domain is already running");
    assertRefused(
        domain::resume, 55, 10, "Requested operation is not valid: domain is already running");
    domain.suspend();
    domain.suspend();
    assertThat(domain.state()).isEqualTo(DomainState.PAUSED_USER);
    assertThat(daemon.running().paused).isTrue();
    domain.resume();
    assertThat(domain.state()).isEqualTo(DomainState.RUNNING_UNPAUSED);
    daemon.takeEvents();
    domain.shutdown(0);
    assertThat(daemon.takeEvents()).containsExactly("SHUTDOWN_FINISHED", "STOPPED_SHUTDOWN");
    assertThat(daemon.running().stopped).isTrue();
    assertThat(domain.state()).isEqualTo(DomainState.SHUTOFF_SHUTDOWN);
    domain.undefine(0);
    assertThat(daemon.takeEvents()).containsExactly("UNDEFINED");
    assertThat(daemon.domains.list(0)).isEmpty();
    assertThat(daemon.machine.documents.values()).allMatch(Map::isEmpty);
  }

  @Test
  void askedByTheAgentItSaysThatThereIsNone() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    String off = "Requested operation is not valid: domain is not running";
    assertRefused(() -> domain.machine().reboot(Flags.SHUTDOWN_GUEST_AGENT), 55, 10, off);
    domain.create(0, Daemon.CLIENT);
    String none = "argument unsupported: QEMU guest agent is not configured";
    assertRefused(() -> domain.shutdown(Flags.SHUTDOWN_GUEST_AGENT), 74, 10, none);
    assertRefused(() -> domain.machine().reboot(Flags.SHUTDOWN_GUEST_AGENT), 74, 10, none);
    assertThat(domain.state().isRunning()).isTrue();
  }

  @Test
  void questionsWithoutFlagsRefuseThem() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    assertRefused(
        () -> domain.state(1), 8, 10, "unsupported flags (0x1) in function qemuDomainGetState");
    assertRefused(
        () -> domain.machine().controlInfo(2),
        8,
        10,
        "unsupported flags (0x2) in function qemuDomainGetControlInfo");
    assertRefused(
        () -> domain.machine().hasManagedSave(4),
        8,
        10,
        "unsupported flags (0x4) in function qemuDomainHasManagedSaveImage");
    assertRefused(
        () -> domain.machine().save(8),
        8,
        10,
        "unsupported flags (0x8) in function qemuDomainSaveFlags");
    assertThat(domain.machine().hasManagedSave(0)).isFalse();
  }

  @Test
  void statisticsAreOfTheDomainsThatTheFlagsChoose() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    List<DomainRef> it = List.of(domain.ref());
    assertThat(daemon.domains.listForStats(it, 0, Flags.LIST_ACTIVE)).containsExactly(domain);
    assertThat(daemon.domains.listForStats(it, 0, Flags.LIST_INACTIVE)).isEmpty();
    assertThat(daemon.domains.listForStats(List.of(), 0, Flags.LIST_PAUSED)).isEmpty();
    assertRefused(
        () -> daemon.domains.listForStats(it, 0, Flags.LIST_MANAGEDSAVE),
        8,
        10,
        "unsupported flags (0x100) in function qemuConnectGetAllDomainStats");
    assertThat(daemon.domains.listForStats(it, 1 << 20, 0)).containsExactly(domain);
    assertRefused(
        () -> daemon.domains.listForStats(it, 1 << 20, Flags.STATS_ENFORCE),
        74,
        10,
        "argument unsupported: Stats types bits 0x100000 are not supported by this daemon");
  }

  @Test
  void undefinedWhileItRunsItBecomesTransient() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.undefine(0);
    assertThat(domain.isPersistent()).isFalse();
    assertRefused(
        () -> domain.undefine(0),
        55,
        10,
        "Requested operation is not valid: cannot undefine transient domain");
    assertRefused(
        () -> domain.setAutostart(true),
        55,
        10,
        "Requested operation is not valid: cannot set autostart for transient domain");
    domain.destroy(0);
    assertThat(daemon.domains.list(0)).isEmpty();
  }

  @Test
  void definitionMayChangeWhileItRuns() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    daemon.domains.defineXml(Daemon.xml(Daemon.disk("/img/b.qcow2", "qcow2", "vdc")), 0);
    assertThat(daemon.takeEvents()).containsExactly("DEFINED_UPDATED");
    assertThat(domain.xmlDesc(0)).contains("vda").doesNotContain("vdc");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).contains("vdc").doesNotContain("vda", " id=");
    domain.destroy(0);
    assertThat(domain.xmlDesc(0)).contains("vdc");
  }

  @Test
  void inactiveFormOfATransientDomainKeepsIndexAndAlias() throws LibvirtException {
    assertThat(daemon.startTransient().xmlDesc(Flags.XML_INACTIVE))
        .contains("<domain type='tidemark'>", "index='2'", "virtio-disk0")
        .doesNotContain("backingStore");
  }

  @Test
  void sharedDiskRunsWithoutACache() throws LibvirtException {
    Domain domain =
        daemon.domains.createXml(
            Daemon.xml(
                Daemon.disk("/img/b.qcow2", "qcow2", "vda").replace("</d", "<shareable/></d")),
            0,
            Daemon.CLIENT);
    assertThat(domain.xmlDesc(0)).contains("<driver name='qemu' type='qcow2' cache='none'/>");
  }

  @Test
  void emptyDriveTakesANumberToo() throws LibvirtException {
    Domain domain =
        daemon.domains.createXml(
            Daemon.xml(
                Daemon.disk("/img/b.qcow2", "qcow2", "vda"),
                "<disk device='cdrom'><target dev='sda' bus='sata'/></disk>"),
            0,
            Daemon.CLIENT);
    assertThat(domain.xmlDesc(0)).contains("<source file='/img/b.qcow2' index='2'/>");
    assertThat(daemon.running().drives).containsOnlyKeys("vda");
  }

  @Test
  void missingOrBrokenImagesRefuseTheStart() throws LibvirtException {
    Machine machine = daemon.machine;
    machine.image("/img/orphan", "qcow2", 1, "/img/no");
    machine.image("/img/loop", "qcow2", 1, "/img/loop2");
    machine.image("/img/loop2", "qcow2", 1, "/img/loop");
    machine.image("/img/raw", "raw", 1);
    assertRefused(
        () -> start("/img/no"),
        38,
        18,
        "Cannot access storage file '/img/no' (as uid:0, gid:0): No such file or directory");
    assertRefused(
        () -> start("/img/orphan"),
        38,
        18,
        "Cannot access backing file '/img/no' of storage file '/img/orphan' (as uid:0, gid:0):"
            + " No such file or directory");
    assertRefused(
        () -> start("/img/loop"),
        1,
        18,
        "internal error: backing store for /img/loop is self-referential or too deeply nested");
    assertRefused(() -> start("/img/raw"), 1, 10);
    assertThat(daemon.domains.list(0)).isEmpty();
    assertThat(machine.documents.values()).allMatch(Map::isEmpty);
    assertThat(daemon.takeEvents()).isEmpty();
  }

  private void start(String file) throws LibvirtException {
    daemon.domains.createXml(Daemon.xml(Daemon.disk(file, "qcow2", "vda")), 0, Daemon.CLIENT);
  }

  @Test
  void driverThatRefusesADomainRefusesItsDefinition() {
    String name = "n".repeat(100);
    assertRefused(
        () -> daemon.domains.defineXml(Daemon.usualXml().replace("vm", name), 0),
        67,
        10,
        "unsupported configuration: socket path too long");
    assertThat(daemon.machine.documents.values()).allMatch(Map::isEmpty);
  }

  @Test
  void domainThatEndsByItselfIsToldAndShown() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    daemon.running().listener.stopped("the engine gave up");
    assertThat(daemon.awaitEvents(1)).containsExactly("STOPPED_FAILED");
    assertThat(domain.state()).isEqualTo(DomainState.SHUTOFF_CRASHED);
    domain.create(0, Daemon.CLIENT);
  }

  @Test
  void recordThatCannotBeWrittenStopsTheStart() throws LibvirtException {
    daemon.view.failKind = StateStore.Kind.LIVE;
    assertRefused(() -> daemon.domains.createXml(Daemon.usualXml(), 0, Daemon.CLIENT), 1, 10);
    assertThat(daemon.running().stopped).isTrue();
    assertThat(daemon.domains.list(0)).isEmpty();
  }

  @Test
  void statisticsNameEveryDisk() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertThat(Daemon.params(domain.stats(Flags.STATS_STATE | Flags.STATS_BLOCK, 0)))
        .isEqualTo(
            "state.state=1 state.reason=1 block.count=2"
                + " block.0.name=vda block.0.path=/img/a.qcow2 block.0.backingIndex=2"
                + " block.0.rd.reqs=1 block.0.rd.bytes=512 block.0.rd.times=10"
                + " block.0.wr.reqs=2 block.0.wr.bytes=1024 block.0.wr.times=20"
                + " block.0.fl.reqs=3 block.0.fl.times=30 block.0.allocation=131072"
                + " block.0.capacity=8388608 block.0.physical=262144"
                + " block.1.name=vdb block.1.path=/img/b.qcow2 block.1.backingIndex=1"
                + " block.1.rd.reqs=1 block.1.rd.bytes=512 block.1.rd.times=10"
                + " block.1.wr.reqs=2 block.1.wr.bytes=1024 block.1.wr.times=20"
                + " block.1.fl.reqs=3 block.1.fl.times=30 block.1.allocation=131072"
                + " block.1.capacity=8388608 block.1.physical=262144");
    assertThat(Daemon.params(domain.stats(Flags.STATS_BLOCK, Flags.STATS_BACKING)))
        .contains("block.count=3", "block.1.path=/img/base.qcow2 block.1.backingIndex=3");
    assertThat(domain.blockStats("")).isEqualTo(new BlockStats(2, 1024, 4, 2048, -1));
    assertThat(domain.blockStatsParams("vda", 0)).hasSize(8);
    assertThat(domain.blockInfo("vda", 0).capacity()).isEqualTo(8 << 20);
    assertRefused(
        () -> domain.blockInfo("nosuch", 0),
        8,
        10,
        "invalid argument: invalid path nosuch not assigned to domain");
    assertRefused(
        () -> domain.blockStats("nosuch"), 8, 10, "invalid argument: invalid path: nosuch");
  }

  @Test
  void capabilitiesNameTheDomainTypes() {
    assertThat(daemon.domains.capabilities())
        .startsWith("<capabilities>")
        .contains("<domain type='tidemark'/>");
  }
}
