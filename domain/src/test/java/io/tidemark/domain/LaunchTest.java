// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Daemon.disk;
import static io.tidemark.domain.Daemon.xml;
import static java.util.Objects.requireNonNull;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.NodeSpec;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/// Numbers of images, as libvirt 9.0.0 gave them for the same definitions.
class LaunchTest {
  private static final String C0 = "/img/c0";
  private static final String C1 = "/img/c1";
  private static final String C2 = "/img/c2";
  private static final String R0 = "/img/r0";
  private static final String R1 = "/img/r1";
  private static final String R2 = "/img/r2";
  private static final String VDA = disk(C2, "qcow2", "vda");
  private static final String VDB = disk("/img/b.qcow2", "qcow2", "vdb");
  private static final String VDC = disk(R2, "qcow2", "vdc");
  private static final String EMPTY =
      "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>";

  private static String onTop(String disk, String open, String... files) {
    String end = open;
    for (String file : List.of(files).reversed()) {
      end =
          "<backingStore type='file'><format type='qcow2'/><source file='%s'/>%s</backingStore>"
              .formatted(file, end);
    }
    return disk.replace("</disk>", end + "</disk>");
  }

  static Stream<Arguments> definitions() {
    String ends = "<backingStore/>";
    return Stream.of(
        Arguments.of("5 8 9 4 3 6 7 2", VDA + VDB + VDC + disk("/img/d", "raw", "vdd") + EMPTY),
        Arguments.of("5 6 7 4 1 2 3", VDA + VDB + onTop(VDC, ends, R1, R0)),
        Arguments.of("3 4 5 2 1 6 7", onTop(VDA, ends, C1, C0) + VDB + VDC),
        Arguments.of("4 6 7 3 1 2 5", VDA + VDB + onTop(VDC, "", R1)),
        Arguments.of("3 4 6 1 2 5", onTop(VDA, "", C1) + onTop(VDC, "", R1)));
  }

  @ParameterizedTest
  @MethodSource("definitions")
  void numbersImagesThatAreNamedBeforeThoseThatAreFound(String wanted, String disks)
      throws LibvirtException {
    Machine machine = Daemon.usualMachine();
    machine.image("/img/d", "raw", 1 << 20);
    machine.image(C0, "qcow2", 8 << 20);
    machine.image(C1, "qcow2", 8 << 20, C0);
    machine.image(C2, "qcow2", 8 << 20, C1);
    machine.image(R0, "qcow2", 8 << 20);
    machine.image(R1, "qcow2", 8 << 20, R0);
    machine.image(R2, "qcow2", 8 << 20, R1);
    Domain domain = new Daemon(machine).domains.createXml(xml(disks), 0, this);
    List<String> numbers =
        Pattern.compile(" index='(\\d+)'")
            .matcher(domain.xmlDesc(0))
            .results()
            .map((MatchResult found) -> found.group(1))
            .toList();
    assertThat(String.join(" ", numbers)).isEqualTo(wanted);
  }

  @ParameterizedTest
  @CsvSource({
    "CACHED, ''",
    "CACHED, cache='writethrough' io='threads'",
    "DIRECT_QUEUED, cache='none'",
    "DIRECT_QUEUED, cache='none' io='native'",
    "DIRECT_QUEUED, cache='directsync' io='io_uring'",
    "DIRECT, cache='none' io='threads'"
  })
  void reachesEveryImageOfADiskAsItsDriverElementSays(NodeSpec.Way wanted, String words)
      throws LibvirtException {
    Daemon daemon = new Daemon(Daemon.usualMachine());
    String disk = disk("/img/a.qcow2", "qcow2", "vda").replace("<driver ", "<driver %s ");
    Domain domain = daemon.domains.createXml(xml(disk.formatted(words)), 0, this);
    NodeSpec top = daemon.running().spec.drives().getFirst().top();
    assertThat(top.way()).isEqualTo(wanted);
    assertThat(top.backing().orElseThrow().way()).isEqualTo(wanted);

    domain.blockCopy("vda", "<disk><source file='/img/copy'/></disk>", List.of(), 0);
    String copy = daemon.running().mirrors.getFirst().mirrorNode();
    assertThat(requireNonNull(daemon.running().nodes.get(copy)).way()).isEqualTo(wanted);
  }

  @Test
  void startsWithoutDisksThatNeedNotBeThere() throws LibvirtException {
    Daemon daemon = new Daemon(Daemon.usualMachine());
    String gone = Daemon.disk("/img/gone.qcow2", "qcow2", "vdc");
    String medium =
        "<disk type='file' device='cdrom'><driver type='raw'/><source file='/img/gone.iso'"
            + " startupPolicy='optional'/><target dev='sda' bus='sata'/></disk>";
    String xml =
        Daemon.xml(
            Daemon.disk("/img/b.qcow2", "qcow2", "vda"),
            gone.replace("<source ", "<source startupPolicy='optional' "),
            medium);
    Domain domain = daemon.domains.createXml(xml, 0, Daemon.CLIENT);
    assertThat(daemon.takeEvents())
        .containsExactly(
            "DISK_CHANGE /img/gone.qcow2 virtio-disk2 1",
            "DISK_CHANGE /img/gone.iso sata0-0-0 0",
            "RESUMED_UNPAUSED",
            "STARTED_BOOTED");
    assertThat(daemon.running().drives).containsOnlyKeys("vda");
    assertThat(domain.xmlDesc(0)).contains("<target dev='sda'").doesNotContain("gone");
    domain.destroy(0);
    for (String policy : new String[] {"requisite", "mandatory"}) {
      Refusals.assertRefused(
          () -> daemon.domains.createXml(xml.replace("optional", policy), 0, Daemon.CLIENT),
          38,
          18);
    }
    Refusals.assertRefused(
        () -> daemon.domains.defineXml(xml.replace("optional", "foo"), 0),
        27,
        5,
        "XML error: Invalid value for attribute 'startupPolicy' in element 'source': 'foo'.");
  }
}
