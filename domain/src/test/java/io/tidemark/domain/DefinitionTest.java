// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.util.Set;
import java.util.UUID;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class DefinitionTest {
  private static final String DISK =
      "<disk><source file='/img/a'/><target dev='vda' bus='virtio'/></disk>";

  private static Definition parse(String xml) throws LibvirtException {
    return Definition.parse(xml, Set.of("tidemark"), () -> new UUID(1, 2));
  }

  private static String domain(String inner) {
    return "<domain type='tidemark'><name>vm</name>" + inner + "</domain>";
  }

  private static String devices(String inner) {
    return domain("<devices>" + inner + "</devices>");
  }

  /// Numbers, domains and texts as libvirt 9.0.0 gives them.
  static Stream<Arguments> refusals() {
    return Stream.of(
        refusal("xyz", 35, 20, "(domain_definition):1: Start tag expected, '<' not found\nxyz\n^"),
        refusal("", 35, 20, "(domain_definition):1: Document is empty\n(null)\n^"),
        refusal("<foo/>", 27, 5, "XML error: expecting root element of 'domain', not 'foo'"),
        refusal(domain("").replace("<name>vm</name>", ""), 21, 20, "missing name information"),
        refusal(domain("").replace("vm", ""), 21, 20, "missing name information"),
        refusal(domain("").replace("vm", "a/b"), 27, 20, "XML error: name a/b cannot contain '/'"),
        refusal(domain("").replace("vm", "a\nb"), 35, 5, "invalid char in name: a\nb"),
        refusal("<domain/>", 1, 20, "internal error: missing domain type attribute"),
        refusal(
            "<domain type='foo'/>", 67, 20, "unsupported configuration: invalid domain type foo"),
        refusal(
            "<domain type='kvm'/>",
            67,
            10,
            "unsupported configuration: no driver runs domains of virt type 'kvm'"),
        refusal(domain("<uuid>zz</uuid>"), 1, 20, "internal error: malformed uuid element"),
        refusal(
            domain("<memory>x</memory>"),
            27,
            5,
            "XML error: Invalid value 'x' for element or attribute './memory[1]'"),
        refusal(
            domain("<memory unit='foo'>1</memory>"),
            8,
            0,
            "invalid argument: unknown suffix 'foo'"),
        refusal(
            devices("<disk><target dev='vda'/></disk>"),
            19,
            20,
            "missing source information for device vda"),
        refusal(
            devices("<disk><source file=''/><target dev='vda'/></disk>"),
            19,
            20,
            "missing source information for device vda"),
        refusal(
            devices("<disk><source file='/img/a'/></disk>"),
            20,
            20,
            "missing target information for device /img/a"),
        refusal(
            devices(DISK.replace("virtio", "foo")),
            27,
            5,
            "XML error: Invalid value for attribute 'bus' in element 'target': 'foo'."),
        refusal(
            devices(DISK.replace("vda", "zzz")),
            27,
            20,
            "XML error: Unknown disk name 'zzz' and no address specified"),
        refusal(
            devices(DISK.replace("<source", "<driver type='foo'/><source")),
            67,
            20,
            "unsupported configuration: unknown driver format value 'foo'"),
        refusal(
            devices(DISK.replace("<source", "<driver name='file'/><source")),
            67,
            10,
            "unsupported configuration: unsupported driver name 'file' for disk 'vda'"),
        refusal(
            devices(DISK.replace("<disk>", "<disk type='foo'>")),
            27,
            5,
            "XML error: Invalid value for attribute 'type' in element 'disk': 'foo'."),
        refusal(
            devices(DISK.replace("<disk>", "<disk device='foo'>")),
            27,
            5,
            "XML error: Invalid value for attribute 'device' in element 'disk': 'foo'."),
        refusal(
            devices(DISK.replace("<disk>", "<disk device='cdrom'>")),
            67,
            10,
            "unsupported configuration: disk type of 'vda' does not support ejectable media"),
        refusal(
            devices(DISK + DISK.replace("/img/a", "/img/b")),
            27,
            20,
            "XML error: target 'vda' duplicated for disk sources '/img/a' and '/img/b'"));
  }

  private static Arguments refusal(String xml, int code, int domain, String text) {
    return Arguments.of(xml, code, domain, text);
  }

  @ParameterizedTest
  @MethodSource("refusals")
  void refusesInLibvirtsWords(String xml, int code, int domain, String text) {
    var refused = catchThrowableOfType(LibvirtException.class, () -> parse(xml));
    assertThat(refused).hasMessage(text);
    assertThat(refused.code().number()).isEqualTo(code);
    assertThat(refused.domain().number()).isEqualTo(domain);
  }

  @Test
  void refusesADocumentTypeDeclaration() {
    var refused =
        catchThrowableOfType(
            LibvirtException.class,
            () ->
                parse(
                    "<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + domain("&a;")));
    assertThat(refused.code()).isEqualTo(ErrorCode.XML_DETAIL);
    assertThat(refused.getMessage()).contains("DOCTYPE");
  }

  @Test
  void refusesNestingThatWouldOverflowTheStack() {
    String deep = "<a>".repeat(100_000) + "</a>".repeat(100_000);
    var refused = catchThrowableOfType(LibvirtException.class, () -> parse(domain(deep)));
    assertThat(refused.code()).isEqualTo(ErrorCode.XML_DETAIL);
  }

  @Test
  void refusesAHugeDocument() {
    String huge = " ".repeat(Xml.MAX_CHARACTERS) + domain("");
    assertThat(catchThrowableOfType(LibvirtException.class, () -> parse(huge)))
        .hasMessageContaining("limit is");
  }

  @ParameterizedTest
  @MethodSource("truncations")
  void everyTruncationIsRefusedOrRead(String xml) {
    try {
      assertThat(parse(xml).name()).isEqualTo("vm");
    } catch (LibvirtException e) {
      assertThat(e.code().number()).isPositive();
    }
  }

  static Stream<String> truncations() {
    String whole = domain("<memory unit='MiB'>64</memory><devices>" + DISK + "</devices>");
    return Stream.iterate(0, n -> n <= whole.length(), n -> n + 1).map(n -> whole.substring(0, n));
  }

  @Test
  void fillsLibvirtsDefaultsAndKeepsWhatItDoesNotKnow() throws LibvirtException {
    Definition definition =
        parse(
            """
            <domain type='tidemark' id='7' xmlns:x='urn:x'>
              <devices>
                <disk device='cdrom'><target dev='sda' bus='sata'/></disk>
                <future kind='a'><part n="it's"/></future>
                <disk><target dev='vdb'/><glow/><serial>s</serial><source file='/img/b' index='4'/></disk>
                <disk><mirror type='file'/><source file='/img/a'/><target bus='virtio' dev='vda'/>
                  <driver cache='none' type='qcow2'/><alias name='old'/></disk>
                <emulator>/bin/e</emulator>
              </devices>
              <x:extra>text</x:extra>
              <memory unit='MiB'>64</memory>
              <name>vm</name>
            </domain>
            """);
    assertThat(Xml.write(definition.root()))
        .isEqualTo(
            """
            <domain type='tidemark' xmlns:x='urn:x'>
              <name>vm</name>
              <uuid>00000000-0000-0001-0000-000000000002</uuid>
              <memory unit='KiB'>65536</memory>
              <currentMemory unit='KiB'>65536</currentMemory>
              <vcpu placement='static'>1</vcpu>
              <os>
                <type>hvm</type>
              </os>
              <clock offset='utc'/>
              <on_poweroff>destroy</on_poweroff>
              <on_reboot>restart</on_reboot>
              <on_crash>destroy</on_crash>
              <devices>
                <emulator>/bin/e</emulator>
                <disk type='file' device='cdrom'>
                  <driver name='qemu'/>
                  <target dev='sda' bus='sata'/>
                  <readonly/>
                </disk>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='qcow2' cache='none'/>
                  <source file='/img/a'/>
                  <target dev='vda' bus='virtio'/>
                </disk>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='raw'/>
                  <source file='/img/b'/>
                  <target dev='vdb' bus='virtio'/>
                  <serial>s</serial>
                  <glow/>
                </disk>
                <future kind='a'>
                  <part n='it&apos;s'/>
                </future>
              </devices>
              <x:extra>text</x:extra>
            </domain>
            """);
  }

  @Test
  void whatIsWrittenIsReadAgainAsTheSame() throws LibvirtException {
    String xml =
        devices(
            DISK.replace("/img/a", "/img/&amp;&lt;&#10;&#9; '&quot;".replace("'", "&apos;"))
                + "<note>a &amp; b\n c</note>");
    String once = Xml.write(parse(xml).root());
    assertThat(Xml.write(parse(once).root())).isEqualTo(once);
    assertThat(parse(once).disks().getFirst().source()).hasValue("/img/&<\n\t '\"");
  }

  @Test
  void namesDisksAsLibvirtDoes() {
    assertThat(DiskNames.indexOf("vda")).isZero();
    assertThat(DiskNames.indexOf("vdz")).isEqualTo(25);
    assertThat(DiskNames.indexOf("vdaa")).isEqualTo(26);
    assertThat(DiskNames.indexOf("vdzz")).isEqualTo(701);
    assertThat(DiskNames.indexOf("vd1")).isEqualTo(-1);
    assertThat(DiskNames.alias("hdc", "ide")).isEqualTo("ide0-1-0");
    assertThat(DiskNames.alias("vdb", "virtio")).isEqualTo("virtio-disk1");
    assertThat(DiskNames.busOf("sdb", "disk")).isEqualTo("scsi");
  }
}
