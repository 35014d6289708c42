// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Snapshots and plugged disks through virsh, judged by qemu-img.
@Tag("interop")
class SnapshotIT {
  @TempDir Path folder;
  private TidemarkProcess daemon;
  private Virsh virsh;

  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    Tool qemuImg = Tool.require("qemu-img");
    for (String name : new String[] {"a.qcow2", "b.qcow2", "c.qcow2"}) {
      qemuImg.ok("create", "-q", "-f", "qcow2", folder.resolve(name), "16M");
    }
    daemon = TidemarkProcess.daemon(folder);
    virsh = new Virsh(daemon);
    Path xml =
        Files.writeString(
            folder.resolve("vm.xml"),
            "<domain type='tidemark'><name>vm</name><devices>"
                + disk("a.qcow2", "vda")
                + disk("b.qcow2", "vdb")
                + "</devices></domain>");
    virsh.ok("define", xml);
    virsh.ok("start", "vm");
  }

  @AfterEach
  void stop() throws IOException {
    daemon.close();
  }

  private String disk(String file, String target) {
    return ("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            + "<source file='%s'/><target dev='%s' bus='virtio'/></disk>")
        .formatted(folder.resolve(file), target);
  }

  @Test
  void overlaysOfTwoDisksPassACheckAndGoWhenTheSnapshotIsDeleted() throws IOException {
    virsh.ok("snapshot-create-as", "vm", "s1", "--disk-only", "--atomic");
    virsh.ok("snapshot-create-as", "vm", "s2", "--disk-only");
    assertThat(virsh.ok("snapshot-list", "vm", "--tree")).contains("s1", "+- s2");
    assertThat(virsh.ok("domblklist", "vm")).contains("/a.s2", "/b.s2");
    assertThat(Tool.require("qemu-img").ok("info", "-U", folder.resolve("a.s2")).out())
        .contains("backing file: " + folder.resolve("a.s1"), "backing file format: qcow2");
    virsh.ok("snapshot-delete", "vm", "s1");
    assertThat(folder.resolve("a.s1")).doesNotExist();
    virsh.ok("snapshot-delete", "vm", "s2", "--metadata");
    assertThat(virsh.ok("snapshot-list", "vm", "--name")).isBlank();
    virsh.ok("destroy", "vm");
    assertThat(Tool.require("qemu-img").ok("check", folder.resolve("a.s2")).out())
        .contains("No errors");
    virsh.ok("start", "vm");
    assertThat(virsh.ok("domblklist", "vm")).contains("/a.s2");
  }

  @Test
  void diskIsAttachedLimitedAndDetached() throws IOException {
    virsh.ok(
        "attach-disk",
        "vm",
        folder.resolve("c.qcow2"),
        "vdc",
        "--targetbus",
        "virtio",
        "--subdriver",
        "qcow2",
        "--live");
    assertThat(virsh.ok("domblklist", "vm")).contains("vdc");
    virsh.ok("blkdeviotune", "vm", "vdc", "--total-bytes-sec", "1000000", "--live");
    assertThat(virsh.ok("blkdeviotune", "vm", "vdc")).contains("total_bytes_sec: 1000000");
    virsh.ok("detach-disk", "vm", "vdc", "--live");
    assertThat(virsh.ok("domblklist", "vm")).doesNotContain("vdc");
  }
}
