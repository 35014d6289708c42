// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.interop.DomainBackups.Request;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A file system that is full, under the guest's disk, a copy, a backup and the state folder. It is
/// a tmpfs of 8 MiB; who may not mount one skips this, aloud.
@Tag("interop")
class FullDiskIT {
  private static final String DOMAIN = "full";
  private static final int MIB = 1 << 20;

  @TempDir Path folder;
  private SmallFileSystem small;
  private @Nullable OneDomain running; // once a test started it

  @BeforeEach
  void mount() throws IOException {
    Tool.require("virsh");
    small = SmallFileSystem.inMemory(folder.resolve("small"), 8);
  }

  @AfterEach
  void unmount() throws IOException {
    try {
      if (running != null) {
        running.close();
      }
    } finally {
      if (small != null) {
        small.close();
      }
    }
  }

  private OneDomain start(OneDomain.Wanted wanted) throws IOException {
    running = wanted.start();
    return running;
  }

  private Path smallDisk() {
    return OneDomain.newImage(small.path(), "disk", "32M");
  }

  /// A guest that goes on writing its disk, which has more than the small file system takes.
  private OneDomain runWithGuest() throws IOException {
    OneDomain domain = start(OneDomain.in(folder, DOMAIN).newDisk("vda", "32M"));
    ProvingGuest guest = domain.beginGuest(20261122);
    Patience.await()
        .atMost(Duration.ofSeconds(60))
        .until(() -> {
          guest.assertUnharmed();
          return Files.size(folder.resolve("vda.qcow2")) > 16 * MIB;
        });
    return domain;
  }

