// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The distribution's virsh, unmodified, through the commands that a person types.
@Tag("interop")
class VirshIT {
  private static final String UUID = "11111111-2222-3333-4444-555555555555";

  @TempDir Path folder;
  private TidemarkProcess daemon;
  private Virsh virsh;
  private Path disk;

  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    Tool.require("qemu-img");
    disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", disk, "16M");
    daemon = TidemarkProcess.daemon(folder);
    virsh = new Virsh(daemon);
  }

  @AfterEach
  void stop() throws IOException {
    daemon.close();
  }

  private Path domainXml() throws IOException {
    return Files.writeString(
        folder.resolve("vm.xml"),
        """
        <domain type='tidemark'>
          <name>vm</name>
          <uuid>%s</uuid>
          <memory unit='MiB'>16</memory>
          <os><type>hvm</type></os>
          <devices>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2'/>
              <source file='%s'/>
              <target dev='vda' bus='virtio'/>
            </disk>
          </devices>
        </domain>
        """
            .formatted(UUID, disk));
  }

  private void running() throws IOException {
    virsh.ok("define", domainXml());
    virsh.ok("start", "vm");
  }

  @Test
  void tellsAboutConnectionAndHost() throws IOException {
    assertThat(virsh.ok("version")).contains("Running hypervisor: Tidemark");
    assertThat(virsh.ok("uri").strip()).isEqualTo(daemon.uri());
    assertThat(virsh.ok("hostname").strip())
        .isEqualTo(Files.readString(Path.of("/proc/sys/kernel/hostname")).strip());
    assertThat(virsh.ok("nodeinfo")).contains("CPU(s):").contains("Memory size:");
    assertThat(virsh.ok("capabilities")).contains("<domain type='tidemark'/>");
  }

  @Test
  void takesADomainThroughItsLife() throws IOException {
    virsh.ok("define", domainXml());
    assertThat(virsh.ok("list", "--all", "--name").strip()).isEqualTo("vm");
    assertThat(virsh.ok("domstate", "vm").strip()).isEqualTo("shut off");
    virsh.ok("start", "vm");
    assertThat(virsh.ok("domstate", "vm", "--reason").strip()).isEqualTo("running (booted)");
    assertThat(virsh.ok("domuuid", "vm").strip()).isEqualTo(UUID);
    String id = virsh.ok("domid", "vm").strip();
    assertThat(virsh.ok("domname", id).strip()).isEqualTo("vm");
    virsh.ok("suspend", "vm");
    assertThat(virsh.ok("domstate", "vm", "--reason").strip()).isEqualTo("paused (user)");
    virsh.ok("resume", "vm");
    virsh.ok("autostart", "vm");
    assertThat(virsh.ok("dominfo", "vm"))
        .contains("OS Type:        hvm")
        .contains("Persistent:     yes")
        .contains("Autostart:      enable");
    virsh.ok("destroy", "vm");
    virsh.ok("undefine", "vm");
    assertThat(virsh.ok("list", "--all", "--name")).isBlank();
    virsh.ok("create", domainXml());
    assertThat(virsh.ok("dominfo", "vm")).contains("Persistent:     no");
    virsh.ok("destroy", "vm");
    assertThat(virsh.ok("list", "--all", "--name")).isBlank();
  }

  @Test
  void tellsAboutDisks() throws IOException {
    running();
    assertThat(virsh.ok("dumpxml", "vm"))
        .contains("<domain type='tidemark' id=")
        .contains("index=");
    assertThat(virsh.ok("dumpxml", "vm", "--inactive")).doesNotContain("index=");
    assertThat(virsh.ok("domblklist", "vm", "--details"))
        .containsPattern("file +disk +vda +" + disk);
    assertThat(virsh.ok("domblkinfo", "vm", "vda")).contains("Capacity:       16777216");
    assertThat(virsh.ok("domblkinfo", "vm", "--all")).contains("16777216");
    assertThat(virsh.ok("domblkstat", "vm", "vda")).contains("vda rd_req").contains("vda wr_bytes");
    assertThat(virsh.ok("domblkstat", "vm")).contains("rd_req");
    assertThat(virsh.ok("domstats", "vm", "--state", "--block"))
        .contains("state.state=1")
        .contains("block.0.name=vda");
    assertThat(virsh.ok("domcontrol", "vm").strip()).isEqualTo("ok");
    assertThat(virsh.ok("domjobinfo", "vm")).contains("None");
  }

  @Test
  void copiesChecksAndBacksUp() throws IOException {
    running();
    Path copy = folder.resolve("copy.qcow2");
    virsh.ok("blockcopy", "vm", "vda", copy, "--transient-job", "--wait", "--verbose", "--pivot");
    assertThat(virsh.ok("domblklist", "vm")).contains(copy.toString());
    Path raw = folder.resolve("copy.raw");
    virsh.ok(
        "blockcopy", "vm", "vda", raw, "--format", "raw", "--transient-job", "--wait", "--finish");
    assertThat(virsh.ok("domblklist", "vm")).contains(copy.toString());
    assertThat(raw).hasSize(16 << 20);
    virsh.ok("checkpoint-create-as", "vm", "c1");
    assertThat(virsh.ok("checkpoint-list", "vm", "--name").strip()).isEqualTo("c1");
    assertThat(virsh.ok("checkpoint-dumpxml", "vm", "c1", "--size", "--no-domain"))
        .contains("<name>c1</name>")
        .contains("size='0'");
    Path backup = folder.resolve("backup.qcow2");
    Path xml =
        Files.writeString(
            folder.resolve("backup.xml"),
            """
            <domainbackup mode='push'><disks><disk name='vda' type='file'>
              <driver type='qcow2'/><target file='%s'/></disk></disks></domainbackup>
            """
                .formatted(backup));
    virsh.ok("backup-begin", "vm", xml);
    Patience.await()
        .atMost(Duration.ofSeconds(30))
        .untilAsserted(() ->
            assertThat(virsh.ok("domjobinfo", "vm", "--completed", "--keep-completed"))
                .contains("Completed"));
    Tool.require("qemu-img").ok("check", "-q", backup);
    Tool.require("qemu-img").ok("compare", "-q", backup, raw);
    virsh.ok("checkpoint-delete", "vm", "c1");
  }

  @Test
  void showsEventsOfEveryKindItAskedFor() throws IOException {
    Path seen = folder.resolve("events.txt");
    Process watcher =
        new ProcessBuilder("virsh", "-c", daemon.uri(), "event", "--all", "--loop")
            .redirectErrorStream(true)
            .redirectOutput(seen.toFile())
            .start();
    try {
      virsh.ok("define", domainXml());
      // Nothing tells when virsh has registered: make events until it saw one.
      Patience.await()
          .atMost(Duration.ofSeconds(30))
          .until(() -> {
            virsh.ok("define", domainXml());
            return Files.readString(seen).contains("Defined Updated");
          });
      virsh.ok("start", "vm");
      virsh.ok(
          "blockcopy",
          "vm",
          "vda",
          folder.resolve("c.qcow2"),
          "--transient-job",
          "--wait",
          "--pivot");
      virsh.ok("destroy", "vm");
      Patience.await()
          .atMost(Duration.ofSeconds(30))
          .untilAsserted(() ->
              assertThat(Files.readString(seen))
                  .contains("event 'lifecycle' for domain 'vm': Started Booted")
                  .contains("event 'block-job' for domain 'vm': Block Copy for " + disk)
                  .contains("event 'block-job-2' for domain 'vm': Block Copy for vda ready")
                  .contains("event 'block-job-2' for domain 'vm': Block Copy for vda completed")
                  .contains("event 'lifecycle' for domain 'vm': Stopped Destroyed"));
    } finally {
      Tool.end(watcher);
    }
  }

  @Test
  void onlyLooksThroughTheReadOnlySocket() throws IOException {
    running();
    Virsh looking = new Virsh(daemon.readOnlyUri(), false);
    assertThat(looking.ok("list", "--name").strip()).isEqualTo("vm");
    assertThat(looking.ok("dumpxml", "vm")).contains("<name>vm</name>");
    Tool.Result refused = looking.run("destroy", "vm");
    assertThat(refused.exit()).isEqualTo(1);
    assertThat(refused.err()).contains("read only access prevents virDomainDestroy");
    assertThat(Virsh.readOnly(daemon).run("suspend", "vm").err())
        .contains("read only access prevents virDomainSuspend");
  }

  @Test
  void listsOfWhatThereIsNoneOfAreEmpty() {
    for (String list :
        new String[] {
          "pool-list",
          "net-list",
          "iface-list",
          "secret-list",
          "nodedev-list",
          "nwfilter-list",
          "nwfilter-binding-list"
        }) {
      assertThat(virsh.ok(list)).as(list).isBlank();
    }
    assertThat(virsh.ok("pool-list", "--all", "--details")).isBlank();
    assertThat(virsh.run("net-info", "default").err())
        .contains("Network not found: no network with matching name 'default'");
    assertThat(virsh.run("vol-path", "/x").err())
        .contains("Storage volume not found: no storage vol with matching");
    assertThat(virsh.ok("freecell")).contains("Total:");
    assertThat(virsh.ok("nodememstats")).contains("total", "free", "buffers", "cached");
    assertThat(virsh.ok("nodecpustats")).contains("user:", "system:", "idle:", "iowait:");
    assertThat(virsh.ok("maxvcpus").strip()).matches("[0-9]+");
    assertThat(virsh.ok("domcapabilities", "--virttype", "tidemark"))
        .contains("<domain>tidemark</domain>");
  }

  @Test
  void namesAndSizesOfADefinitionAreChanged() throws IOException {
    virsh.ok("define", domainXml());
    virsh.ok("setvcpus", "vm", "3", "--config", "--maximum");
    virsh.ok("setvcpus", "vm", "2", "--config");
    assertThat(virsh.ok("vcpucount", "vm", "--config", "--maximum").strip()).isEqualTo("3");
    assertThat(virsh.ok("vcpucount", "vm", "--config", "--current").strip()).isEqualTo("2");
    virsh.ok("setmaxmem", "vm", "64M", "--config");
    virsh.ok("setmem", "vm", "32M", "--config");
    assertThat(virsh.ok("dominfo", "vm"))
        .containsPattern("Max memory: +65536 KiB")
        .containsPattern("Used memory: +32768 KiB");
    virsh.ok("domrename", "vm", "other");
    assertThat(virsh.ok("list", "--all", "--name").strip()).isEqualTo("other");
  }

  @Test
  void fallsBackWhereSomethingIsNotServed() throws IOException {
    running();
    assertThat(virsh.run("node-memory-tune").err())
        .contains("not supported by the connection driver");
    assertThat(virsh.run("save", "vm", folder.resolve("x")).err())
        .contains("has no processor and no memory to save");
    assertThat(virsh.ok("snapshot-list", "vm", "--name")).isBlank();
    assertThat(virsh.run("domfsfreeze", "vm").err()).contains("QEMU guest agent is not configured");
    assertThat(virsh.run("dominfo", "nosuch").err()).contains("failed to get domain 'nosuch'");
  }

  @Test
  void domainRunsOnThroughRestartsOfTheDaemon() throws IOException {
    running();
    String id = virsh.ok("domid", "vm").strip();
    assertThat(daemon.stop()).isZero();
    daemon.start();
    assertThat(virsh.ok("domid", "vm").strip()).isEqualTo(id);
    daemon.kill();
    daemon.start();
    assertThat(virsh.ok("domid", "vm").strip()).isEqualTo(id);
    virsh.ok("destroy", "vm");
  }
}
