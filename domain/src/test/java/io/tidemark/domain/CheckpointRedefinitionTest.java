// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;

/// What is accepted, refused and shown was measured at libvirt 9.0.0.
class CheckpointRedefinitionTest {
  private static final int REDEFINE = Flags.CHECKPOINT_REDEFINE;
  private static final int VALIDATE = REDEFINE | Flags.CHECKPOINT_REDEFINE_VALIDATE;
  private static final String TIME = "<creationTime>1234</creationTime>";

  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String xml(String name, String rest) {
    return "<domaincheckpoint><name>" + name + "</name>" + rest + "</domaincheckpoint>";
  }

  private static String disks(String disks) {
    return "<disks>" + disks + "</disks>";
  }

  private Domain withThree() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    for (String name : List.of("a", "b", "c")) {
      Checkpoint _ = domain.checkpointCreateXml(xml(name, ""), 0);
    }
    return domain;
  }

  private static List<String> names(Domain domain) throws LibvirtException {
    return domain.checkpoints(0).stream().map(Checkpoint::name).toList();
  }

  private static String parentOfNext(Domain domain) throws LibvirtException {
    return domain.checkpointCreateXml(xml("next", ""), 0).parent(0).name();
  }

  @Test
  void bringsBackWhatWasForgotten() throws LibvirtException {
    Domain domain = withThree();
    List<String> documents = new java.util.ArrayList<>();
    for (String name : List.of("c", "b", "a")) {
      Checkpoint checkpoint = domain.checkpointLookupByName(name, 0);
      documents.addFirst(checkpoint.xmlDesc(0));
      checkpoint.delete(Flags.CHECKPOINT_DELETE_METADATA_ONLY);
    }
    assertThat(names(domain)).isEmpty();
    for (String document : documents) {
      assertThat(domain.checkpointCreateXml(document, VALIDATE).xmlDesc(0)).isEqualTo(document);
    }
    assertThat(names(domain)).containsExactly("a", "b", "c");
    assertThat(domain.checkpointLookupByName("b", 0).xmlDesc(Flags.CHECKPOINT_XML_SIZE))
        .contains("size='0'");
    assertThat(parentOfNext(domain)).isEqualTo("c");
  }

  @Test
  void isThereAfterARestart() throws LibvirtException {
    Domain domain = withThree();
    Checkpoint _ = domain.checkpointCreateXml(xml("old", TIME + disks("<disk name='vdz'/>")), 1);
    Daemon next = new Daemon(machine);
    next.domains.restore();
    Domain again = next.domains.lookupByName(domain.name());
    assertThat(names(again)).containsExactlyInAnyOrder("a", "b", "c", "old");
    assertThat(again.checkpointLookupByName("old", 0).xmlDesc(0))
        .isEqualTo(domain.checkpointLookupByName("old", 0).xmlDesc(0))
        .contains("<disk name='vdz' checkpoint='bitmap' bitmap='old'/>")
        .doesNotContain("<domain ");
  }

  @Test
  void alignsItsDisksWithItsDomain() throws LibvirtException {
    Domain domain = withThree();
    String document = Daemon.usualXml();
    assertThat(domain.checkpointCreateXml(xml("n", TIME + document), REDEFINE).xmlDesc(2))
        .contains("name='vda' checkpoint='bitmap' bitmap='n'", "name='vdb' checkpoint='bitmap'");
    String listed = TIME + disks("<disk name='/img/b.qcow2' bitmap='x' size='7'/>") + document;
    assertThat(domain.checkpointCreateXml(xml("n", listed), REDEFINE).xmlDesc(2))
        .as("once more, changed")
        .contains("name='vda' checkpoint='no'", "name='vdb' checkpoint='bitmap' bitmap='x'/>");
  }

  private static String uuid(Domain domain) {
    return "<uuid>" + domain.uuid() + "</uuid>";
  }

  @Test
  void isCurrentOnlyWhereItContinuesTheCurrentOne() throws LibvirtException {
    Domain domain = withThree();
    String parent = "<parent><name>%s</name></parent>" + TIME;
    Checkpoint _ = domain.checkpointCreateXml(xml("side", parent.formatted("a")), REDEFINE);
    Checkpoint _ = domain.checkpointCreateXml(xml("on", parent.formatted("c")), REDEFINE);
    assertThat(parentOfNext(domain)).isEqualTo("on");
  }

  @Test
  void wantsTheBitmapsOnlyWhenAsked() throws LibvirtException {
    Domain domain = withThree();
    String gone = xml("gone", TIME + disks("<disk name='vda'/>"));
    assertRefused(
        () -> domain.checkpointCreateXml(gone, VALIDATE),
        109,
        10,
        "checkpoint inconsistent: missing or broken bitmap 'gone' for disk 'vda'");
    assertThat(names(domain)).containsExactly("a", "b", "c");
    Checkpoint _ = domain.checkpointCreateXml(gone, REDEFINE);
    domain.destroy(0);
    assertRefused(
        () -> domain.checkpointCreateXml(gone, VALIDATE),
        55,
        20,
        "Requested operation is not valid: domain is not running");
    Checkpoint _ = domain.checkpointCreateXml(gone.replace("gone", "gone2"), REDEFINE);
    assertThat(names(domain)).contains("gone", "gone2");
  }

  @Test
  void refusesInLibvirtsWordsAndChangesNothing() throws LibvirtException {
    Domain domain = withThree();
    String parent = "<parent><name>%s</name></parent>" + TIME;
    refused(
        domain,
        xml("n", ""),
        1,
        69,
        "internal error: missing creationTime from existing checkpoint");
    refused(
        domain,
        xml("n", "<creationTime>18446744073709551615</creationTime>"),
        1,
        69,
        "internal error: missing creationTime from existing checkpoint");
    refused(
        domain,
        "<domaincheckpoint>" + TIME + "</domaincheckpoint>",
        27,
        69,
        "XML error: a redefined checkpoint must have a name");
    refused(
        domain,
        xml("n", parent.formatted("zz")),
        8,
        20,
        "invalid argument: parent zz for moment n not found");
    refused(
        domain,
        xml("a", parent.formatted("a")),
        8,
        20,
        "invalid argument: cannot set moment a as its own parent");
    refused(
        domain,
        xml("a", parent.formatted("c")),
        8,
        20,
        "invalid argument: parent b would create cycle to a");
    refused(
        domain,
        xml("n", TIME + Daemon.usualXml().replace("16db1809", "16db1800")),
        8,
        69,
        "invalid argument: definition for checkpoint n must use uuid " + domain.uuid());
    String without = "<domain type='tidemark'>" + uuid(domain) + "<name>vm</name></domain>";
    refused(
        domain,
        xml("n", TIME + without),
        67,
        69,
        "unsupported configuration: domain must have at least one disk to perform checkpoints");
  }

  private static void refused(Domain domain, String xml, int code, int from, String text)
      throws LibvirtException {
    assertRefused(() -> domain.checkpointCreateXml(xml, REDEFINE), code, from, text);
    assertThat(names(domain)).containsExactly("a", "b", "c");
  }

  @Test
  void showsPasswordsOnlyToWhoAsksForThem() throws LibvirtException {
    String xml =
        Daemon.usualXml().replace("</devices>", "<graphics type='vnc' passwd='secret'/></devices>");
    Domain domain = daemon.domains.defineXml(xml, 0);
    domain.create(0, this);
    Checkpoint made = domain.checkpointCreateXml(xml("c", ""), 0);
    assertThat(made.xmlDesc(Flags.CHECKPOINT_XML_SECURE)).contains("passwd='secret'");
    assertThat(made.xmlDesc(0)).contains("<graphics type='vnc'/>").doesNotContain("secret");
    assertThat(domain.xmlDesc(Flags.XML_SECURE)).contains("passwd='secret'");
    assertThat(domain.xmlDesc(0)).contains("<graphics type='vnc'/>").doesNotContain("secret");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).doesNotContain("secret");
  }
}
