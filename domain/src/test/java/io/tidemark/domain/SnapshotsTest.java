// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.StateStore;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SnapshotsTest {
  private static final int DISK_ONLY = Flags.SNAPSHOT_DISK_ONLY;

  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String xml(String name, String rest) {
    return "<domainsnapshot><name>" + name + "</name>" + rest + "</domainsnapshot>";
  }

  private static Snapshot take(Domain domain, String name) throws LibvirtException {
    return domain.snapshots().create(xml(name, ""), DISK_ONLY);
  }

  private static List<String> names(Domain domain, int flags) throws LibvirtException {
    return domain.snapshots().names(flags);
  }

  private static String withoutDomains(String xml) {
    return xml.replaceAll("(?s) *<domain .*</domain>\n", "")
        .replaceAll("(?s) *<inactiveDomain .*</inactiveDomain>\n", "");
  }

  private static List<String> chain(DriveSpec drive) {
    List<String> files = new ArrayList<>();
    for (Optional<NodeSpec> node = Optional.of(drive.top());
        node.isPresent();
        node = node.get().backing()) {
      files.add(node.get().file().toString());
    }
    return files;
  }

  private Domain withThree() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    for (String name : List.of("a", "b", "c")) {
      take(domain, name);
    }
    return domain;
  }

  @Test
  void goesOverEveryDiskInFilesNamedAfterIt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    Snapshot made = take(domain, "x");
    assertThat(withoutDomains(made.xmlDesc(0)))
        .isEqualTo(
            """
            <domainsnapshot>
              <name>x</name>
              <state>disk-snapshot</state>
              <creationTime>1800000000</creationTime>
              <memory snapshot='no'/>
              <disks>
                <disk name='vda' snapshot='external' type='file'>
                  <driver type='qcow2'/>
                  <source file='/img/a.x'/>
                </disk>
                <disk name='vdb' snapshot='external' type='file'>
                  <driver type='qcow2'/>
                  <source file='/img/b.x'/>
                </disk>
              </disks>
            </domainsnapshot>
            """);
    assertThat(made.xmlDesc(0)).contains("<source file='/img/a.qcow2'/>");
    assertThat(machine.opened("/img/a.x").backing().orElseThrow().name()).isEqualTo("/img/a.qcow2");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.x");
    assertThat(daemon.running().writesTo("vdb")).isEqualTo("/img/b.x");
    assertThat(domain.xmlDesc(0))
        .contains("<source file='/img/a.x' index='4'/>", "<source file='/img/b.x' index='5'/>");
    assertThat(daemon.takeEvents()).isEmpty();
    assertThat(made.isCurrent(0)).isTrue();
  }

  @Test
  void changesThePersistentDefinitionWhichGoesOnBeneathAsTheHeadersSay() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    take(domain, "x");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE))
        .contains(
            """
                  <source file='/img/a.x'/>
                  <backingStore type='file'>
                    <format type='qcow2'/>
                    <source file='/img/a.qcow2'/>
                  </backingStore>
            """);
    domain.destroy(0);
    domain.create(0, Daemon.CLIENT);
    assertThat(chain(daemon.running().spec.drives().getFirst()))
        .containsExactly("/img/a.x", "/img/a.qcow2", "/img/base.qcow2");
  }

  @Test
  void withoutMetadataItsNameMayBeTaken() throws LibvirtException {
    Domain domain = daemon.startTransient();
    take(domain, "x");
    String again =
        xml(
            "x",
            "<disks><disk name='vda'><source file='/img/o'/></disk>"
                + "<disk name='vdb' snapshot='no'/></disks>");
    assertRefused(() -> domain.snapshots().create(again, DISK_ONLY), 9, 20);
    domain.snapshots().create(again, DISK_ONLY | Flags.SNAPSHOT_NO_METADATA);
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/o");
    assertThat(names(domain, 0)).containsExactly("x");
  }

  @Test
  void leavesOutWhatTheClientLeavesOut() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain
        .snapshots()
        .create(
            xml(
                "x",
                "<disks><disk name='/img/a.qcow2'><source file='/img/o'/></disk>"
                    + "<disk name='vdb' snapshot='no'/></disks>"),
            DISK_ONLY | Flags.SNAPSHOT_NO_METADATA);
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/o");
    assertThat(daemon.running().writesTo("vdb")).isEqualTo("/img/b.qcow2");
    assertThat(names(domain, 0)).isEmpty();
    assertThat(domain.snapshots().hasCurrent(0)).isFalse();
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '"',
      value = {
        "16 | <x/> | 27 | 5 | XML error: expecting root element of 'domainsnapshot', not 'x'",
        "4096 | <domainsnapshot/> | 8 | 10 | unsupported flags (0x1000) in function qemuSnapshotCreateXML",
        "64 | <domainsnapshot/> | 8 | 10 | Flag 'VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY' is required by flag 'VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE'",
        "257 | <domainsnapshot/> | 8 | 10 | Flags 'VIR_DOMAIN_SNAPSHOT_CREATE_LIVE' and 'VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE' are mutually exclusive",
        "24 | <domainsnapshot/> | 55 | 10 | Requested operation is not valid: cannot halt after transient domain snapshot",
        "272 | <domainsnapshot/> | 84 | 10 | Operation not supported: live snapshot creation is supported only during full system snapshots",
        "80 | <domainsnapshot/> | 74 | 10 | argument unsupported: QEMU guest agent is not configured",
        "16 | <domainsnapshot><name>a/b</name></domainsnapshot> | 35 | 10 | invalid snapshot name 'a/b': name can't contain '/'",
        "16 | <domainsnapshot><name>.a</name></domainsnapshot> | 35 | 10 | invalid snapshot name '.a': name can't start with '.'",
        "16 | <domainsnapshot><memory snapshot='internal'/></domainsnapshot> | 27 | 35 | XML error: memory state cannot be saved with offline or disk-only snapshot",
        "0 | <domainsnapshot><memory snapshot='external' file='m'/></domainsnapshot> | 27 | 35 | XML error: memory snapshot file path (m) must be absolute",
        "0 | <domainsnapshot><memory snapshot='external'/></domainsnapshot> | 27 | 35 | XML error: external memory snapshots require a filename",
        "0 | <domainsnapshot><memory snapshot='no'/></domainsnapshot> | 84 | 10 | Operation not supported: internal snapshot of a running VM must include the memory state",
        "0 | <domainsnapshot><disks><disk name='vda' snapshot='external'/></disks></domainsnapshot> | 67 | 35 | unsupported configuration: disk 'vda' must use snapshot mode 'internal'",
        "16 | <domainsnapshot><disks><disk name='vda' snapshot='foo'/></disks></domainsnapshot> | 27 | 5 | XML error: Invalid value for attribute 'snapshot' in element 'disk': 'foo'.",
        "16 | <domainsnapshot><disks><disk snapshot='no'/></disks></domainsnapshot> | 1 | 35 | internal error: missing name from disk snapshot element",
        "16 | <domainsnapshot><disks><disk name='vdz'/></disks></domainsnapshot> | 67 | 35 | unsupported configuration: no disk named 'vdz'",
        "16 | <domainsnapshot><disks><disk name='vda'/><disk name='vda'/></disks></domainsnapshot> | 67 | 35 | unsupported configuration: disk 'vda' specified twice",
        "16 | <domainsnapshot><disks><disk name='vda' snapshot='no'/><disk name='vdb' snapshot='manual'/></disks></domainsnapshot> | 67 | 10 | unsupported configuration: nothing selected for snapshot",
        "16 | <domainsnapshot><disks><disk name='vda' snapshot='internal'/></disks></domainsnapshot> | 67 | 10 | unsupported configuration: active qemu domains require external disk snapshots; disk vda requested internal",
        "16 | <domainsnapshot><disks><disk name='vda'><driver type='raw'/></disk></disks></domainsnapshot> | 67 | 10 | unsupported configuration: external snapshot format for disk vda is unsupported: raw",
        "16 | <domainsnapshot><disks><disk name='vda'><source file='s'/></disk></disks></domainsnapshot> | 27 | 35 | XML error: disk snapshot image path 's' must be absolute",
        "16 | <domainsnapshot><disks><disk name='vda' snapshot='no'><source file='/s'/></disk></disks></domainsnapshot> | 67 | 35 | unsupported configuration: file '/s' for disk 'vda' requires use of external snapshot mode",
        "16 | <domainsnapshot><disks><disk name='vda'><source file='/img/b.qcow2'/></disk></disks></domainsnapshot> | 67 | 10 | unsupported configuration: external snapshot file for disk vda already exists and is not a block device: /img/b.qcow2",
        "48 | <domainsnapshot><disks><disk name='vda'><source file='/img/none'/></disk></disks></domainsnapshot> | 38 | 10 | missing existing file for disk vda: /img/none: No such file or directory",
        "16 | <domainsnapshot><disks><disk name='vdb'><source file='/missing/x'/></disk></disks></domainsnapshot> | 38 | 10 | failed to create image file '/missing/x': No such file or directory",
        "528 | <domainsnapshot><foo/></domainsnapshot> | 92 | 5 | XML document failed to validate against schema: Unable to validate doc against domainsnapshot.rng~"
      })
  void isRefusedAsLibvirtRefusesAndLeavesNothing(
      int flags, String xml, int code, int domainNumber, String text) throws LibvirtException {
    Domain domain = daemon.startTransient();
    List<String> files = machine.files();
    assertRefused(
        () -> domain.snapshots().create(xml, flags), code, domainNumber, text.replace('~', '\n'));
    assertThat(machine.files()).isEqualTo(files);
    assertThat(names(domain, 0)).isEmpty();
    assertThat(daemon.running().nodes).hasSize(3);
  }

  @Test
  void isTheChildOfTheCurrentOneAndFoundByEveryFilter() throws LibvirtException {
    Domain domain = withThree();
    assertThat(names(domain, 0)).containsExactly("a", "b", "c");
    assertThat(names(domain, Flags.SNAPSHOT_LIST_ROOTS)).containsExactly("a");
    assertThat(names(domain, Flags.SNAPSHOT_LIST_LEAVES)).containsExactly("c");
    assertThat(names(domain, Flags.SNAPSHOT_LIST_NO_LEAVES)).containsExactly("a", "b");
    assertThat(names(domain, Flags.SNAPSHOT_LIST_METADATA)).hasSize(3);
    assertThat(names(domain, Flags.SNAPSHOT_LIST_NO_METADATA)).isEmpty();
    assertThat(names(domain, Flags.SNAPSHOT_LIST_INACTIVE)).isEmpty();
    assertThat(names(domain, Flags.SNAPSHOT_LIST_DISK_ONLY)).hasSize(3);
    assertThat(names(domain, Flags.SNAPSHOT_LIST_INTERNAL)).isEmpty();
    assertThat(names(domain, Flags.SNAPSHOT_LIST_EXTERNAL)).hasSize(3);
    Snapshot b = domain.snapshots().lookupByName("b", 0);
    assertThat(b.parent(0).name()).isEqualTo("a");
    assertThat(b.childNames(0)).containsExactly("c");
    assertThat(domain.snapshots().lookupByName("a", 0).childNames(1)).containsExactly("b", "c");
    assertThat(domain.snapshots().current(0).name()).isEqualTo("c");
    assertRefused(
        () -> domain.snapshots().lookupByName("a", 0).parent(0),
        72,
        10,
        "Domain snapshot not found: snapshot 'a' does not have a parent");
    assertRefused(
        () ->
            domain
                .snapshots()
                .create(
                    xml(
                        "b",
                        "<disks><disk name='vda'><source file='/img/o'/></disk>"
                            + "<disk name='vdb' snapshot='no'/></disks>"),
                    DISK_ONLY),
        9,
        20,
        "operation failed: domain moment b already exists");
  }

  @Test
  void whoseMetadataGoesLeavesItsChildrenToItsParent() throws LibvirtException {
    Domain domain = withThree();
    domain.snapshots().lookupByName("b", 0).delete(Flags.SNAPSHOT_DELETE_METADATA_ONLY);
    assertThat(domain.snapshots().lookupByName("c", 0).parent(0).name()).isEqualTo("a");
    domain.snapshots().lookupByName("c", 0).delete(Flags.SNAPSHOT_DELETE_METADATA_ONLY);
    assertThat(domain.snapshots().current(0).name()).isEqualTo("a");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.c");
    assertThat(machine.has("/img/a.b")).isTrue();
    assertRefused(
        () -> domain.snapshots().lookupByName("a", 0).delete(Flags.SNAPSHOT_DELETE_CHILDREN),
        67,
        10,
        "unsupported configuration: deletion of external disk snapshots with children not supported");
    domain
        .snapshots()
        .lookupByName("a", 0)
        .delete(Flags.SNAPSHOT_DELETE_METADATA_ONLY | Flags.SNAPSHOT_DELETE_CHILDREN);
    assertThat(domain.snapshots().hasCurrent(0)).isFalse();
  }

  @Test
  void isThereAfterARestartWithTheSameOneCurrent() throws LibvirtException {
    withThree();
    daemon.view.kill();
    Daemon second = new Daemon(machine);
    second.domains.restore();
    Domain domain = second.domains.lookupByName("vm");
    assertThat(names(domain, 0)).containsExactly("a", "b", "c");
    assertThat(domain.snapshots().current(0).name()).isEqualTo("c");
    assertThat(chain(second.driver.reattached.getFirst().drives().getFirst()))
        .containsExactly("/img/a.c", "/img/a.b", "/img/a.a", "/img/a.qcow2", "/img/base.qcow2");
  }

  @Test
  void keepsItsDomainFromBeingUndefinedUnlessItsMetadataMayGo() throws LibvirtException {
    Domain domain = withThree();
    domain.destroy(0);
    assertRefused(
        () -> domain.undefine(Flags.UNDEFINE_CHECKPOINTS_METADATA),
        55,
        10,
        "Requested operation is not valid: cannot delete inactive domain with 3 snapshots");
    domain.undefine(Flags.UNDEFINE_SNAPSHOTS_METADATA);
    assertThat(machine.documents.get(StateStore.Kind.SNAPSHOT)).isEmpty();
  }

  @Test
  void ofATransientDomainEndsWithIt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    take(domain, "x");
    domain.destroy(0);
    assertThat(machine.documents.get(StateStore.Kind.SNAPSHOT)).isEmpty();
  }

  @Test
  void withHaltStopsThePersistentDomain() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.snapshots().create(xml("x", ""), DISK_ONLY | Flags.SNAPSHOT_HALT);
    assertThat(daemon.takeEvents()).containsExactly("STOPPED_FROM_SNAPSHOT");
    assertThat(domain.state()).isEqualTo(DomainState.SHUTOFF_FROM_SNAPSHOT);
  }

  @Test
  void isRefusedOfADiskWithAJobAndTakenOfTheOther() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(
        () -> take(domain, "x"),
        83,
        10,
        "block copy still active: disk 'vda' already in active block job");
    domain
        .snapshots()
        .create(xml("y", "<disks><disk name='vda' snapshot='no'/></disks>"), DISK_ONLY);
    assertThat(daemon.running().writesTo("vdb")).isEqualTo("/img/b.y");
    assertRefused(
        () ->
            domain
                .snapshots()
                .create(
                    xml(
                        "m",
                        "<memory snapshot='external' file='/img/mem'/>"
                            + "<disks><disk name='vda' snapshot='no'/></disks>"),
                    0),
        55,
        10,
        "Requested operation is not valid: domain has active block job");
    assertThat(daemon.takeEvents()).containsExactly("SUSPENDED_PAUSED", "RESUMED_UNPAUSED");
  }

  @Test
  void thatTheDriverRefusesLeavesAllAsItWas() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    String before = domain.xmlDesc(0);
    String definition = domain.xmlDesc(Flags.XML_INACTIVE);
    List<String> files = machine.files();
    daemon.running().failOn("transaction", DriverException.Kind.OUT_OF_SPACE, "flush: full");
    assertRefused(
        () -> take(domain, "x"),
        1,
        10,
        "internal error: unable to execute the snapshot's transaction: flush: full");
    assertThat(domain.xmlDesc(0)).isEqualTo(before);
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).isEqualTo(definition);
    assertThat(machine.files()).isEqualTo(files);
    assertThat(names(domain, 0)).isEmpty();
    assertThat(machine.documents.get(StateStore.Kind.SNAPSHOT)).isEmpty();
    assertThat(daemon.running().nodes).hasSize(3);
  }

  @ParameterizedTest
  @CsvSource({"LIVE", "DEFINITION", "SNAPSHOT"})
  void thatCannotBeWrittenDownDidNotHappen(StateStore.Kind kind) throws LibvirtException {
    Domain domain = daemon.startPersistent();
    String before = domain.xmlDesc(0);
    daemon.view.failKind = kind;
    org.assertj.core.api.Assertions.assertThatThrownBy(() -> take(domain, "x"))
        .isInstanceOf(LibvirtException.class)
        .hasMessageContaining("no space left");
    daemon.view.failKind = null;
    assertThat(domain.xmlDesc(0)).isEqualTo(before);
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.qcow2");
    assertThat(names(domain, 0)).isEmpty();
    daemon.view.kill();
    Daemon second = new Daemon(machine);
    second.domains.restore();
    for (DriveSpec drive : second.driver.reattached.getFirst().drives()) {
      assertThat(chain(drive)).allMatch(machine::has);
    }
  }

  @Test
  void isOfAllDisksOrNoneWhereverTheDaemonIsKilled() throws LibvirtException {
    int steps = 0;
    for (boolean before : List.of(true, false)) {
      for (int n = 0; ; n++) {
        Machine fresh = Daemon.usualMachine();
        Daemon first = new Daemon(fresh);
        Domain domain = first.startPersistent();
        first.view.killAtWrite(n, before);
        boolean killed = false;
        try {
          take(domain, "x");
        } catch (Machine.Killed e) {
          killed = true;
        }
        if (!killed) {
          break;
        }
        steps++;
        requireWhole(fresh, "killed at write %d, before: %s".formatted(n, before));
      }
    }
    assertThat(steps).isGreaterThan(10);
  }

  /// After a restart: both disks are on overlays that are there, with definition and document, or
  /// none of it is seen.
  private static void requireWhole(Machine machine, String when) throws LibvirtException {
    Daemon second = new Daemon(machine);
    second.domains.restore();
    List<DriveSpec> drives = second.driver.reattached.getFirst().drives();
    List<String> vda = chain(drives.getFirst());
    List<String> vdb = chain(drives.getLast());
    boolean happened = vda.getFirst().equals("/img/a.x");
    assertThat(vda).as(when).endsWith("/img/a.qcow2", "/img/base.qcow2").allMatch(machine::has);
    assertThat(vdb).as(when).endsWith("/img/b.qcow2").allMatch(machine::has);
    assertThat(vdb.getFirst()).as(when).isEqualTo(happened ? "/img/b.x" : "/img/b.qcow2");
    Domain domain = second.domains.lookupByName("vm");
    assertThat(domain.snapshots().names(0)).as(when).isEqualTo(happened ? List.of("x") : List.of());
    assertThat(domain.snapshots().hasCurrent(0)).as(when).isEqualTo(happened);
    String definition = domain.xmlDesc(Flags.XML_INACTIVE);
    assertThat(definition.contains("<source file='/img/a.x'/>")).as(when).isEqualTo(happened);
    assertThat(definition.contains("<source file='/img/b.x'/>")).as(when).isEqualTo(happened);
    if (happened) {
      domain.snapshots().lookupByName("x", 0).delete(Flags.SNAPSHOT_DELETE_METADATA_ONLY);
      second.view.kill();
      Daemon third = new Daemon(machine);
      third.domains.restore();
      assertThat(third.domains.lookupByName("vm").snapshots().names(0)).as(when).isEmpty();
    }
  }

  @Test
  void ofADomainShutOffMakesTheOverlaysItsDisks() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    Snapshot made = take(domain, "x");
    assertThat(made.xmlDesc(0)).contains("<state>shutoff</state>").doesNotContain("inactiveDomain");
    assertThat(domain.xmlDesc(0))
        .contains("<source file='/img/a.x'/>", "<source file='/img/b.x'/>")
        .doesNotContain("backingStore");
    assertThat(names(domain, Flags.SNAPSHOT_LIST_INACTIVE | Flags.SNAPSHOT_LIST_EXTERNAL))
        .containsExactly("x");
    domain.create(0, Daemon.CLIENT);
    assertThat(chain(daemon.running().spec.drives().getFirst()))
        .containsExactly("/img/a.x", "/img/a.qcow2", "/img/base.qcow2");
  }

  @Test
  void ofADomainShutOffIsWholeWhereverTheDaemonIsKilled() throws LibvirtException {
    int steps = 0;
    for (boolean before : List.of(true, false)) {
      for (int n = 0; ; n++) {
        Machine fresh = Daemon.usualMachine();
        Daemon first = new Daemon(fresh);
        Domain domain = first.domains.defineXml(Daemon.usualXml(), 0);
        first.view.killAtWrite(n, before);
        boolean killed = false;
        try {
          take(domain, "x");
        } catch (Machine.Killed e) {
          killed = true;
        }
        if (!killed) {
          break;
        }
        steps++;
        Daemon second = new Daemon(fresh);
        second.domains.restore();
        Domain again = second.domains.lookupByName("vm");
        boolean happened = again.xmlDesc(0).contains("/img/a.x");
        assertThat(again.xmlDesc(0).contains("/img/b.x")).isEqualTo(happened);
        assertThat(names(again, 0)).isEqualTo(happened ? List.of("x") : List.of());
        again.create(0, Daemon.CLIENT);
      }
    }
    assertThat(steps).isGreaterThan(6);
  }

  @Test
  void isTakenUpAgainByRedefinition() throws LibvirtException {
    Domain domain = withThree();
    String c = domain.snapshots().lookupByName("c", 0).xmlDesc(0);
    domain.snapshots().lookupByName("c", 0).delete(Flags.SNAPSHOT_DELETE_METADATA_ONLY);
    domain.snapshots().create(c, Flags.SNAPSHOT_REDEFINE | Flags.SNAPSHOT_CURRENT);
    Snapshot again = domain.snapshots().current(0);
    assertThat(again.name()).isEqualTo("c");
    assertThat(again.xmlDesc(0)).isEqualTo(c);
    assertThat(again.parent(0).name()).isEqualTo("b");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "<name>q</name> | 1 | 35 | internal error: missing creationTime from existing snapshot",
        "<name>q</name><creationTime>1</creationTime> | 27 | 35 | XML error: missing state from existing snapshot",
        "<creationTime>1</creationTime><state>shutoff</state> | 27 | 35 | XML error: a redefined snapshot must have a name",
        "<name>q</name><creationTime>1</creationTime><state>x</state> | 67 | 35 | unsupported configuration: Invalid state 'x' in domain snapshot XML",
        "<name>q</name><creationTime>1</creationTime><state>shutoff</state> | 1 | 35 | internal error: missing domain in snapshot",
        "<name>q</name><creationTime>1</creationTime><state>shutoff</state><parent><name>q</name></parent> | 8 | 20 | invalid argument: cannot set moment q as its own parent",
        "<name>q</name><creationTime>1</creationTime><state>shutoff</state><parent><name>z</name></parent> | 8 | 20 | invalid argument: parent z for moment q not found",
        "<name>a</name><creationTime>1</creationTime><state>disk-snapshot</state><parent><name>c</name></parent> | 8 | 20 | invalid argument: parent c would create cycle to a",
        "<name>a</name><creationTime>1</creationTime><state>running</state> | 8 | 35 | invalid argument: cannot change between online and offline snapshot state in snapshot a"
      })
  void thatIsRedefinedWronglyIsRefused(String rest, int code, int domainNumber, String text)
      throws LibvirtException {
    Domain domain = withThree();
    assertRefused(
        () ->
            domain
                .snapshots()
                .create("<domainsnapshot>" + rest + "</domainsnapshot>", Flags.SNAPSHOT_REDEFINE),
        code,
        domainNumber,
        text);
  }

  @Test
  void insideTheImagesOfADomainShutOffIsMadeGoneBackToAndDeleted() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    daemon.takeEvents();
    Snapshot made = domain.snapshots().create(xml("i", ""), 0);
    assertThat(withoutDomains(made.xmlDesc(0)))
        .contains("<state>shutoff</state>", "<disk name='vda' snapshot='internal'/>");
    assertThat(machine.snapshots.values()).allMatch(List.of("i")::equals).hasSize(2);
    domain.create(0, Daemon.CLIENT);
    daemon.takeEvents();
    made.revert(Flags.SNAPSHOT_REVERT_PAUSED);
    assertThat(machine.applied).containsExactly("/img/a.qcow2 i", "/img/b.qcow2 i");
    assertThat(daemon.takeEvents())
        .containsExactly(
            "STOPPED_FROM_SNAPSHOT",
            "STARTED_FROM_SNAPSHOT",
            "SUSPENDED_FROM_SNAPSHOT",
            "DEFINED_FROM_SNAPSHOT");
    domain.destroy(0);
    made.delete(0);
    assertThat(machine.snapshots.values()).allMatch(List::isEmpty);
    assertThat(names(domain, 0)).isEmpty();
  }

  @Test
  void insideOneImageButNotTheOtherIsTakenBack() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    machine.failSnapshotIn = "/img/b.qcow2";
    assertRefused(() -> domain.snapshots().create(xml("i", ""), 0), 1, 10);
    assertThat(machine.snapshots.values()).allMatch(List::isEmpty);
    assertThat(names(domain, 0)).isEmpty();
  }

  @Test
  void isDeletedByCommittingItsOverlays() throws Exception {
    Domain domain = withThree();
    Snapshot b = domain.snapshots().lookupByName("b", 0);
    var caller =
        new java.util.concurrent.FutureTask<>(() -> {
          b.delete(0);
          return true;
        });
    Thread.ofVirtual().start(caller);
    Daemon.await(() -> daemon.running().jobIds().size() == 2);
    for (String id : daemon.running().jobIds()) {
      daemon.running().move(id, io.tidemark.domain.spi.DriverJobStatus.PENDING);
    }
    assertThat(caller.get(10, java.util.concurrent.TimeUnit.SECONDS)).isTrue();
    assertThat(names(domain, 0)).containsExactly("a", "c");
    assertThat(machine.has("/img/a.b")).isFalse();
    assertThat(domain.xmlDesc(0)).doesNotContain("/img/a.b").contains("/img/a.a", "/img/a.c");
  }

  /// As libvirt: the images are opened by a start that nobody is told of.
  @Test
  void ofADomainShutOffIsDeletedByCommittingItsOverlay() throws Exception {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    String before = domain.xmlDesc(Flags.XML_INACTIVE);
    take(domain, "x");
    Snapshot x = domain.snapshots().lookupByName("x", 0);
    daemon.takeEvents();
    var caller =
        new java.util.concurrent.FutureTask<>(() -> {
          x.delete(0);
          return true;
        });
    Thread.ofVirtual().start(caller);
    Daemon.await(() -> daemon.driver.runs("vm") && daemon.running().jobIds().size() == 2);
    FakeDomain running = daemon.running();
    for (String id : running.jobIds()) {
      running.move(id, io.tidemark.domain.spi.DriverJobStatus.READY);
    }
    assertThat(caller.get(10, java.util.concurrent.TimeUnit.SECONDS)).isTrue();
    assertThat(domain.isActive()).isFalse();
    assertThat(names(domain, 0)).isEmpty();
    assertThat(machine.has("/img/a.x")).isFalse();
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE).replaceAll("\\s*<backingStore/>", ""))
        .isEqualTo(before);
    assertThat(daemon.takeEvents())
        .allMatch(event -> event.contains("ACTIVE_COMMIT"))
        .filteredOn(event -> event.endsWith("COMPLETED"))
        .hasSize(4);
  }

  @Test
  void isThereWhenTheDaemonIsKilledWhileItsOverlayIsCommitted() throws Exception {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    Snapshot x = take(domain, "x");
    String before = domain.xmlDesc(Flags.XML_INACTIVE);
    Thread.ofVirtual()
        .start(() -> {
          try {
            x.delete(0);
          } catch (LibvirtException _) {
            // its daemon is dead
          }
        });
    Daemon.await(() -> daemon.driver.runs("vm") && daemon.running().jobIds().size() == 2);
    daemon.view.kill();
    Daemon after = new Daemon(machine);
    after.domains.restore();
    Domain again = after.domains.lookupByName("vm");
    assertThat(again.isActive()).isFalse();
    assertThat(again.xmlDesc(Flags.XML_INACTIVE)).isEqualTo(before);
    assertThat(names(again, 0)).containsExactly("x");
    assertThat(machine.has("/img/a.x")).isTrue();
    again.create(0, Daemon.CLIENT);
  }

  @Test
  void beneathTheTopOfADomainShutOffIsNotDeleted() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    take(domain, "x");
    take(domain, "y");
    assertRefused(
        () -> domain.snapshots().lookupByName("x", 0).delete(0),
        8,
        18,
        "invalid argument: could not find base disk source in disk source chain");
    assertThat(domain.isActive()).isFalse();
  }

  @Test
  void whoseOverlayStandsOnNothingAnyMoreIsNotDeleted() throws LibvirtException {
    Domain domain = daemon.startTransient();
    Snapshot x = take(domain, "x");
    domain.blockPull("vda", 0, 0);
    daemon.running().move("pull-vda-libvirt-4-format", DriverJobStatus.PENDING);
    daemon.awaitEvents(2);
    assertRefused(
        () -> x.delete(0),
        9,
        10,
        "operation failed: failed to find parent disk source in backing chain");
  }

  @Test
  void isNotDeletedWhileAnotherJobRuns() throws LibvirtException {
    Domain domain = daemon.startTransient();
    take(domain, "x");
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(
        () -> domain.snapshots().lookupByName("x", 0).delete(0),
        84,
        10,
        "Operation not supported: cannot delete external snapshots when there is another active"
            + " block job");
  }
}
