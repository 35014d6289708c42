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
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Kill -9 of the daemon at random moments of a backup, its beginning included, under a guest that
/// writes without pause and reconnects.
///
/// After each kill: what was acknowledged is there; a target has its name only when it is whole,
/// which the guest's proof says, and nothing else is left of the backup; it was reported failed
/// unless it is whole; the image's bitmaps are those of the checkpoints, and none that was there
/// before the kill is trusted: increments since them are refused, with 109. A checkpoint that is
/// made afterwards is trusted, over a clean restart too: that is what the increments of the
/// following rounds count from, and they must be what the guest did.
///
/// `-Dkill.rounds=N` for more of each kind, `-Dseed=N` for other moments.
@Tag("interop")
class BackupKillIT {
  private static final int ROUNDS = Integer.getInteger("kill.rounds", 4);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final String DOMAIN = "killed";
  private static final Pattern BITMAP = Pattern.compile("\\bname: (\\S+)");

  /// What the kill interrupts.
  enum Kind {
    PUSH_FULL(false, false),
    PUSH_INCREMENT(false, true),
    PULL_FULL(true, false),
    PULL_INCREMENT(true, true);

    final boolean pull;
    final boolean increment;

    Kind(boolean pull, boolean increment) {
      this.pull = pull;
      this.increment = increment;
    }
  }

  @TempDir Path folder;
  private final SplittableRandom random = new SplittableRandom(SEED);

  // Set where each test starts; null only where that failed.
  @SuppressWarnings("NullAway.Init")
  private OneDomain domain;

  @SuppressWarnings("NullAway.Init")
  private Virsh virsh;

  @SuppressWarnings("NullAway.Init")
  private DomainBackups backups;

  @SuppressWarnings("NullAway.Init")
  private ProvingGuest guest;

  @SuppressWarnings("NullAway.Init")
  private Path disk;

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  @ParameterizedTest
  @EnumSource
  void leavesNothingThatClaimsToBeWholeAndNoGuess(Kind kind) throws IOException {
    startDomainAndGuest();
    int begun = 0;
    int whole = 0;
    for (int round = 0; round < ROUNDS; round++) {
      Outcome outcome = killOnce(kind, round);
      begun += outcome.begun() ? 1 : 0;
      whole += outcome.whole() ? 1 : 0;
    }
    System.out.printf(
        "%s, seed %d: killed %d times, %d after its beginning, %d when it was whole; the guest did"
            + " %d operations and waited %d ms at most%n",
        kind,
        SEED,
        ROUNDS,
        begun,
        whole,
        guest.proof().acknowledged(),
        guest.longestOperation().toMillis());
    endAndCheck();
  }

