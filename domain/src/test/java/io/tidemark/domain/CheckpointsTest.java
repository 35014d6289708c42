// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.StateStore;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class CheckpointsTest {
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String xml(String name, String rest) {
    return "<domaincheckpoint><name>" + name + "</name>" + rest + "</domaincheckpoint>";
  }

  private static Checkpoint make(Domain domain, String name) throws LibvirtException {
    return domain.checkpointCreateXml(xml(name, ""), 0);
  }

  private static List<String> names(List<Checkpoint> checkpoints) {
    return checkpoints.stream().map(Checkpoint::name).toList();
  }

  private List<String> bitmaps(String file) {
    var found = machine.bitmaps.get(Path.of(file));
    return found == null ? List.of() : List.copyOf(found.keySet());
  }

  private Domain withFour() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    for (String name : List.of("a", "b", "c", "d")) {
      make(domain, name);
      daemon.running().guestWrites("vda", 65536);
    }
    return domain;
  }

  @Test
  void isShownAsLibvirtShowsIt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    make(domain, "a");
    Checkpoint made =
        domain.checkpointCreateXml(
            xml("b", "<description>why</description><disks><disk name='vda'/></disks>"), 0);
    assertThat(made.xmlDesc(0))
        .isEqualTo(
            """
            <domaincheckpoint>
              <name>b</name>
              <description>why</description>
              <parent>
                <name>a</name>
              </parent>
              <creationTime>1800000000</creationTime>
              <disks>
                <disk name='vda' checkpoint='bitmap' bitmap='b'/>
                <disk name='vdb' checkpoint='no'/>
              </disks>
              <domain type='tidemark'>
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
                    <source file='/img/a.qcow2'/>
                    <target dev='vda' bus='virtio'/>
                  </disk>
                  <disk type='file' device='disk'>
                    <driver name='qemu' type='qcow2'/>
                    <source file='/img/b.qcow2'/>
                    <target dev='vdb' bus='virtio'/>
                  </disk>
                </devices>
              </domain>
            </domaincheckpoint>
            """);
  }

  @Test
  void everyBitmapRecordsOnAndSizesAreSinceTheCheckpoint() throws LibvirtException {
    Domain domain = withFour();
    assertThat(bitmaps("/img/a.qcow2")).containsExactly("a", "b", "c", "d");
    assertThat(domain.checkpointLookupByName("a", 0).xmlDesc(2 | 4)).contains("size='262144'");
    assertThat(domain.checkpointLookupByName("d", 0).xmlDesc(2 | 4))
        .contains("bitmap='d' size='65536'")
        .doesNotContain("<domain ");
    domain.destroy(0);
    assertRefused(
        () -> domain.checkpointLookupByName("a", 0).xmlDesc(4),
        55,
        20,
        "Requested operation is not valid: domain is not running");
    assertThat(names(domain.checkpoints(0))).containsExactly("a", "b", "c", "d");
  }

  @Test
  void listsByPlaceInTheTree() throws LibvirtException {
    Domain domain = withFour();
    assertThat(names(domain.checkpoints(Flags.CHECKPOINT_LIST_ROOTS))).containsExactly("a");
    assertThat(names(domain.checkpoints(Flags.CHECKPOINT_LIST_LEAVES))).containsExactly("d");
    assertThat(names(domain.checkpoints(Flags.CHECKPOINT_LIST_NO_LEAVES)))
        .containsExactly("a", "b", "c");
    assertThat(names(domain.checkpoints(4 | 8))).isEmpty();
    Checkpoint b = domain.checkpointLookupByName("b", 0);
    assertThat(b.parent(0).name()).isEqualTo("a");
    assertThat(names(b.children(0))).containsExactly("c");
    assertThat(names(b.children(Flags.CHECKPOINT_LIST_DESCENDANTS))).containsExactly("c", "d");
    assertThat(names(b.children(Flags.CHECKPOINT_LIST_LEAVES))).isEmpty();
    assertThat(names(daemon.domains.list(Flags.LIST_HAS_CHECKPOINT).getFirst().checkpoints(0)))
        .hasSize(4);
    assertThat(daemon.domains.list(Flags.LIST_NO_CHECKPOINT)).isEmpty();
  }

  @Test
  void deletingInTheMiddleJoinsTheNeighbours() throws LibvirtException {
    Domain domain = withFour();
    domain.checkpointLookupByName("b", 0).delete(0);
    assertThat(bitmaps("/img/a.qcow2")).containsExactly("a", "c", "d");
    assertThat(domain.checkpointLookupByName("c", 0).parent(0).name()).isEqualTo("a");
    domain.checkpointLookupByName("a", 0).delete(0);
    assertRefused(
        () -> domain.checkpointLookupByName("c", 0).parent(0),
        103,
        10,
        "Domain checkpoint not found: checkpoint 'c' does not have a parent");
    domain.checkpointLookupByName("d", 0).delete(0);
    make(domain, "e");
    assertThat(domain.checkpointLookupByName("e", 0).parent(0).name()).isEqualTo("c");
    assertThat(machine.documents.get(StateStore.Kind.CHECKPOINT)).containsOnlyKeys("vm/c", "vm/e");
  }

  @Test
  void deletesWithChildrenOnlyThemOrOnlyTheirMetadata() throws LibvirtException {
    Domain domain = withFour();
    domain.checkpointLookupByName("c", 0).delete(Flags.CHECKPOINT_DELETE_METADATA_ONLY);
    assertThat(bitmaps("/img/b.qcow2")).containsExactly("a", "b", "c", "d");
    domain.checkpointLookupByName("b", 0).delete(Flags.CHECKPOINT_DELETE_CHILDREN_ONLY);
    assertThat(names(domain.checkpoints(0))).containsExactly("a", "b");
    domain.checkpointLookupByName("a", 0).delete(Flags.CHECKPOINT_DELETE_CHILDREN);
    assertThat(domain.checkpoints(0)).isEmpty();
    assertThat(bitmaps("/img/b.qcow2")).containsExactly("c");
  }

  @Test
  void namesItselfByTheClock() throws LibvirtException {
    assertThat(daemon.startTransient().checkpointCreateXml("<domaincheckpoint/>", 0).name())
        .isEqualTo("1800000000");
  }

  @Test
  void survivesAPivotToQcow2AndLosesItsSizeOnRaw() throws LibvirtException {
    Domain domain = daemon.startTransient();
    make(domain, "a");
    pivot(domain, "copy-vda-libvirt-2-format", "/img/c1", 0);
    assertThat(domain.checkpointLookupByName("a", 0).xmlDesc(6))
        .contains("vda' checkpoint='bitmap' bitmap='a' size=");
    pivot(domain, "copy-vda-libvirt-4-format", "/img/c2", Flags.REBASE_COPY_RAW);
    assertThat(domain.checkpointLookupByName("a", 0).xmlDesc(6))
        .contains("<disk name='vda' checkpoint='bitmap' bitmap='a'/>");
    assertRefused(
        () -> make(domain, "b"),
        67,
        10,
        "unsupported configuration: checkpoint for disk vda unsupported for storage type raw");
  }

  private void pivot(Domain domain, String job, String file, int flags) throws LibvirtException {
    domain.blockRebase("vda", file, 0, Flags.REBASE_COPY | flags);
    daemon.running().ready(job);
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    daemon.takeEvents();
  }

  interface Verb {
    void on(Domain domain) throws LibvirtException;
  }

  private static final String SCHEMA = Refusals.SCHEMA + "domaincheckpoint.rng\n";

  static Stream<Arguments> refusals() {
    return Stream.of(
        create("xxx", 35, 69, "(domain_checkpoint):1: Start tag expected, '<' not found\nxxx\n^"),
        create(
            "<domainsnapshot/>",
            27,
            5,
            "XML error: expecting root element of 'domaincheckpoint', not 'domainsnapshot'"),
        create(xml("", ""), 92, 5, SCHEMA),
        create(xml("a b", ""), 92, 5, SCHEMA),
        create(xml(".a", ""), 92, 5, SCHEMA),
        create(xml("a/b", ""), 92, 5, SCHEMA),
        create(xml("\u00e4", ""), 92, 5, SCHEMA),
        create(xml("c", "<foo/>"), 92, 5, SCHEMA),
        disks("<disk/>", 92, 5, SCHEMA),
        disks("<disk name='vda' checkpoint='foo'/>", 92, 5, SCHEMA),
        disks("<disk name='vda' checkpoint='no' bitmap='c'/>", 92, 5, SCHEMA),
        disks(
            "<disk name='vda' bitmap='x'/>",
            67,
            10,
            "unsupported configuration: bitmap for disk 'vda' must match checkpoint name 'c'"),
        disks("<disk name='vdz'/>", 67, 69, "unsupported configuration: no disk named 'vdz'"),
        disks(
            "<disk name='vda'/><disk name='/img/a.qcow2'/>",
            67,
            69,
            "unsupported configuration: disk '/img/a.qcow2' specified twice"),
        create(xml("old", ""), 9, 20, "operation failed: domain moment old already exists"),
        refused(
            d -> d.checkpointCreateXml(xml("c", ""), 2),
            8,
            10,
            "unsupported flags (0x2) in function qemuCheckpointCreateXML"),
        refused(
            d -> d.checkpointCreateXml(xml("c", ""), 4),
            8,
            69,
            "Flag 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE' is required by flag"
                + " 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE'"),
        refused(
            d -> d.checkpoints(16),
            8,
            10,
            "unsupported flags (0x10) in function qemuDomainListAllCheckpoints"),
        refused(
            d -> d.checkpointLookupByName("x", 0),
            103,
            10,
            "Domain checkpoint not found: no domain checkpoint with matching name 'x'"),
        refused(
            d -> d.checkpointLookupByName("old", 1),
            8,
            10,
            "unsupported flags (0x1) in function qemuDomainCheckpointLookupByName"),
        refused(
            d -> d.checkpointLookupByName("old", 0).parent(0),
            103,
            10,
            "Domain checkpoint not found: checkpoint 'old' does not have a parent"),
        refused(
            d -> d.checkpointLookupByName("old", 0).xmlDesc(16),
            8,
            10,
            "unsupported flags (0x10) in function qemuCheckpointGetXMLDesc"),
        refused(
            d -> d.checkpointLookupByName("old", 0).delete(5),
            8,
            69,
            "Flags 'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN' and"
                + " 'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY' are mutually exclusive"));
  }

  private static Arguments create(String xml, int code, int domain, String text) {
    return refused(d -> d.checkpointCreateXml(xml, 0), code, domain, text);
  }

  private static Arguments disks(String disks, int code, int domain, String text) {
    return create(xml("c", "<disks>" + disks + "</disks>"), code, domain, text);
  }

  private static Arguments refused(Verb verb, int code, int domain, String text) {
    return Arguments.of(verb, code, domain, text);
  }

  @ParameterizedTest
  @MethodSource("refusals")
  void refusesInLibvirtsWordsAndChangesNothing(Verb verb, int code, int error, String text)
      throws LibvirtException {
    Domain domain = daemon.startTransient();
    make(domain, "old");
    assertRefused(() -> verb.on(domain), code, error, text);
    assertThat(names(domain.checkpoints(0))).containsExactly("old");
    assertThat(bitmaps("/img/a.qcow2")).containsExactly("old");
  }

  @Test
  void stoppedDomainKeepsItsCheckpointsButChangesNone() throws LibvirtException {
    Domain domain = withFour();
    domain.destroy(0);
    assertRefused(
        () -> make(domain, "x"),
        84,
        10,
        "Operation not supported: cannot create checkpoint for inactive domain");
    assertRefused(
        () -> domain.checkpointLookupByName("a", 0).delete(0),
        84,
        10,
        "Operation not supported: cannot delete checkpoint for inactive domain");
    assertRefused(
        () -> domain.undefine(0),
        55,
        10,
        "Requested operation is not valid: cannot delete inactive domain with 4 checkpoints");
    domain.checkpointLookupByName("a", 0).delete(Flags.CHECKPOINT_DELETE_METADATA_ONLY);
    domain.undefine(Flags.UNDEFINE_CHECKPOINTS_METADATA);
    assertThat(machine.documents.get(StateStore.Kind.CHECKPOINT)).isEmpty();
    assertThat(bitmaps("/img/a.qcow2")).hasSize(4);
  }

  @Test
  void transientDomainTakesItsCheckpointsWithIt() throws LibvirtException {
    Domain domain = daemon.startTransient();
    make(domain, "a");
    domain.destroy(0);
    assertThat(machine.documents.get(StateStore.Kind.CHECKPOINT)).isEmpty();
    assertThat(machine.documents.get(StateStore.Kind.LIVE)).isEmpty();
    assertThat(bitmaps("/img/a.qcow2")).containsExactly("a");
  }

  @Test
  void documentThatCannotBeWrittenTakesTheBitmapsBack() throws LibvirtException {
    Domain domain = daemon.startTransient();
    daemon.view.failKind = StateStore.Kind.CHECKPOINT;
    assertRefused(() -> make(domain, "a"), 1, 10);
    assertThat(bitmaps("/img/a.qcow2")).isEmpty();
    assertThat(domain.checkpoints(0)).isEmpty();
    assertThat(machine.document(StateStore.Kind.LIVE, "vm").orElseThrow())
        .doesNotContain("pendingCheckpoint");
  }

  @Test
  void bitmapThatIsAlreadyThereRefusesTheCheckpoint() throws LibvirtException {
    Domain domain = daemon.startTransient();
    make(domain, "a");
    domain.checkpointLookupByName("a", 0).delete(Flags.CHECKPOINT_DELETE_METADATA_ONLY);
    assertRefused(() -> make(domain, "a"), 1, 10);
    daemon.running().failOn("transaction", DriverException.Kind.OUT_OF_SPACE, "no space");
    assertRefused(() -> make(domain, "b"), 1, 10);
    assertThat(domain.checkpoints(0)).isEmpty();
    make(domain, "b");
  }
}
