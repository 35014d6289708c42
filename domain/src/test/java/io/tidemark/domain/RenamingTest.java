// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.StateStore;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class RenamingTest {
  private final Machine machine = Daemon.usualMachine();

  private static Domain define(Daemon daemon) throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    domain.setAutostart(true);
    domain.snapshots().create("<domainsnapshot><name>s</name></domainsnapshot>", 0);
    domain.create(0, Daemon.CLIENT);
    domain.checkpointCreateXml("<domaincheckpoint><name>c</name></domaincheckpoint>", 0);
    domain.destroy(0);
    daemon.takeEvents();
    return domain;
  }

  private static void assertRenamed(Daemon daemon, String name) throws LibvirtException {
    Domain domain = daemon.domains.lookupByUuid(Daemon.UUID_A);
    assertThat(domain.name()).isEqualTo(name);
    assertThat(daemon.domains.list(0)).extracting(Domain::name).containsExactly(name);
    assertThat(domain.autostart()).isTrue();
    assertThat(domain.checkpoints(0)).extracting(Checkpoint::name).containsExactly("c");
    assertThat(domain.snapshots().list(0)).extracting(Snapshot::name).containsExactly("s");
    assertThat(domain.xmlDesc(0)).contains("<name>" + name + "</name>");
    assertThat(domain.checkpoints(0).getFirst().xmlDesc(0)).contains("<name>" + name + "</name>");
  }

  @Test
  void keepsAllButItsName() throws LibvirtException {
    Daemon daemon = new Daemon(machine);
    Domain domain = define(daemon);
    daemon.domains.rename(domain, Optional.of("other"), 0);
    assertThat(daemon.takeEvents()).containsExactly("UNDEFINED_RENAMED", "DEFINED_RENAMED");
    assertRenamed(daemon, "other");
    assertRefused(() -> daemon.domains.lookupByName("vm"), 42, 10);
    assertRefused(domain::state, 42, 10);
    for (StateStore.Kind kind : StateStore.Kind.values()) {
      assertThat(machine.document(kind, "vm")).isEmpty();
    }
    Daemon second = new Daemon(machine);
    second.domains.restore();
    assertRenamed(second, "other");
    Domain again = second.domains.lookupByName("other");
    again.snapshots().list(0).getFirst().revert(0);
    assertThat(again.xmlDesc(0)).contains("<name>other</name>");
    second.domains.rename(again, Optional.of("vm"), 0);
    assertRenamed(second, "vm");
  }

  @Test
  void isDoneWholeOrNotAtAllWheneverTheDaemonDies() throws LibvirtException {
    boolean finished = false;
    for (int kill = 0; !finished; kill++) {
      for (boolean before : new boolean[] {true, false}) {
        Machine kept = Daemon.usualMachine();
        Daemon first = new Daemon(kept);
        Domain domain = define(first);
        first.view.killAtWrite(kill, before);
        try {
          first.domains.rename(domain, Optional.of("other"), 0);
          finished = true;
        } catch (Machine.Killed _) {
          // as wanted
        }
        Daemon second = new Daemon(kept);
        second.domains.restore();
        String name = second.domains.lookupByUuid(Daemon.UUID_A).name();
        assertThat(name).as("killed at write %d", kill).isIn("vm", "other");
        assertRenamed(second, name);
        assertThat(kept.documents.values().stream().mapToInt(all -> all.size()).sum())
            .as("documents, killed at write %d", kill)
            .isEqualTo(3);
      }
    }
  }

  @Test
  void failureBeforeTheCommitPointChangesNothing() throws LibvirtException {
    Daemon daemon = new Daemon(machine);
    Domain domain = define(daemon);
    daemon.view.failKind = StateStore.Kind.DEFINITION;
    assertRefused(() -> daemon.domains.rename(domain, Optional.of("other"), 0), 1, 10);
    daemon.view.failKind = null;
    assertRenamed(daemon, "vm");
    domain.create(0, Daemon.CLIENT);
  }

  @Test
  void refusesAsLibvirtDoes() throws LibvirtException {
    Daemon daemon = new Daemon(machine);
    Domain domain = define(daemon);
    daemon.domains.defineXml("<domain type='tidemark'><name>taken</name><devices/></domain>", 0);
    List<String> names = List.of("vm", "taken", "", "a/b");
    List<String> texts =
        List.of(
            "Requested operation is not valid: Can't rename domain to itself",
            "Requested operation is not valid: domain with name 'taken' already exists",
            "string new_name in virDomainRename must not be empty",
            "XML error: name a/b cannot contain '/'");
    int[] codes = {55, 55, 8, 27};
    int[] domains = {20, 20, 20, 10};
    for (int i = 0; i < codes.length; i++) {
      String name = names.get(i);
      assertRefused(
          () -> daemon.domains.rename(domain, Optional.of(name), 0),
          codes[i],
          domains[i],
          texts.get(i));
    }
    assertRefused(
        () -> daemon.domains.rename(domain, Optional.of("x"), 1),
        8,
        10,
        "unsupported flags (0x1) in function qemuDomainRename");
    domain.create(0, Daemon.CLIENT);
    assertRefused(
        () -> daemon.domains.rename(domain, Optional.of("x"), 0),
        55,
        10,
        "Requested operation is not valid: cannot rename active domain");
  }
}