  private void startDomainAndGuest() throws IOException {
    Tool.require("nbdcopy");
    OneDomain.Wanted wanted = OneDomain.in(folder, DOMAIN);
    Path base = OneDomain.newImage(folder, "base", "32M");
    disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk);
    domain = wanted.disk("vda", disk).start();
    virsh = domain.virsh();
    backups = domain.backups();
    guest = domain.beginGuest(SEED);
  }

  /// @param begun the checkpoint was made, so the backup had begun
  /// @param whole the target has its name
  private record Outcome(boolean begun, boolean whole) {}

  private Outcome killOnce(Kind kind, int round) throws IOException {
    Path place = Files.createDirectory(folder.resolve("round" + round));
    Path before = place.resolve("before.raw");
    String since = "since" + round;
    guest.awaitProgress(1 + random.nextInt(300));
    if (kind.increment) {
      takeFull(kind.pull, since, before);
    } else {
      virsh.ok("checkpoint-create-as", DOMAIN, since);
    }
    if (random.nextInt(3) == 0) {
      domain.daemon().stop(); // cleanly: bitmaps are stored, and trusted afterwards
      domain.daemon().start();
    }
    guest.awaitProgress(1 + random.nextInt(500));
    Path files = Files.createDirectory(place.resolve("files"));
    Path target = files.resolve("vda");
    String made = "made" + round;
    Request request =
        (kind.pull ? Request.pull(Map.of("vda", target)) : Request.push(Map.of("vda", target)))
            .checkpoint(made);
    if (kind.increment) {
      request = request.since(since);
    }
    Object[] words = backups.words(request);
    virsh.ok("domjobinfo", DOMAIN, "--completed"); // forgets the one before
    long notBefore = guest.proof().acknowledged();
    var call = Thread.ofVirtual().start(() -> virsh.run(words));
    var reader =
        Thread.ofVirtual()
            .start(() -> {
              Kills.join(call);
              if (kind.pull) {
                Tool.require("nbdcopy")
                    .run("nbd+unix:///vda?socket=" + backups.socket(), place.resolve("torn.raw"));
              }
            });
    if (random.nextInt(3) > 0) {
      Kills.join(call); // it has begun; else the kill may come before or within the call
    }
    Kills.pauseMillis(random.nextInt(kind.pull ? 200 : 80));
    domain.daemon().kill();
    long sent = guest.proof().noted();
    assertSound(disk);
    Optional<Path> named =
        Files.exists(target) && !kind.pull ? Optional.of(target) : Optional.empty();
    domain.daemon().start();
    Kills.join(reader);
    guest.awaitProgress(1);
    guest.assertDiskHoldsAllAcknowledged();

    boolean whole = !kind.pull && Files.exists(target);
    assertThat(named.isPresent() && !whole).as("a name that was taken back").isFalse();
    assertThat(files(files)).as("what is left of the backup").hasSize(whole ? 1 : 0);
    List<String> checkpoints = checkpoints();
    assertThat(checkpoints).contains(since);
    boolean begun = checkpoints.contains(made);
    assertThat(bitmaps())
        .as("bitmaps of the image")
        .containsExactlyInAnyOrderElementsOf(checkpoints);
    String ended = backups.ended();
    if (whole) {
      Path raw = place.resolve("judged.raw");
      if (kind.increment) {
        DomainBackups.restore(target, before, raw);
      } else {
        DomainBackups.restore(target, raw);
      }
      assertHolds(raw, notBefore, sent);
      Files.delete(raw);
    } else if (begun) {
      assertThat(ended).contains("Failed").contains("the daemon ended during the backup");
    }
    for (String checkpoint : checkpoints) {
      assertRefused(kind.pull, checkpoint, place.resolve("refused"));
      virsh.ok("checkpoint-delete", DOMAIN, checkpoint);
    }
    Files.deleteIfExists(before);
    return new Outcome(begun, whole);
  }

  /// A full backup that is let be: the disk as a raw image.
  private void takeFull(boolean pull, String checkpoint, Path raw) throws IOException {
    Path file = raw.resolveSibling("full");
    long notBefore = guest.proof().acknowledged();
    Map<String, Path> files = Map.of("vda", file);
    backups.begin((pull ? Request.pull(files) : Request.push(files)).checkpoint(checkpoint));
    if (pull) {
      backups.copy("vda", raw);
      backups.end();
    } else {
      backups.awaitCompleted();
      DomainBackups.restore(file, raw);
      Files.delete(file);
    }
    assertHolds(raw, notBefore, guest.proof().noted());
  }

  private void assertRefused(boolean pull, String since, Path file) throws IOException {
    Map<String, Path> files = Map.of("vda", file);
    Tool.Result increment =
        backups.ask((pull ? Request.pull(files) : Request.push(files)).since(since));
    assertThat(increment.exit()).as("since %s: %s", since, increment.text()).isEqualTo(1);
    assertThat(increment.err())
        .contains("checkpoint inconsistent: missing or broken bitmap '" + since + "'");
    assertThat(file).doesNotExist();
    assertThat(domain.daemon().log())
        .contains("since checkpoint " + since + ": its bitmap did not record");
  }

  private List<String> checkpoints() {
    return virsh
        .ok("checkpoint-list", DOMAIN, "--name")
        .lines()
        .filter(line -> !line.isBlank())
        .map(String::strip)
        .toList();
  }

  private List<String> bitmaps() {
    String info = Tool.require("qemu-img").ok("info", "-U", disk).out();
    int start = info.indexOf("bitmaps:");
    List<String> names = new ArrayList<>();
    Matcher matcher = BITMAP.matcher(start < 0 ? "" : info.substring(start));
    while (matcher.find()) {
      names.add(matcher.group(1));
    }
    return names;
  }

  private static List<Path> files(Path dir) throws IOException {
    try (Stream<Path> files = Files.list(dir)) {
      return files.toList();
    }
  }

  private static void assertSound(Path image) {
    Tool.Result check = Tool.require("qemu-img").run("check", image);
    assertThat(check.exit())
        .as(image + ": " + check.out() + check.err())
        .isIn(0, 3); // leaks are allowed after a crash
  }

  private void assertHolds(Path raw, long notBefore, long notAfter) throws IOException {
    assertThat(notBefore).isLessThanOrEqualTo(notAfter);
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      guest.assertHolds(copy, notBefore);
    }
  }

  private void endAndCheck() throws IOException {
    guest.assertUnharmed();
    domain.end();
    assertSound(disk);
    Path raw = folder.resolve("last.raw");
    Tool.require("qemu-img").ok("convert", "-f", "qcow2", "-O", "raw", disk, raw);
    long last = guest.proof().acknowledged();
    assertHolds(raw, last, last);
  }
}
