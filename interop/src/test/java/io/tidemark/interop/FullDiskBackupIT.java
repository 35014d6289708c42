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
import java.util.Map;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A file system that is full under what a backup needs beside its target: the scratch of a push
/// and of a pull backup, the state folder. The guest meets no error, the backup is reported failed
/// with the reason, nothing is left of it, and the next one works. A full target is in
/// [FullDiskIT].
@Tag("interop")
class FullDiskBackupIT {
  private static final String DOMAIN = "full";
  private static final int MIB = 1 << 20;

  @TempDir Path folder;
  private SmallFileSystem small;
  private @Nullable SmallFileSystem slow; // where a test has one

  // Set where each test starts its daemon; null only where that failed.
  @SuppressWarnings("NullAway.Init")
  private OneDomain domain;

  @SuppressWarnings("NullAway.Init")
  private Virsh virsh;

  @SuppressWarnings("NullAway.Init")
  private DomainBackups backups;

  @BeforeEach
  void mount() throws IOException {
    Tool.require("virsh");
    Tool.require("qemu-img");
    small = SmallFileSystem.inMemory(folder.resolve("small"), 4);
  }

  @AfterEach
  void stop() throws IOException {
    try {
      if (slow != null) {
        slow.go();
      }
      if (domain != null) {
        domain.close();
      }
    } finally {
      if (slow != null) {
        slow.close();
      }
      if (small != null) {
        small.close();
      }
    }
  }

  private ProvingGuest runWithGuest(String... options) throws IOException {
    domain = OneDomain.in(folder, DOMAIN).newDisk("vda", "32M").options(options).start();
    virsh = domain.virsh();
    backups = domain.backups();
    ProvingGuest guest = domain.beginGuest(20261122);
    Patience.await()
        .atMost(Duration.ofSeconds(60))
        .until(() -> {
          guest.assertUnharmed();
          return Files.size(folder.resolve("vda.qcow2")) > 8 * MIB;
        });
    return guest;
  }

  @Test
  void scratchOfAPushBackup() throws IOException {
    var target = SmallFileSystem.stoppable(folder.resolve("slow"), 64);
    slow = target;
    Path image = target.resolve("target.raw");
    Files.write(image, new byte[32 * MIB]);
    ProvingGuest guest = runWithGuest("--scratch-dir", small.path().toString());
    Path filler = small.fill();
    target.freeze(); // so that the guest overwrites what is not copied yet
    backups.begin(Request.push(Map.of("vda", image)).reuse("raw"));
    guest.awaitProgress(100);
    target.go();
    assertThat(backups.awaitEnd())
        .contains("Failed")
        .containsPattern("backup scratch .*: No space left on device");
    assertGoesOn(guest);

    Files.delete(filler);
    assertNextBackupIsGood(guest);
  }

  @Test
  void scratchOfAPullBackup() throws IOException {
    ProvingGuest guest = runWithGuest();
    backups.begin(Request.pull(Map.of("vda", small.resolve("scratch"))).checkpoint("one"));
    assertThat(backups.awaitEnd())
        .contains("Failed")
        .containsPattern("backup scratch .*: No space left on device");
    assertThat(small.resolve("scratch")).doesNotExist();
    assertThat(backups.socket()).doesNotExist();
    assertGoesOn(guest);
    // The checkpoint was made at the instant; it has nothing to do with the scratch.
    assertThat(virsh.ok("checkpoint-list", DOMAIN, "--name")).contains("one");

    long notBefore = guest.proof().acknowledged();
    backups.begin(Request.pull(Map.of("vda", folder.resolve("scratch"))));
    Path raw = folder.resolve("judged.raw");
    backups.copy("vda", raw);
    backups.end();
    assertHolds(guest, raw, notBefore);
    assertNextBackupIsGood(guest);
  }

  @Test
  void stateFolder() throws IOException {
    Path place = Files.createDirectory(folder.resolve("tidemark"));
    Files.createSymbolicLink(place.resolve("state"), small.path());
    ProvingGuest guest = runWithGuest("--scratch-dir", folder.resolve("scratches").toString());
    Path filler = small.fill();
    Path targets = Files.createDirectory(folder.resolve("targets"));
    Path target = targets.resolve("backup.qcow2");
    for (Request request :
        new Request[] {Request.push(Map.of("vda", target)), Request.pull(Map.of("vda", target))}) {
      Tool.Result begun = backups.ask(request.checkpoint("one"));
      assertThat(begun.exit()).as(begun.text()).isEqualTo(1);
      assertThat(begun.err()).contains("No space left on device");
      assertThat(virsh.ok("checkpoint-list", DOMAIN, "--name")).isBlank();
      assertThat(virsh.ok("domjobinfo", DOMAIN)).contains("None");
      try (Stream<Path> left = Files.list(targets)) {
        assertThat(left).as("what the backup left").isEmpty();
      }
      assertGoesOn(guest);
    }

    Files.delete(filler);
    backups.begin(Request.push(Map.of("vda", target)).checkpoint("one"));
    backups.awaitCompleted();
    assertThat(virsh.ok("checkpoint-list", DOMAIN, "--name")).contains("one");
    assertNextBackupIsGood(guest);
  }

  private static void assertGoesOn(ProvingGuest guest) throws IOException {
    guest.awaitProgress(100);
    guest.assertDiskHoldsAllAcknowledged();
  }

  private void assertNextBackupIsGood(ProvingGuest guest) throws IOException {
    long notBefore = guest.proof().acknowledged();
    Path full = folder.resolve("next.qcow2");
    backups.begin(Request.push(Map.of("vda", full)));
    backups.awaitCompleted();
    Path raw = folder.resolve("next.raw");
    DomainBackups.restore(full, raw);
    assertHolds(guest, raw, notBefore);
  }

  private static void assertHolds(ProvingGuest guest, Path raw, long notBefore) throws IOException {
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      guest.assertHolds(copy, notBefore);
    }
  }
}
