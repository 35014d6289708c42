// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/// What is allowed and refused here was held against libvirt 9.0.0, see SchemaIT in `interop`.
class SchemaTest {
  private static final String UNIX = "<server transport='unix' socket='/s'/>";

  private static String pull(String disk) {
    return "<domainbackup mode='pull'>" + UNIX + "<disks>" + disk + "</disks></domainbackup>";
  }

  private static String domain(String rest) {
    return "<domain type='tidemark'><name>x</name><memory unit='MiB'>1</memory>"
        + rest
        + "</domain>";
  }

  private static String disk(String rest) {
    return domain(
        "<devices><disk type='file'><source file='/a'/><target dev='vda'/>"
            + rest
            + "</disk></devices>");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "<domaincheckpoint/>",
        "<domaincheckpoint><description/><name>a.b-_1</name></domaincheckpoint>",
        "<domaincheckpoint><disks><disk name='vda' checkpoint='bitmap' bitmap='b' size='1'/>"
            + "<disk name='/x y' checkpoint='no'/></disks></domaincheckpoint>",
        "<domaincheckpoint><creationTime> 5 </creationTime><domain type='kvm'><name>x</name>"
            + "</domain></domaincheckpoint>"
      })
  void allowsCheckpoints(String xml) {
    assertThatCode(() -> Schema.CHECKPOINT.check(xml)).doesNotThrowAnyException();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "<domaincheckpoint a='1'/>",
        "<domaincheckpoint>text</domaincheckpoint>",
        "<domaincheckpoint><name>a</name><name>b</name></domaincheckpoint>",
        "<domaincheckpoint><creationTime>-1</creationTime></domaincheckpoint>",
        "<domaincheckpoint><disks/></domaincheckpoint>",
        "<domaincheckpoint><disks><disk name='x/y'/></disks></domaincheckpoint>",
        "<domaincheckpoint><disks><disk name='vda' checkpoint='no' bitmap='b'/></disks>"
            + "</domaincheckpoint>",
        "<domaincheckpoint><domain><uuid>aaaaaaaa-0000-0000-0000-000000000001</uuid></domain>"
            + "</domaincheckpoint>"
      })
  void refusesCheckpoints(String xml) {
    refused(Schema.CHECKPOINT, xml);
  }

  static Stream<String> goodBackups() {
    return Stream.of(
        "<domainbackup/>",
        "<domainbackup><incremental/></domainbackup>",
        "<domainbackup mode='pull'><server name='::1'/></domainbackup>",
        "<domainbackup mode='pull'><server transport='unix' socket='/s' tls='yes'/></domainbackup>",
        pull("<disk name='vda'/>"),
        pull("<disk name='vda'><scratch file='/s'/></disk>"),
        pull("<disk name='vda' type='block' exportname='a b/c'><scratch dev='/s'/></disk>"),
        pull("<disk name='vda' backup='no' incremental='c'/>"),
        "<domainbackup><disks><disk name='vda' type='file'/></disks></domainbackup>");
  }

  @ParameterizedTest
  @MethodSource("goodBackups")
  void allowsBackups(String xml) {
    assertThatCode(() -> Schema.BACKUP.check(xml)).doesNotThrowAnyException();
  }

  static Stream<String> badBackups() {
    return Stream.of(
        "<domainbackup mode='x'/>",
        "<domainbackup mode='pull'/>",
        "<domainbackup>" + UNIX + "</domainbackup>",
        "<domainbackup mode='pull'><server transport='tcp'/></domainbackup>",
        "<domainbackup mode='pull'><server transport='tcp' name='a b'/></domainbackup>",
        "<domainbackup mode='pull'><server transport='unix' socket='s'/></domainbackup>",
        pull("<disk name='vda' backup='yes'/>"),
        pull("<disk name='vda' type='block'/>"),
        pull("<disk name='vda'><driver type='qcow2'/></disk>"),
        pull("<disk name='vda' type='file'><scratch file='/s'/><driver type='raw'/></disk>"),
        pull("<disk name='vda' type='file'><target file='/s'/></disk>"),
        pull("<disk name='hd.a'/>"),
        "<domainbackup><disks><disk name='vda'/></disks></domainbackup>",
        "<domainbackup><disks/></domainbackup>",
        "<domainbackup><disks><disk name='vda' backup='no'><target file='/t'/></disk></disks>"
            + "</domainbackup>");
  }

  @ParameterizedTest
  @MethodSource("badBackups")
  void refusesBackups(String xml) {
    refused(Schema.BACKUP, xml);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "true | <domainsnapshot/>",
        "true | <domainsnapshot><disks><disk name='vda'><source file='/f'/></disk></disks></domainsnapshot>",
        "true | <domainsnapshot><disks><disk name='vda' type='network'><source protocol='nbd'/></disk></disks></domainsnapshot>",
        "true | <domainsnapshot><memory file='/m'/><state>disk-snapshot</state></domainsnapshot>",
        "false | <domainsnapshot><memory snapshot='no' file='/m'/></domainsnapshot>",
        "false | <domainsnapshot><state>nostate</state></domainsnapshot>",
        "false | <domainsnapshot><disks><disk name='vda' snapshot='no' type='file'/></disks></domainsnapshot>",
        "false | <domainsnapshot><disks><disk name='vda' type='block'><source file='/f'/></disk></disks></domainsnapshot>",
        "false | <domainsnapshot><disks><disk name='vda'><driver type='zz'/></disk></disks></domainsnapshot>"
      })
  void holdsSnapshots(boolean good, String xml) {
    if (good) {
      assertThatCode(() -> Schema.SNAPSHOT.check(xml)).doesNotThrowAnyException();
    } else {
      refused(Schema.SNAPSHOT, xml);
    }
  }

  static Stream<String> goodDomains() {
    return Stream.of(
        "<domain type='tidemark'><name>x</name></domain>",
        domain("<uuid>AAAAAAAA000000000000000000000001</uuid><cpu mode='host-model'><a/></cpu>"),
        domain("<metadata><x:y xmlns:x='http://x'/></metadata><devices><hostdev/></devices>"),
        disk("<driver name='qemu' type='qcow2' cache='none' queues='2'/><backingStore/>"),
        disk(
            "<backingStore type='file' index='1'><format type='qcow2'/><source file='/b'/>"
                + "<backingStore/></backingStore>"),
        "<domain type='kvm' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>x</name>"
            + "<q:commandline><q:arg value='-x'/></q:commandline></domain>");
  }

  @ParameterizedTest
  @MethodSource("goodDomains")
  void allowsDomains(String xml) {
    assertThatCode(() -> Schema.DOMAIN.check(xml)).doesNotThrowAnyException();
  }

  static Stream<String> badDomains() {
    return Stream.of(
        "<domain type='foo'><name>x</name></domain>",
        "<domain type='kvm'/>",
        domain("<foo/>"),
        domain("<devices><frob/></devices>"),
        domain("<uuid>aaaa</uuid>"),
        domain("<vcpu>x</vcpu>"),
        domain("<z:y xmlns:z='http://z'/>"),
        domain("<p:y/>"),
        disk("<foo/>"),
        disk("<driver type='zz'/>"),
        disk("<driver cache='zz'/>"),
        disk("<backingStore type='file'><source file='/b'/></backingStore>"));
  }

  @ParameterizedTest
  @MethodSource("badDomains")
  void refusesDomains(String xml) {
    refused(Schema.DOMAIN, xml);
  }

  private static void refused(Schema schema, String xml) {
    LibvirtException refusal =
        catchThrowableOfType(LibvirtException.class, () -> schema.check(xml));
    assertThat(refusal).as(xml).isNotNull();
    assertThat(refusal.code()).isEqualTo(ErrorCode.XML_INVALID_SCHEMA);
    assertThat(refusal.domain()).isEqualTo(ErrorDomain.XML);
    assertThat(refusal).hasMessageStartingWith(Refusals.SCHEMA);
  }

  @Test
  void refusesADocumentTypeDeclaration() {
    assertThatThrownBy(
            () -> Schema.DOMAIN.check("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>"))
        .isInstanceOf(LibvirtException.class)
        .hasMessageContaining("DOCTYPE");
  }

  /// The largest document that is read, built to keep a schema's choices open.
  @Test
  void staysQuickOnLargeDocuments() {
    String disks = "<disk name='vda' checkpoint='no'/>".repeat(90_000);
    assertThatCode(() ->
            Schema.CHECKPOINT.check(
                "<domaincheckpoint><disks>" + disks + "</disks></domaincheckpoint>"))
        .doesNotThrowAnyException();
    String deep = "<a>".repeat(290) + "</a>".repeat(290);
    assertThatCode(() -> Schema.DOMAIN.check(domain("<metadata>" + deep + "</metadata>")))
        .doesNotThrowAnyException();
    refused(Schema.DOMAIN, domain("<uuid>" + "a-".repeat(1_000_000) + "</uuid>"));
    refused(Schema.DOMAIN, domain("<memory>1</memory>".repeat(90_000)));
  }
}
