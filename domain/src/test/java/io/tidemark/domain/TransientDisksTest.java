// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class TransientDisksTest {
  private static final String OVERLAY = "/img/b.qcow2.TRANSIENT-vm";

  private final Daemon daemon = new Daemon(Daemon.usualMachine());

  private static String xml() {
    return Daemon.xml(
        "<disk type='file'><driver type='qcow2'/><source file='/img/b.qcow2'/><target dev='vda'/>"
            + "<transient/></disk>");
  }

  @Test
  void guestWritesToAnOverlayThatGoesWithTheDomain() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(xml(), 0);
    domain.create(0, Daemon.CLIENT);
    assertThat(daemon.running().writesTo("vda")).isEqualTo(OVERLAY);
    assertThat(daemon.machine.opened(OVERLAY).backing())
        .hasValueSatisfying(backing -> assertThat(backing.name()).isEqualTo("/img/b.qcow2"));
    assertThat(domain.xmlDesc(0))
        .contains("<source file='" + OVERLAY + "' index='2'/>")
        .contains("<backingStore type='file' index='1'>");
    assertThat(domain.xmlDesc(Flags.XML_INACTIVE)).doesNotContain("TRANSIENT-");
    assertRefused(
        () -> domain.blockCommit("vda", null, null, 0, Flags.COMMIT_ACTIVE),
        84,
        10,
        "Operation not supported: block jobs are not supported on transient disk 'vda'");
    domain.destroy(0);
    assertThat(daemon.machine.has(OVERLAY)).isFalse();
    domain.create(0, Daemon.CLIENT); // as before
  }

  @Test
  void overlayThatIsThereIsNotOverwritten() throws LibvirtException {
    daemon.machine.image(OVERLAY, "qcow2", 8 << 20);
    assertRefused(
        () -> daemon.domains.createXml(xml(), 0, Daemon.CLIENT),
        84,
        10,
        "Operation not supported: Overlay file '"
            + OVERLAY
            + "' for transient disk 'vda' already exists");
    assertThat(daemon.machine.has(OVERLAY)).isTrue();
  }

  @Test
  void restartTakesTheOverlayUpAgain() throws LibvirtException {
    Domain domain = daemon.domains.createXml(xml(), 0, Daemon.CLIENT);
    assertThat(domain.isActive()).isTrue();
    daemon.view.kill();
    Daemon after = new Daemon(daemon.machine);
    after.domains.restore();
    assertThat(after.running().writesTo("vda")).isEqualTo(OVERLAY);
    after.domains.lookupByName("vm").destroy(0);
    assertThat(after.machine.has(OVERLAY)).isFalse();
  }

  @Test
  void startThatFailsLeavesNoOverlay() throws LibvirtException {
    Machine machine = Daemon.usualMachine();
    Daemon other = new Daemon(machine);
    other.view.failWrites(true);
    assertRefused(
        () -> other.domains.createXml(xml(), 0, Daemon.CLIENT),
        1,
        10,
        "internal error: unable to save state of domain 'vm': no space left");
    assertThat(machine.has(OVERLAY)).isFalse();
  }
}
