// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.awaitility.Awaitility;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.opentest4j.TestAbortedException;

/// A file system that is full, under the guest's disk, a copy, a backup and the state folder. It is
/// a tmpfs of 8 MiB; who may not mount one skips this, aloud.
@Tag("interop")
class FullDiskIT {
  private static final String DOMAIN = "full";
  private static final int MIB = 1 << 20;

  @TempDir Path folder;
  private Path small; // the mount
  private boolean mounted;
  private TidemarkProcess daemon;
  private Virsh virsh;
  private @Nullable ProvingGuest ending; // the guest, where a test has one

  @BeforeEach
  void mount() throws IOException {
    Tool.require("virsh");
    Tool.require("qemu-img");
    small = Files.createDirectory(folder.resolve("small"));
    Tool.Result mount =
        Tool.require("mount").run("-t", "tmpfs", "-o", "size=8m,mode=700", "tidemark-test", small);
    if (mount.exit() != 0) {
      String reason = "a file system to fill takes root: " + mount.text().strip();
      System.err.println("SKIPPED: " + reason);
      throw new TestAbortedException(reason);
    }
    mounted = true;
    daemon = TidemarkProcess.daemon(folder.resolve("tidemark"));
    virsh = new Virsh(daemon);
  }

  @AfterEach
  void unmount() throws IOException {
    try {
      if (ending != null) {
        ending.close();
      }
      if (daemon != null) {
        daemon.close();
      }
    } finally {
      if (mounted && Tool.require("umount").run(small).exit() != 0) {
        Tool.require("umount").ok("-l", small);
      }
    }
  }

  private void run(Path disk) throws IOException {
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", disk, "32M");
    virsh.ok("define", OneDisk.domain(folder, DOMAIN, disk));
    virsh.ok("start", DOMAIN);
  }

  /// A guest that goes on writing its disk, which has more than the small file system takes.
  private ProvingGuest runWithGuest(Path disk) throws IOException {
    run(disk);
    var guest =
        new ProvingGuest(daemon.guestSocket(DOMAIN), "vda", folder.resolve("proof"), 20261122);
    ending = guest;
    Awaitility.await()
        .atMost(Duration.ofSeconds(60))
        .until(() -> {
          guest.assertUnharmed();
          return Files.size(disk) > 16 * MIB;
        });
    return guest;
  }

  @Test
  void guestIsToldThatItsDiskIsFullAndGoesOn() throws IOException {
    Path filler = Files.write(small.resolve("filler"), new byte[4 * MIB]);
    Path disk = small.resolve("disk.qcow2");
    run(disk);
    String uri = "nbd+unix:///vda?socket=" + daemon.guestSocket(DOMAIN);
    assertThat(qemuIo("raw", uri, "write -P 1 0 2M").exit()).isZero();

    Tool.Result full = qemuIo("raw", uri, "write -P 2 4M 8M");
    assertThat(full.exit()).isEqualTo(1);
    assertThat(full.text()).contains("No space left on device");
    Tool.Result others =
        qemuIo("raw", uri, "read -P 1 0 2M", "write -P 3 512k 1M", "flush", "read -P 3 512k 1M");
    assertThat(others.exit()).as(others.text()).isZero();
    Tool.Result again = qemuIo("raw", uri, "write -P 2 20M 1M");
    assertThat(again.text()).contains("No space left on device");
    assertThat(virsh.ok("domstate", DOMAIN).strip()).isEqualTo("running");

    Files.delete(filler);
    Tool.Result freed = qemuIo("raw", uri, "write -P 4 24M 2M", "write -z 4M 8M", "flush");
    assertThat(freed.exit()).as(freed.text()).isZero();

    virsh.ok("destroy", DOMAIN);
    Tool.require("qemu-img").ok("check", "-q", disk);
    Tool.Result after =
        qemuIo(
            "qcow2",
            disk,
            "read -P 1 0 512k",
            "read -P 3 512k 1M",
            "read -P 1 1536k 512k",
            "read -P 0 2M 10M",
            "read -P 4 24M 2M");
    assertThat(after.exit()).as(after.text()).isZero();
  }

