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

/// virsh's blockpull, blockcommit, blockresize and blockcopy on a chain that qemu-img made, each
/// judged by qemu-img: the headers name the new chain, every image is sound, and the disk reads
/// what it read.
@Tag("interop")
class ChainJobsIT {
  @TempDir Path folder;
  private OneDomain domain;
  private Virsh virsh;
  private Path base;
  private Path mid;
  private Path top;
  private Path expected;

  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    Tool.require("qemu-io");
    base = folder.resolve("base.qcow2");
    mid = folder.resolve("mid.qcow2");
    top = folder.resolve("top.qcow2");
    expected = folder.resolve("expected.raw");
    qemuImg("create", "-q", "-f", "qcow2", base, "8M");
    write(base, "write -P 0x11 0 4M");
    overlay(mid, base, "5M");
    // What lies beyond the shorter layer reads as zeroes, whatever the base holds there.
    write(mid, "write -P 0x22 1M 1M");
    overlay(top, mid, "8M");
    write(top, "write -P 0x33 64k 64k");
    write(top, "write -z 2M 512k");
    qemuImg("convert", "-O", "raw", top, expected);
    domain = OneDomain.in(folder, "vm").disk("vda", top).transientOne().start();
    virsh = domain.virsh();
  }

  @AfterEach
  void stop() throws IOException {
    domain.close();
  }

  private static void qemuImg(Object... words) {
    Tool.require("qemu-img").ok(words);
  }

  private static void write(Path image, String command) {
    Tool.require("qemu-io").ok("-f", "qcow2", "-c", command, image);
  }

  private static void overlay(Path image, Path backing, String size) {
    qemuImg("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing.getFileName(), image, size);
  }

  /// Ends the domain; the image is sound, names that backing file, and reads as the disk did.
  private void endAndJudge(Path active, String backing) {
    virsh.ok("destroy", "vm");
    qemuImg("check", "-q", active);
    String info = Tool.require("qemu-img").ok("info", "--output=json", active).out();
    if (backing.isEmpty()) {
      assertThat(info).doesNotContain("backing-filename");
    } else {
      assertThat(info).contains("\"backing-filename\": \"" + backing + "\"");
    }
    qemuImg("compare", "-q", "-F", "raw", active, expected);
  }

  @Test
  void blockpullTakesTheWholeChainUp() {
    virsh.ok("blockpull", "vm", "vda", "--wait");
    assertThat(virsh.ok("dumpxml", "vm")).doesNotContain("mid.qcow2");
    endAndJudge(top, "");
  }

  @Test
  void blockpullStopsAtABaseThatIsLongerThanWhatIsTakenOut() {
    virsh.ok("blockpull", "vm", "vda", "--base", "vda[3]", "--wait");
    endAndJudge(top, base.toString());
  }

  @Test
  void blockpullToWhatLiesDirectlyBeneathNamesItByItsAbsolutePath() {
    virsh.ok("blockpull", "vm", "vda", "--base", mid, "--wait");
    endAndJudge(top, mid.toString());
  }

  @Test
  void blockpullKeepsARelativeName() {
    virsh.ok("blockpull", "vm", "vda", "--base", base, "--keep-relative", "--wait");
    endAndJudge(top, "base.qcow2");
  }

  @Test
  void blockcommitOfTheActiveLayerPivots() {
    virsh.ok("blockcommit", "vm", "vda", "--active", "--pivot", "--wait");
    assertThat(virsh.ok("domblklist", "vm")).contains(base.toString());
    endAndJudge(base, "");
  }

  @Test
  void blockcommitOfAnIntermediateLayerDeletesIt() {
    virsh.ok("blockcommit", "vm", "vda", "--top", mid, "--base", base, "--delete", "--wait");
    assertThat(mid).doesNotExist();
    qemuImg("check", "-q", "-U", base);
    endAndJudge(top, base.toString());
  }

  @Test
  void abortedCommitLeavesTheChain() {
    virsh.ok("blockcommit", "vm", "vda", "--active", "--bandwidth", "1");
    virsh.ok("blockjob", "vm", "vda", "--abort");
    assertThat(virsh.ok("blockjob", "vm", "vda", "--info").strip()).isEmpty();
    endAndJudge(top, "mid.qcow2");
  }

  @Test
  void blockresizeIsSeenByWhoConnectsNext() {
    virsh.ok("blockresize", "vm", "vda", "16M");
    assertThat(virsh.ok("domblkinfo", "vm", "vda")).containsPattern("Capacity:\\s+" + (16 << 20));
    String uri = domain.uri("vda");
    assertThat(Tool.require("qemu-img").ok("info", "-f", "raw", uri).out())
        .contains("16 MiB (16777216 bytes)");
    virsh.ok("destroy", "vm");
    qemuImg("check", "-q", top);
  }

  /// The migration of a chain that libvirt's REUSE_EXT was made for: the backing files are copied
  /// to another folder, an overlay that names them relatively is made there beforehand, and the
  /// active layer follows live.
  @Test
  void chainMovesToAnotherFolderByARelativeOverlay() throws IOException {
    Path there = Files.createDirectory(folder.resolve("there"));
    Files.copy(base, there.resolve("base.qcow2"));
    Files.copy(mid, there.resolve("mid.qcow2"));
    Path copy = there.resolve("top.qcow2");
    overlay(copy, there.resolve("mid.qcow2"), "8M");
    virsh.ok(
        "blockcopy",
        "vm",
        "vda",
        copy,
        "--shallow",
        "--reuse-external",
        "--transient-job",
        "--wait",
        "--pivot");
    assertThat(virsh.ok("dumpxml", "vm"))
        .contains(there.resolve("mid.qcow2").toString())
        .contains(there.resolve("base.qcow2").toString())
        .doesNotContain("'" + mid + "'");
    for (Path old : new Path[] {top, mid, base}) {
      Files.delete(old);
    }
    endAndJudge(copy, "mid.qcow2");
    qemuImg("check", "-q", there.resolve("mid.qcow2"));
  }

  @Test
  void blockcopyToAnNbdExport() throws IOException {
    Path image = folder.resolve("export.raw");
    Path socket = folder.resolve("nbd.sock");
    qemuImg("create", "-q", "-f", "raw", image, "8M");
    Process server =
        Tool.require("qemu-nbd").start("-k", socket, "-x", "ex", "-f", "raw", "-t", image);
    try {
      Tool nbdinfo = Tool.require("nbdinfo");
      String uri = "nbd+unix:///ex?socket=" + socket;
      Patience.await().until(() -> nbdinfo.run("--size", uri).exit() == 0);
      Path xml =
          Files.writeString(
              folder.resolve("dest.xml"),
              "<disk type='network'><driver type='raw'/><source protocol='nbd' name='ex'>"
                  + "<host transport='unix' socket='"
                  + socket
                  + "'/></source></disk>");
      virsh.ok(
          "blockcopy",
          "vm",
          "vda",
          "--xml",
          xml,
          "--transient-job",
          "--reuse-external",
          "--wait",
          "--pivot");
      assertThat(virsh.ok("dumpxml", "vm")).contains("<disk type='network'");
      virsh.ok("destroy", "vm");
    } finally {
      Tool.end(server);
    }
    qemuImg("compare", "-q", "-U", "-f", "raw", "-F", "raw", image, expected);
  }
}
