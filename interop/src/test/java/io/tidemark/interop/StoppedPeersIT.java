// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.interop.DomainBackups.Request;
import io.tidemark.testkit.Tool;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A backup's target that stops taking writes, and a client that stops reading: the guest goes on,
/// and what its operations take meanwhile is printed beside what they took before.
@Tag("interop")
class StoppedPeersIT {
  private static final Path RESOURCES = Root.path().resolve("interop/src/test/resources");
  private static final String DOMAIN = "held";
  private static final int MIB = 1 << 20;

  /// A guest must not wait longer, on a machine that is busy with other tests.
  private static final Duration LONGEST = Duration.ofSeconds(4);

  /// How long the guest is watched.
  private static final Duration WATCHED = Duration.ofSeconds(3);

  @TempDir Path folder;
  private @Nullable SmallFileSystem slow; // where a test has one

  // Set where each test starts its daemon; null only where that failed.
  @SuppressWarnings("NullAway.Init")
  private OneDomain domain;

  @SuppressWarnings("NullAway.Init")
  private Virsh virsh;

  @SuppressWarnings("NullAway.Init")
  private DomainBackups backups;

  @BeforeEach
  void requireTools() {
    Tool.require("virsh");
    Tool.require("qemu-img");
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
    }
  }

  private ProvingGuest runWithGuest(String... options) throws IOException {
    domain = OneDomain.in(folder, DOMAIN).newDisk("vda", "32M").options(options).start();
    virsh = domain.virsh();
    backups = domain.backups();
    ProvingGuest guest = domain.beginGuest(20261122);
    awaitSpread(guest, folder.resolve("vda.qcow2"));
    return guest;
  }

  /// The guest has written a good part of its disk.
  private static void awaitSpread(ProvingGuest guest, Path disk) {
    Patience.await()
        .atMost(Duration.ofSeconds(60))
        .until(() -> {
          guest.assertUnharmed();
          return Files.size(disk) > 8 * MIB;
        });
  }

  /// What the guest's operations take while nothing else happens, or something does.
  private static Latencies watch(ProvingGuest guest) {
    guest.takeLatencies();
    Kills.pauseMillis((int) WATCHED.toMillis());
    return guest.takeLatencies();
  }

  private SmallFileSystem slowTarget() throws IOException {
    var made = SmallFileSystem.stoppable(folder.resolve("slow"), 64);
    slow = made;
    Files.write(made.resolve("target.raw"), new byte[32 * MIB]);
    return made;
  }

  private static void report(String what, Latencies before, Latencies meanwhile) {
    System.out.printf("%s:%n  before    %s%n  meanwhile %s%n", what, before, meanwhile);
  }

  @Test
  void targetThatStopsHoldsItsBackupAndNotTheGuest() throws IOException {
    SmallFileSystem target = slowTarget();
    ProvingGuest guest = runWithGuest();
    Latencies before = watch(guest);
    target.freeze();
    long notBefore = guest.proof().acknowledged();
    guest.takeLatencies();
    backups.begin(Request.push(Map.of("vda", target.resolve("target.raw"))).reuse("raw"));
    Kills.pauseMillis((int) WATCHED.toMillis());
    Latencies meanwhile = guest.takeLatencies();
    assertThat(virsh.ok("domjobinfo", DOMAIN)).contains("Backup");
    report("push backup, its target stopped", before, meanwhile);
    assertGoesOn(guest, meanwhile);

    target.go();
    backups.awaitCompleted();
    try (var copy = FileNode.open(target.resolve("target.raw"), OpenOptions.reading())) {
      guest.assertHolds(copy, notBefore);
    }
  }

  @Test
  void backupWhoseTargetStopsFailsAtTheBoundOfItsScratchAndTheGuestDoesNot() throws IOException {
    SmallFileSystem target = slowTarget();
    ProvingGuest guest = runWithGuest("--scratch-limit", "1M");
    Latencies before = watch(guest);
    target.freeze();
    guest.takeLatencies();
    backups.begin(Request.push(Map.of("vda", target.resolve("target.raw"))).reuse("raw"));
    String end = backups.awaitEnd();
    Latencies meanwhile = guest.takeLatencies();
    assertThat(end).contains("Failed").contains("is at its limit of 1048576 bytes");
    report("push backup that failed at the bound of its scratch", before, meanwhile);
    assertGoesOn(guest, meanwhile);

    // The target hangs still; nothing stands in the way of the next backup.
    Path roomy = folder.resolve("roomy.qcow2");
    long notBefore = guest.proof().acknowledged();
    backups.begin(Request.push(Map.of("vda", roomy)));
    String next = backups.awaitEnd();
    assertGoesOn(guest, guest.takeLatencies());
    if (next.contains("Completed")) { // else the guest wrote more than its scratch takes
      Path raw = folder.resolve("judged.raw");
      DomainBackups.restore(roomy, raw);
      try (var copy = FileNode.open(raw, OpenOptions.reading())) {
        guest.assertHolds(copy, notBefore);
      }
    }
    target.go();
  }

  @Test
  void clientThatStopsReadingHoldsNobody() throws Exception {
    ProvingGuest guest = runWithGuest();
    Latencies before = watch(guest);
    guest.takeLatencies();
    long notBefore = guest.proof().acknowledged();
    backups.begin(Request.pull(Map.of("vda", folder.resolve("scratch"))));
    Process stuck =
        Tool.at(Path.of("/usr/bin/python3"))
            .start(RESOURCES.resolve("stuck.py"), "nbd+unix:///vda?socket=" + backups.socket());
    try (BufferedReader said = stuck.inputReader()) {
      assertThat(said.readLine()).startsWith("asked for ");
      Kills.pauseMillis((int) WATCHED.toMillis());
      Latencies meanwhile = guest.takeLatencies();
      report("pull backup, its client stopped", before, meanwhile);
      assertGoesOn(guest, meanwhile);

      // Another client reads on.
      Path raw = folder.resolve("copy.raw");
      backups.copy("vda", raw);
      try (var copy = FileNode.open(raw, OpenOptions.reading())) {
        guest.assertHolds(copy, notBefore);
      }
      guest.takeLatencies();
      long start = System.nanoTime();
      backups.end();
      Duration end = Duration.ofNanos(System.nanoTime() - start);
      Latencies ending = guest.takeLatencies();
      report("the end of it, after %d ms".formatted(end.toMillis()), before, ending);
      assertGoesOn(guest, ending);
      assertThat(end).isLessThan(Duration.ofSeconds(20));
    } finally {
      stuck.destroyForcibly().waitFor();
    }
  }

  private static void assertGoesOn(ProvingGuest guest, Latencies latencies) {
    guest.assertUnharmed();
    assertThat(latencies.operations()).isPositive();
    assertThat(latencies.longest()).as("%s", latencies).isLessThan(LONGEST);
    guest.awaitProgress(100);
  }
}