  @Test
  void copyThatFindsNoSpaceFailsAndTheGuestDoesNot() throws IOException {
    Path disk = folder.resolve("disk.qcow2");
    ProvingGuest guest = runWithGuest(disk);
    Tool.Result copy =
        Tool.require("virsh") // not quiet: that hides the outcome
            .run(
                "-c",
                daemon.uri(),
                "blockcopy",
                DOMAIN,
                "vda",
                small.resolve("copy.qcow2"),
                "--transient-job",
                "--wait",
                "--verbose",
                "--pivot");
    assertThat(copy.exit()).as(copy.text()).isNotZero();
    assertThat(copy.text()).contains("Copy failed");
    assertThat(virsh.ok("dumpxml", DOMAIN)).doesNotContain("<mirror");
    assertThat(virsh.ok("domblklist", DOMAIN)).contains(disk.toString());
    assertThat(virsh.ok("blockjob", DOMAIN, "vda", "--info")).doesNotContain("Copy");
    guest.awaitProgress(100);
    guest.assertDiskHoldsAllAcknowledged();

    // Nothing is left that stands in the way of the next one.
    Path roomy = folder.resolve("copy.qcow2");
    virsh.ok("blockcopy", DOMAIN, "vda", roomy, "--transient-job", "--wait", "--pivot");
    guest.awaitProgress(100);
    endAndCheck(guest, roomy);
  }

  @Test
  void backupThatFindsNoSpaceFailsAndLeavesNothing() throws IOException {
    Path disk = folder.resolve("disk.qcow2");
    ProvingGuest guest = runWithGuest(disk);
    virsh.ok("backup-begin", DOMAIN, OneDisk.backup(folder, small.resolve("backup.qcow2")));
    assertThat(awaitJob("Failed")).contains("No space left on device");
    try (Stream<Path> files = Files.list(small)) {
      assertThat(files).as("what the backup left").isEmpty();
    }
    guest.awaitProgress(100);
    guest.assertDiskHoldsAllAcknowledged();

    Path roomy = folder.resolve("backup.qcow2");
    long notBefore = guest.proof().acknowledged();
    virsh.ok("backup-begin", DOMAIN, OneDisk.backup(folder, roomy));
    awaitJob("Completed");
    Tool.require("qemu-img").ok("check", "-q", roomy);
    assertHolds(guest, roomy, notBefore);
    endAndCheck(guest, disk);
  }

  @Test
  void pivotIsRememberedThoughTheStateFolderIsFull() throws IOException {
    daemon.close();
    Path other = Files.createDirectory(folder.resolve("other"));
    Files.createSymbolicLink(other.resolve("state"), small);
    daemon = TidemarkProcess.daemon(other);
    virsh = new Virsh(daemon);
    run(folder.resolve("disk.qcow2"));
    Path filler = small.resolve("filler");
    fill(filler);

    Tool.Result define =
        virsh.run("define", OneDisk.domain(folder, "another", folder.resolve("none")));
    assertThat(define.exit()).isEqualTo(1);
    assertThat(define.err()).contains("No space left on device");
    assertThat(virsh.ok("list", "--all", "--name").strip()).isEqualTo(DOMAIN);
    Path copy = folder.resolve("copy.qcow2");
    virsh.ok("blockcopy", DOMAIN, "vda", copy, "--transient-job", "--wait", "--pivot");

    daemon.kill();
    Files.delete(filler);
    daemon.start();
    assertThat(virsh.ok("domblklist", DOMAIN)).contains(copy.toString());
    assertThat(virsh.ok("domblklist", DOMAIN, "--inactive")).contains(copy.toString());
  }

  /// Takes all the space that is left where `filler` lies.
  private static void fill(Path filler) throws IOException {
    try (var out = Files.newOutputStream(filler)) {
      byte[] page = new byte[4096];
      assertThatThrownBy(
              () -> {
                while (true) {
                  out.write(page);
                }
              })
          .hasMessageContaining("No space left");
    }
  }

  /// What virsh says of the job that ended so.
  private String awaitJob(String end) {
    return Awaitility.await()
        .atMost(Duration.ofSeconds(60))
        .until(
            () -> virsh.ok("domjobinfo", DOMAIN, "--completed", "--keep-completed", "--anystats"),
            said -> said.contains(end));
  }

  private void endAndCheck(ProvingGuest guest, Path disk) throws IOException {
    guest.assertUnharmed();
    guest.close();
    virsh.ok("destroy", DOMAIN);
    Tool.require("qemu-img").ok("check", "-q", disk);
    assertHolds(guest, disk, guest.proof().acknowledged());
  }

  private void assertHolds(ProvingGuest guest, Path image, long notBefore) throws IOException {
    Path raw = folder.resolve("judged.raw");
    Tool.require("qemu-img").ok("convert", "-f", "qcow2", "-O", "raw", image, raw);
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      guest.assertHolds(copy, notBefore);
    }
  }

  private static Tool.Result qemuIo(String format, Object image, String... commands) {
    var words = new ArrayList<Object>(List.of("-f", format));
    for (String command : commands) {
      words.add("-c");
      words.add(command);
    }
    words.add(image);
    return Tool.require("qemu-io").run(words.toArray());
  }
}
