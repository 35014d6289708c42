// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.SplittableRandom;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Kill -9 of the daemon under a guest that writes without pause and reconnects: rule 1 of the
/// design, [#ROUNDS] times; jobs are in [JobKillIT], backups in [BackupKillIT]. `-Dkill.rounds=N`
/// for more, `-Dseed=N` for other moments.
@Tag("interop")
class KillIT {
  private static final int ROUNDS = Integer.getInteger("kill.rounds", 20);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final String DOMAIN = "killed";

  /// A guest must not wait longer for a daemon that was killed and started again. Start-up of the
  /// JVM on a loaded machine is the larger part.
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(20);

  @TempDir Path folder;
  private final SplittableRandom random = new SplittableRandom(SEED);
  private OneDomain domain;
  private ProvingGuest guest;

  @BeforeEach
  void startDomainAndGuest() throws IOException {
    OneDomain.Wanted wanted = OneDomain.in(folder, DOMAIN);
    Path base = OneDomain.newImage(folder, "base", "64M");
    Path disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk);
    domain = wanted.disk("vda", disk).start();
    guest = domain.beginGuest(SEED);
  }

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  @Test
  void idleDaemonLosesNothingAcknowledged() throws IOException {
    for (int round = 0; round < ROUNDS; round++) {
      guest.awaitProgress(1 + random.nextInt(2000));
      domain.killAndStart();
      guest.awaitProgress(1);
      guest.assertDiskHoldsAllAcknowledged();
    }
    endAndCheck();
  }

  private void endAndCheck() throws IOException {
    guest.assertUnharmed();
    assertThat(guest.longestOperation()).isLessThan(LONGEST_PAUSE);
    Path source = domain.source("vda");
    domain.end();
    long last = guest.proof().acknowledged();
    Tool.Result check = Tool.require("qemu-img").run("check", "--output=json", source);
    assertThat(check.exit())
        .as(check.out() + check.err())
        .isIn(0, 3); // leaks are allowed after a crash
    assertHolds(source, last);
  }

  private void assertHolds(Path image, long notBefore) throws IOException {
    Path raw = folder.resolve("judged.raw");
    Tool.require("qemu-img").ok("convert", "-O", "raw", image, raw);
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      guest.assertHolds(copy, notBefore);
    }
    Files.delete(raw);
  }
}
