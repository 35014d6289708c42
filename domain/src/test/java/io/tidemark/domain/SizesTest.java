// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class SizesTest {
  private static final int LIVE = 1;
  private static final int CONFIG = 2;
  private static final int MAXIMUM = 4;
  private static final int GUEST = 8;

  private final Daemon daemon = new Daemon(Daemon.usualMachine());
  private Domain domain;
  private SizeVerbs sizes;

  @BeforeEach
  void define() throws LibvirtException {
    String xml =
        Daemon.usualXml()
            .replace(
                "<devices>", "<memory unit='MiB'>64</memory><vcpu current='2'>4</vcpu><devices>");
    domain = daemon.domains.defineXml(xml, 0);
    sizes = domain.sizes();
  }

  private String shown(int flags) throws LibvirtException {
    String xml = domain.xmlDesc(flags);
    return xml.substring(xml.indexOf("  <memory"), xml.indexOf("</vcpu>")).replaceAll("\\s+", " ");
  }

  @Test
  void processorsOfADefinitionAreChangedWithinItsMaximum() throws LibvirtException {
    assertThat(sizes.vcpus(0)).isEqualTo(2);
    assertThat(sizes.vcpus(CONFIG | MAXIMUM)).isEqualTo(4);
    sizes.setVcpus(3, 0);
    assertThat(shown(0)).endsWith("<vcpu placement='static' current='3'>4");
    sizes.setVcpus(6, CONFIG | MAXIMUM);
    assertThat(shown(0)).endsWith("<vcpu placement='static' current='3'>6");
    sizes.setVcpus(2, CONFIG | MAXIMUM);
    assertThat(shown(0)).endsWith("<vcpu placement='static'>2");
    assertThat(domain.info().vcpus()).isEqualTo(2);
  }

  @Test
  void runningDomainHasProcessorsOfItsOwn() throws LibvirtException {
    assertRefused(
        sizes::maxVcpus, 55, 20, "Requested operation is not valid: domain is not running");
    domain.create(0, Daemon.CLIENT);
    assertThat(sizes.maxVcpus()).isEqualTo(4);
    sizes.setVcpus(1, LIVE);
    assertThat(sizes.vcpus(0)).isEqualTo(1);
    assertThat(sizes.vcpus(CONFIG)).isEqualTo(2);
    assertRefused(
        () -> sizes.setVcpus(9, LIVE),
        8,
        10,
        "invalid argument: requested vcpus is greater than max allowable vcpus for the live domain:"
            + " 9 > 4");
    assertRefused(
        () -> sizes.setVcpus(1, GUEST),
        74,
        10,
        "argument unsupported: QEMU guest agent is not configured");
  }

  @Test
  void refusesProcessorsAsLibvirtDoes() {
    assertRefused(
        () -> sizes.setVcpus(5, CONFIG),
        8,
        10,
        "invalid argument: requested vcpus is greater than max allowable vcpus for the persistent"
            + " domain: 5 > 4");
    assertRefused(
        () -> sizes.setVcpus(0, CONFIG),
        8,
        20,
        "nvcpus in virDomainSetVcpusFlags must not be zero");
    assertRefused(
        () -> sizes.setVcpus(3, MAXIMUM),
        8,
        20,
        "Flag 'VIR_DOMAIN_AFFECT_CONFIG' is required by flag 'VIR_DOMAIN_VCPU_MAXIMUM'");
    assertRefused(
        () -> sizes.vcpus(GUEST),
        8,
        10,
        "invalid argument: vCPU count provided by the guest agent can only be requested for live"
            + " domains");
    assertRefused(
        () -> sizes.vcpus(LIVE | CONFIG),
        8,
        20,
        "Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive");
    assertRefused(
        () -> sizes.vcpus(32),
        8,
        10,
        "unsupported flags (0x20) in function qemuDomainGetVcpusFlags");
  }

  @Test
  void memoryOfADefinitionIsChanged() throws LibvirtException {
    sizes.setMemory(4096, 0);
    assertThat(shown(0))
        .contains("<memory unit='KiB'>65536</memory> <currentMemory unit='KiB'>4096<");
    sizes.setMemory(200_000, MAXIMUM);
    assertThat(domain.info().maxMemoryKib()).isEqualTo(200_000);
    assertThat(domain.info().memoryKib()).isEqualTo(4096);
    sizes.setMemory(2048, MAXIMUM | CONFIG);
    assertThat(domain.info().memoryKib()).isEqualTo(2048);
    assertRefused(
        () -> sizes.setMemory(4096, CONFIG),
        8,
        10,
        "invalid argument: cannot set memory higher than max memory");
    assertRefused(
        () -> sizes.setMemory(0, CONFIG),
        8,
        20,
        "memory in virDomainSetMemoryFlags must not be zero");
    assertRefused(() -> sizes.setMemory(-1, MAXIMUM), 82, 20);
    domain.create(0, Daemon.CLIENT);
    assertRefused(
        () -> sizes.setMemory(4096, MAXIMUM),
        55,
        10,
        "Requested operation is not valid: cannot resize the maximum memory on an active domain");
    sizes.setMemory(1024, LIVE);
    assertThat(domain.info().memoryKib()).isEqualTo(1024);
    assertThat(shown(Flags.XML_INACTIVE)).contains("<currentMemory unit='KiB'>2048<");
  }

  @Test
  void capabilitiesSpeakOfDisks() throws LibvirtException {
    Optional<String> any = Optional.empty();
    assertThat(daemon.domains.domainCapabilities(any, any, any, Optional.of("tidemark"), 0))
        .contains("<domain>tidemark</domain>", "<value>cdrom</value>", "<backup supported='yes'/>");
    assertRefused(
        () -> daemon.domains.domainCapabilities(any, any, any, Optional.of("foo"), 0),
        8,
        10,
        "invalid argument: unknown virttype: foo");
    assertRefused(
        () -> daemon.domains.domainCapabilities(any, Optional.of("foo"), any, any, 0),
        8,
        10,
        "invalid argument: unknown architecture: foo");
    assertThat(daemon.domains.maxVcpus(any)).isPositive();
    assertRefused(
        () -> daemon.domains.maxVcpus(Optional.of("foo")),
        8,
        10,
        "invalid argument: unknown type 'foo'");
  }
}
