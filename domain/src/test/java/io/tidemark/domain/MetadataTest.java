// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.Optional;
import org.junit.jupiter.api.Test;

/// Answers were measured at libvirt 9.0.0.
class MetadataTest {
  private static final int DESCRIPTION = 0;
  private static final int TITLE = 1;
  private static final int ELEMENT = 2;
  private static final Optional<String> NONE = Optional.empty();
  private static final Optional<String> URI = Optional.of("http://k");

  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String get(Domain domain, int type, int flags) throws LibvirtException {
    return domain.metadata().metadata(type, type == ELEMENT ? URI : NONE, flags);
  }

  private static void absent(Domain domain, int type, int flags) {
    assertRefused(
        () -> get(domain, type, flags),
        80,
        20,
        "metadata not found: Requested metadata element is not present");
  }

  @Test
  void runningDomainAndDefinitionHaveTheirOwn() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    absent(domain, DESCRIPTION, 0);
    domain.metadata().set(DESCRIPTION, Optional.of("now"), NONE, NONE, 0);
    domain.metadata().set(DESCRIPTION, Optional.of("later"), NONE, NONE, Impact.CONFIG);
    domain.metadata().set(TITLE, Optional.of("both"), NONE, NONE, Impact.LIVE | Impact.CONFIG);
    assertThat(daemon.takeEvents()).containsExactly("METADATA 0 -", "METADATA 0 -", "METADATA 1 -");
    assertThat(get(domain, DESCRIPTION, 0)).isEqualTo("now");
    assertThat(get(domain, DESCRIPTION, Impact.CONFIG)).isEqualTo("later");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE))
        .contains("</uuid>\n  <title>both</title>\n  <description>later</description>\n  <vcpu");
    Daemon next = new Daemon(machine);
    next.domains.restore();
    Domain again = next.domains.lookupByName(domain.name());
    assertThat(get(again, DESCRIPTION, 0)).isEqualTo("now");
    again.destroy(0);
    assertThat(get(again, DESCRIPTION, 0)).isEqualTo("later");
    again.metadata().set(TITLE, NONE, NONE, NONE, 0);
    absent(again, TITLE, 0);
  }

  @Test
  void elementsAreKeptUnderTheirPrefix() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain
        .metadata()
        .set(ELEMENT, Optional.of("<n y='2'><m/>\n<o>z</o></n>"), Optional.of("key"), URI, 0);
    assertThat(domain.xmlDesc(0))
        .contains("<key:n xmlns:key='http://k' y='2'>\n      <key:m/>\n      <key:o>z</key:o>");
    assertThat(get(domain, ELEMENT, 0)).isEqualTo("<n y='2'>\n  <m/>\n  <o>z</o>\n</n>\n");
    domain.metadata().set(ELEMENT, Optional.of("<p/>"), Optional.of("other"), URI, 0);
    assertThat(domain.xmlDesc(0))
        .contains("<other:p xmlns:other='http://k'/>")
        .doesNotContain("<key:");
    domain.metadata().set(ELEMENT, NONE, NONE, URI, 0);
    assertThat(domain.xmlDesc(0)).doesNotContain("metadata");
    absent(domain, ELEMENT, 0);
    assertThat(daemon.takeEvents()).hasSize(3).containsOnly("METADATA 2 http://k");
  }

  @Test
  void refusesInLibvirtsWords() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertRefused(
        () -> domain.metadata().set(TITLE, Optional.of("a\nb"), NONE, NONE, 0),
        8,
        20,
        "metadata title can't contain newlines");
    assertRefused(() -> get(domain, 9, 0), 8, 20, "invalid argument: unknown metadata type '9'");
    assertRefused(
        () -> get(domain, TITLE, 8),
        8,
        20,
        "unsupported flags (0x8) in function virDomainObjGetMetadata");
    assertRefused(
        () -> get(domain, TITLE, 3),
        8,
        20,
        "Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive");
    assertRefused(
        () -> domain.metadata().set(ELEMENT, Optional.of("xx"), Optional.of("k"), URI, 0), 35, 20);
    assertRefused(
        () -> domain.metadata().set(ELEMENT, Optional.of("<x/>"), Optional.of("a b"), URI, 0),
        8,
        20);
    assertRefused(() -> domain.metadata().set(ELEMENT, Optional.of("<x/>"), NONE, URI, 0), 8, 20);
    assertThat(daemon.takeEvents()).isEmpty();
  }
}
