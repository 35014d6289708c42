// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Checkpoints through virsh and python3-libvirt, unmodified, over restarts and a kill of the
/// daemon; bitmaps in the image as qemu-img sees them.
@Tag("interop")
class CheckpointIT {
  private static final Path RESOURCES = Root.path().resolve("interop/src/test/resources");
  private static final String DOMAIN = "marked";

  @TempDir Path folder;
  private TidemarkProcess daemon;
  private Virsh virsh;
  private Path disk;

  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    disk = folder.resolve("vda.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", disk, "16M");
    daemon = TidemarkProcess.daemon(folder.resolve("tidemark"));
    virsh = new Virsh(daemon);
  }

  @AfterEach
  void stop() throws IOException {
    daemon.close();
  }

  /// `checkpoints.txt` is what libvirtd 9.0.0 gives with type `qemu`.
  @Test
  void pythonSeesEveryFlagAnsweredAsLibvirtAnswersIt() throws IOException {
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", folder.resolve("vdb.qcow2"), "8M");
    String said =
        Tool.at(Path.of("/usr/bin/python3"))
            .timeout(Duration.ofMinutes(3))
            .ok(
                RESOURCES.resolve("checkpoints.py"),
                daemon.uri(),
                daemon.readOnlyUri(),
                "tidemark",
                folder)
            .out();
    assertThat(said).isEqualTo(Files.readString(RESOURCES.resolve("checkpoints.txt")));
  }

  private void running() throws IOException {
    virsh.ok("define", OneDomain.document(folder, DOMAIN, OneDomain.disk("vda", disk, "")));
    virsh.ok("start", DOMAIN);
  }

  private void write(String offset, String length) {
    Tool.require("qemu-io")
        .ok(
            "-f",
            "raw",
            "-c",
            "write -P 5 " + offset + " " + length,
            "nbd+unix:///vda?socket=" + daemon.guestSocket(DOMAIN));
  }

  private String sizeOf(String checkpoint) {
    String xml =
        virsh.ok("checkpoint-dumpxml", DOMAIN, checkpoint, "--size", "--no-domain").strip();
    return xml.contains(" size='") ? xml.replaceAll("(?s).* size='(\\d+)'.*", "$1") : "";
  }

  private String lines(Object... words) {
    return virsh.ok(words).strip().replaceAll("\\s*\n\\s*", " ");
  }

  private void threeCheckpoints() throws IOException {
    running();
    virsh.ok("checkpoint-create-as", DOMAIN, "one", "the first", "--diskspec", "vda");
    write("0", "64k");
    virsh.ok("checkpoint-create-as", DOMAIN, "two");
    write("1M", "65537");
    virsh.ok("checkpoint-create-as", DOMAIN, "three");
  }

  @Test
  void virshMakesShowsAndDeletesThem() throws IOException {
    threeCheckpoints();
    assertThat(lines("checkpoint-list", DOMAIN, "--tree")).isEqualTo("one | +- two | +- three");
    assertThat(lines("checkpoint-list", DOMAIN, "--name", "--roots")).isEqualTo("one");
    assertThat(lines("checkpoint-list", DOMAIN, "--name", "--leaves")).isEqualTo("three");
    assertThat(lines("checkpoint-list", DOMAIN, "--name", "--no-leaves", "--topological"))
        .isEqualTo("one two");
    assertThat(lines("checkpoint-list", DOMAIN, "--name", "--from", "one")).isEqualTo("two");
    assertThat(lines("checkpoint-list", DOMAIN, "--name", "--from", "one", "--descendants"))
        .isEqualTo("three two");
    assertThat(virsh.ok("checkpoint-info", DOMAIN, "one"))
        .containsPattern("Children: +1")
        .containsPattern("Descendants: +2");
    assertThat(virsh.ok("checkpoint-parent", DOMAIN, "three").strip()).isEqualTo("two");
    assertThat(virsh.ok("checkpoint-dumpxml", DOMAIN, "one"))
        .contains("<description>the first</description>", "<domain type='tidemark'>");
    assertThat(sizeOf("one")).as("two writes, in clusters of 64 KiB").isEqualTo("196608");
    assertThat(sizeOf("two")).isEqualTo("131072");
    assertThat(sizeOf("three")).isEqualTo("0");

    Path kept =
        Files.writeString(
            folder.resolve("kept.xml"), virsh.ok("checkpoint-dumpxml", DOMAIN, "three"));
    virsh.ok("checkpoint-delete", DOMAIN, "three", "--metadata");
    virsh.ok("checkpoint-create", DOMAIN, kept, "--redefine", "--redefine-validate");
    assertThat(lines("checkpoint-list", DOMAIN, "--tree")).isEqualTo("one | +- two | +- three");
    virsh.ok("checkpoint-delete", DOMAIN, "two", "--children-only");
    virsh.ok("checkpoint-delete", DOMAIN, "one");
    assertThat(lines("checkpoint-list", DOMAIN, "--tree")).isEqualTo("two");
    assertThat(sizeOf("two")).isEqualTo("131072");
    virsh.ok("destroy", DOMAIN);
    assertThat(bitmaps())
        .contains("name: two", "granularity: 65536")
        .doesNotContain("in-use", "one", "three");
    Tool.require("qemu-img").ok("check", "-q", disk);
    assertThat(virsh.run("undefine", DOMAIN).err()).contains("with 1 checkpoints");
    virsh.ok("undefine", DOMAIN, "--checkpoints-metadata");
    assertThat(bitmaps()).as("bitmaps stay").contains("name: two");
  }

  private String bitmaps() {
    String info = Tool.require("qemu-img").ok("info", "-U", disk).out();
    return info.contains("bitmaps:") ? info.substring(info.indexOf("bitmaps:")) : "";
  }

  @Test
  void restartsOfTheDaemonKeepThem() throws IOException {
    threeCheckpoints();
    assertThat(daemon.stop()).isZero();
    daemon.start();
    assertThat(virsh.ok("domstate", DOMAIN).strip()).isEqualTo("running");
    assertThat(lines("checkpoint-list", DOMAIN, "--tree")).isEqualTo("one | +- two | +- three");
    assertThat(sizeOf("one")).isEqualTo("196608");
    write("8M", "64k");
    assertThat(sizeOf("one")).isEqualTo("262144");
    assertThat(sizeOf("three")).isEqualTo("65536");
    virsh.ok("checkpoint-create-as", DOMAIN, "four");
    assertThat(virsh.ok("checkpoint-parent", DOMAIN, "four").strip()).isEqualTo("three");

    virsh.ok("destroy", DOMAIN);
    assertThat(daemon.stop()).isZero();
    daemon.start();
    virsh.ok("start", DOMAIN);
    assertThat(sizeOf("one")).isEqualTo("262144");
    assertThat(sizeOf("four")).isEqualTo("0");
  }

  /// What was written meanwhile is not known to be recorded, so nothing is claimed.
  @Test
  void killedDaemonRefusesAnIncrement() throws IOException {
    threeCheckpoints();
    write("8M", "64k");
    daemon.kill();
    daemon.start();
    assertThat(lines("checkpoint-list", DOMAIN, "--tree")).isEqualTo("one | +- two | +- three");
    assertThat(sizeOf("one")).as("no size of a bitmap that cannot be trusted").isEmpty();
    Path target = folder.resolve("backup.qcow2");
    Tool.Result increment =
        new DomainBackups(virsh, DOMAIN, folder)
            .ask(DomainBackups.Request.push(Map.of("vda", target)).since("two"));
    assertThat(increment.err())
        .contains("checkpoint inconsistent: missing or broken bitmap 'two' for disk 'vda'");
    assertThat(target).doesNotExist();
    Path kept =
        Files.writeString(
            folder.resolve("kept.xml"), virsh.ok("checkpoint-dumpxml", DOMAIN, "two"));
    assertThat(
            virsh.run("checkpoint-create", DOMAIN, kept, "--redefine", "--redefine-validate").err())
        .contains("checkpoint inconsistent: missing or broken bitmap 'two' for disk 'vda'");
    virsh.ok("checkpoint-delete", DOMAIN, "one", "--children");
    assertThat(virsh.ok("checkpoint-list", DOMAIN, "--name")).isBlank();
    virsh.ok("checkpoint-create-as", DOMAIN, "two");
    assertThat(sizeOf("two")).isEqualTo("0");
    virsh.ok("destroy", DOMAIN);
    assertThat(bitmaps()).contains("name: two").doesNotContain("in-use");
  }
}