  @Test
  void guestThatIsToBeToldIsToldAndGoesOn() throws IOException {
    Path filler = Files.write(small.resolve("filler"), new byte[4 * MIB]);
    Path disk = smallDisk();
    OneDomain domain =
        start(OneDomain.in(folder, DOMAIN).disk("vda", disk, "error_policy='report'"));
    String uri = domain.uri("vda");
    assertThat(qemuIo("raw", uri, "write -P 1 0 2M").exit()).isZero();

    Tool.Result full = qemuIo("raw", uri, "write -P 2 4M 8M");
    assertThat(full.exit()).isEqualTo(1);
    assertThat(full.text()).contains("No space left on device");
    Tool.Result others =
        qemuIo("raw", uri, "read -P 1 0 2M", "write -P 3 512k 1M", "flush", "read -P 3 512k 1M");
    assertThat(others.exit()).as(others.text()).isZero();
    Tool.Result again = qemuIo("raw", uri, "write -P 2 20M 1M");
    assertThat(again.text()).contains("No space left on device");
    assertThat(domain.virsh().ok("domstate", DOMAIN).strip()).isEqualTo("running");
    assertThat(domain.virsh().ok("domblkerror", DOMAIN)).contains("No errors");

    Files.delete(filler);
    Tool.Result freed = qemuIo("raw", uri, "write -P 4 24M 2M", "write -z 4M 8M", "flush");
    assertThat(freed.exit()).as(freed.text()).isZero();

    domain.virsh().ok("destroy", DOMAIN);
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

  private static void awaitPaused(OneDomain domain) {
    Patience.await()
        .atMost(Duration.ofSeconds(60))
        .until(() ->
            domain.virsh().ok("domstate", "--reason", DOMAIN).strip().equals("paused (I/O error)"));
  }

  @Test
  void domainWaitsForSpaceAndItsGuestNeverLearnsOfIt() throws IOException {
    Path filler = Files.write(small.resolve("filler"), new byte[4 * MIB]);
    Path disk = smallDisk();
    OneDomain domain = start(OneDomain.in(folder, DOMAIN).disk("vda", disk));
    Virsh virsh = domain.virsh();
    Process events = virsh.start("event", DOMAIN, "--all", "--loop", "--timeout", "120");
    try (var heard = events.inputReader()) {
      Patience.await().until(() -> virsh.run("domblkerror", DOMAIN).exit() == 0);
      ProvingGuest guest = domain.beginGuest(20261122);
      awaitPaused(domain);
      assertThat(virsh.ok("domblkerror", DOMAIN)).contains("vda: no space");
      long waiting = guest.proof().acknowledged();

      virsh.ok("resume", DOMAIN); // nothing was mended
      awaitPaused(domain);
      assertThat(guest.proof().acknowledged()).isLessThan(waiting + 1000);

      domain.killAndStart();
      assertThat(virsh.ok("domstate", "--reason", DOMAIN).strip()).isEqualTo("paused (I/O error)");
      Files.delete(filler);
      Path roomy = folder.resolve("roomy.qcow2");
      virsh.ok("blockcopy", DOMAIN, "vda", roomy, "--transient-job", "--wait", "--pivot");
      virsh.ok("resume", DOMAIN);
      guest.awaitProgress(1000);
      assertThat(virsh.ok("domblkerror", DOMAIN)).contains("No errors");
      endAndCheck(domain, roomy);
      String lines = String.join("\n", heard.lines().limit(4).toList());
      assertThat(lines)
          .contains("event 'io-error' for domain 'full'")
          .contains("disk.qcow2 (virtio-disk0) pause")
          .contains("pause due to enospc")
          .contains("event 'lifecycle' for domain 'full': Suspended I/O Error");
    } finally {
      Tool.end(events);
    }
  }

  @Test
  void copyThatFindsNoSpaceFailsAndTheGuestDoesNot() throws IOException {
    OneDomain domain = runWithGuest();
    Virsh virsh = domain.virsh();
    ProvingGuest guest = domain.guest();
    Path disk = domain.source("vda");
    Tool.Result copy =
        Tool.require("virsh") // not quiet: that hides the outcome
            .run(
                "-c",
                domain.daemon().uri(),
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
    endAndCheck(domain, roomy);
  }

  @Test
  void backupThatFindsNoSpaceFailsAndLeavesNothing() throws IOException {
    OneDomain domain = runWithGuest();
    Virsh virsh = domain.virsh();
    ProvingGuest guest = domain.guest();
    Path disk = domain.source("vda");
    DomainBackups backups = domain.backups();
    backups.begin(Request.push(Map.of("vda", small.resolve("backup.qcow2"))));
    assertThat(backups.awaitEnd()).contains("Failed").contains("No space left on device");
    try (Stream<Path> files = Files.list(small.path())) {
      assertThat(files).as("what the backup left").isEmpty();
    }
    guest.awaitProgress(100);
    guest.assertDiskHoldsAllAcknowledged();

    Path roomy = folder.resolve("backup.qcow2");
    long notBefore = guest.proof().acknowledged();
    backups.begin(Request.push(Map.of("vda", roomy)));
    backups.awaitCompleted();
    Tool.require("qemu-img").ok("check", "-q", roomy);
    assertHolds(guest, roomy, notBefore);
    endAndCheck(domain, disk);
  }

  @Test
  void pivotIsRememberedThoughTheStateFolderIsFull() throws IOException {
    Path place = Files.createDirectory(folder.resolve("tidemark"));
    Files.createSymbolicLink(place.resolve("state"), small.path());
    OneDomain domain = start(OneDomain.in(folder, DOMAIN).newDisk("vda", "32M"));
    Virsh virsh = domain.virsh();
    Path filler = small.fill();

    Path another =
        OneDomain.document(
            folder, "another", OneDomain.disk("vda", folder.resolve("none.qcow2"), ""));
    Tool.Result define = virsh.run("define", another);
    assertThat(define.exit()).isEqualTo(1);
    assertThat(define.err()).contains("No space left on device");
    assertThat(virsh.ok("list", "--all", "--name").strip()).isEqualTo(DOMAIN);
    Path copy = folder.resolve("copy.qcow2");
    virsh.ok("blockcopy", DOMAIN, "vda", copy, "--transient-job", "--wait", "--pivot");

    domain.daemon().kill();
    Files.delete(filler);
    domain.daemon().start();
    assertThat(virsh.ok("domblklist", DOMAIN)).contains(copy.toString());
    assertThat(virsh.ok("domblklist", DOMAIN, "--inactive")).contains(copy.toString());
  }

  private void endAndCheck(OneDomain domain, Path disk) throws IOException {
    ProvingGuest guest = domain.guest();
    guest.assertUnharmed();
    domain.end();
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
