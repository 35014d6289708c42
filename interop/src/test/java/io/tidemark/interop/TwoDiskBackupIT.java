// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.cli.GuestVerdict;
import io.tidemark.interop.DomainBackups.Request;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.SplittableRandom;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Backups of two disks under a guest that orders its writes over them: its operation n on vdb is
/// sent when n on vda is acknowledged, n + 1 on vda when n on vdb is. So at one instant the disks
/// are as far as each other, or vda is one further; every backup must show that, push and pull,
/// full and incremental, whatever the increments before it.
///
/// `-Dbackup.rounds=N` for more, `-Dseed=N` for others.
@Tag("interop")
class TwoDiskBackupIT {
  private static final int ROUNDS = Integer.getInteger("backup.rounds", 8);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final String DOMAIN = "two";
  private static final List<String> DISKS = List.of("vda", "vdb");

  /// Earlier moments that increments may count from.
  private static final int KEPT = 4;

  /// A checkpoint, and the disks as raw images at its moment.
  private record Restored(String checkpoint, Map<String, Path> raw) {}

  @TempDir Path folder;
  private final SplittableRandom random = new SplittableRandom(SEED);
  private final Deque<Restored> earlier = new ArrayDeque<>();
  private OneDomain domain;
  private DomainBackups backups;
  private ProvingGuest guest;
  private long changed;

  @BeforeEach
  void startDomainAndGuest() throws IOException {
    Tool.require("nbdcopy");
    OneDomain.Wanted wanted = OneDomain.in(folder, DOMAIN);
    DISKS.forEach(disk -> wanted.newDisk(disk, "16M"));
    domain = wanted.start();
    backups = domain.backups();
    guest = domain.beginGuest(SEED);
  }

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  @Test
  void everyBackupShowsBothDisksAtOneInstant() throws IOException {
    for (int round = 0; round < ROUNDS; round++) {
      backUp(round);
      guest.assertUnharmed();
    }
    guest.assertDiskHoldsAllAcknowledged();
    System.out.printf(
        "seed %d: %d backups of two disks, each at one instant; the guest did %d operations and"
            + " waited %d ms at most; increments held %d KiB%n",
        SEED,
        ROUNDS,
        guest.proof().acknowledged(),
        guest.longestOperation().toMillis(),
        changed >> 10);
  }

  private void backUp(int round) throws IOException {
    guest.awaitProgress(1 + random.nextInt(300));
    boolean pull = random.nextBoolean();
    boolean increment = !earlier.isEmpty() && random.nextInt(3) > 0;
    Path place = Files.createDirectory(folder.resolve("backup" + round));
    Map<String, Path> files = named(place, ".qcow2");
    Request request = pull ? Request.pull(files) : Request.push(files);
    request = request.checkpoint("cp" + round);
    @Nullable Restored since = increment ? pick() : null;
    if (since != null) {
      request = request.since(since.checkpoint());
    }
    long notBefore = guest.proof().acknowledged();
    backups.begin(request);
    long notAfter = guest.proof().noted();
    Map<String, Path> raw = named(place, ".raw");
    if (pull) {
      guest.awaitProgress(1 + random.nextInt(200)); // what it overwrites is kept
      for (String disk : DISKS) {
        if (since == null) {
          backups.copy(disk, at(raw, disk));
        } else {
          Files.copy(at(since.raw(), disk), at(raw, disk));
          changed += backups.copyChanges(disk, at(raw, disk));
        }
      }
      backups.end();
    } else {
      backups.awaitCompleted();
      for (String disk : DISKS) {
        if (since == null) {
          DomainBackups.restore(at(files, disk), at(raw, disk));
        } else {
          DomainBackups.restore(at(files, disk), at(since.raw(), disk), at(raw, disk));
        }
      }
    }
    String what = (pull ? "pull" : "push") + (since == null ? "" : " since " + since.checkpoint());
    assertOneInstant(
        "round %d, seed %d, %s".formatted(round, SEED, what), raw, notBefore, notAfter);
    earlier.addLast(new Restored("cp" + round, raw));
    if (earlier.size() > KEPT) {
      earlier
          .removeFirst()
          .raw()
          .values()
          .forEach(file -> assertThat(file.toFile().delete()).isTrue());
    }
  }

  private Restored pick() {
    List<Restored> all = List.copyOf(earlier);
    return all.get(random.nextInt(all.size()));
  }

  private static Map<String, Path> named(Path place, String end) {
    Map<String, Path> files = new LinkedHashMap<>();
    DISKS.forEach(disk -> files.put(disk, place.resolve(disk + end)));
    return files;
  }

  private static Path at(Map<String, Path> files, String disk) {
    return Objects.requireNonNull(files.get(disk), disk);
  }

  private void assertOneInstant(String what, Map<String, Path> raw, long notBefore, long notAfter)
      throws IOException {
    List<Long> first = moments(what, raw, 0);
    List<Long> second = moments(what, raw, 1);
    assertThat(first)
        .as("%s: vda, with vdb at %s, wanted in [%d, %d]", what, second, notBefore, notAfter)
        .anyMatch(
            m -> m >= notBefore && m <= notAfter && (second.contains(m) || second.contains(m - 1)));
  }

  private List<Long> moments(String what, Map<String, Path> raw, int disk) throws IOException {
    try (var copy = FileNode.open(at(raw, DISKS.get(disk)), OpenOptions.reading())) {
      GuestVerdict verdict = GuestVerdict.of(copy, guest.proof(disk));
      assertThat(verdict.differingBlocks()).as("%s: %s", what, verdict).isZero();
      return verdict.moments();
    }
  }
}
