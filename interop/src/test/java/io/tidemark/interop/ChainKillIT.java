// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Kill -9 of the daemon at random moments of pulls and commits, under a guest that writes without
/// pause and reconnects. After each restart the chain is the old one or the new one, in the live
/// record and in the images' headers alike, and holds all that was acknowledged. `-Dkill.rounds=N`
/// for more, `-Dseed=N` for other moments.
@Tag("interop")
class ChainKillIT {
  private static final int ROUNDS = Integer.getInteger("kill.rounds", 8);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final String DOMAIN = "killed";
  private static final Pattern SOURCE = Pattern.compile("<source file='([^']*)'");
  private static final Pattern FILENAME = Pattern.compile("\"filename\": \"([^\"]*)\"");

  @TempDir Path folder;
  private final SplittableRandom random = new SplittableRandom(SEED);
  private TidemarkProcess daemon;
  private Virsh virsh;
  private ProvingGuest guest;

  @BeforeEach
  void startDomainAndGuest() throws IOException {
    Tool.require("virsh");
    Path base = folder.resolve("base.qcow2");
    Path disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", base, "64M");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk);
    daemon = TidemarkProcess.daemon(folder.resolve("tidemark"));
    virsh = new Virsh(daemon);
    virsh.ok("create", OneDisk.domain(folder, DOMAIN, disk));
    guest = new ProvingGuest(daemon.guestSocket(DOMAIN), "vda", folder.resolve("proof"), SEED);
  }

  @AfterEach
  void stop() throws IOException {
    if (guest != null) {
      guest.close();
    }
    if (daemon != null) {
      daemon.close();
    }
  }

  @Test
  void pullAndCommitAreDoneWholeOrNotAtAll() throws IOException {
    int changed = 0;
    for (int round = 0; round < ROUNDS; round++) {
      for (int n = chain().size(); n < 4; n++) {
        overlay(round, n);
      }
      List<Path> before = chain();
      boolean delete = random.nextBoolean();
      // Every other job is slow, so that the kill finds it in the middle.
      int mibPerSecond = random.nextBoolean() ? 25 : 0;
      List<Path> after = begin(round % 4, before, delete, mibPerSecond);
      boolean pivots = round % 4 == 0;
      var pivot =
          Thread.ofVirtual()
              .start(() -> {
                if (pivots) {
                  Kills.pivotWhenReady(virsh, DOMAIN);
                }
              });
      Kills.pauseMillis(random.nextInt(500));
      daemon.kill();
      daemon.start();
      Kills.join(pivot);
      guest.awaitProgress(1);
      guest.assertDiskHoldsAllAcknowledged();
      List<Path> now = chain();
      assertThat(now).isIn(before, after);
      assertThat(headers(now.getFirst())).isEqualTo(now);
      assertThat(virsh.ok("dumpxml", DOMAIN)).doesNotContain("<mirror");
      assertThat(virsh.ok("blockjob", DOMAIN, "vda", "--info")).doesNotContain("lock ");
      if (now.equals(after)) {
        changed++;
      }
      for (Path image : before) {
        boolean gone = now.equals(after) && !after.contains(image) && delete && round % 4 < 2;
        assertThat(Files.exists(image)).as(image.toString()).isEqualTo(!gone);
      }
    }
    System.out.printf("killed %d times, %d of them after the change%n", ROUNDS, changed);
    endAndCheck();
  }

  private void overlay(int round, int n) {
    guest.awaitProgress(1 + random.nextInt(300));
    Path overlay = folder.resolve("o" + round + "-" + n + ".qcow2");
    virsh.ok(
        "snapshot-create-as",
        DOMAIN,
        "--disk-only",
        "--no-metadata",
        "--diskspec",
        "vda,snapshot=external,file=" + overlay);
    guest.awaitProgress(1 + random.nextInt(300));
  }

  /// Starts a job.
  ///
  /// @return the chain that it makes
  private List<Path> begin(int verb, List<Path> chain, boolean delete, int mibPerSecond) {
    Path last = chain.getLast();
    List<Object> words = new ArrayList<>();
    List<Path> after = new ArrayList<>();
    switch (verb) {
      case 0 -> {
        words.addAll(List.of("blockcommit", DOMAIN, "vda", "--active", "--shallow"));
        after.addAll(chain.subList(1, chain.size()));
      }
      case 1 -> {
        words.addAll(List.of("blockcommit", DOMAIN, "vda", "--top", chain.get(1), "--base", last));
        after.addAll(List.of(chain.getFirst(), last));
      }
      case 2 -> {
        words.addAll(List.of("blockpull", DOMAIN, "vda", "--base", last));
        after.addAll(List.of(chain.getFirst(), last));
      }
      default -> {
        words.addAll(List.of("blockpull", DOMAIN, "vda"));
        after.add(chain.getFirst());
      }
    }
    words.addAll(List.of("--bandwidth", mibPerSecond));
    if (verb < 2 && delete) {
      words.add("--delete");
    }
    virsh.ok(words.toArray());
    return after;
  }

  /// The disk's chain as clients see it.
  private List<Path> chain() {
    return all(SOURCE, virsh.ok("dumpxml", DOMAIN).replaceAll("(?s)<mirror.*</mirror>", ""));
  }

  /// The chain as the headers say, by the other program.
  private static List<Path> headers(Path top) {
    return all(
        FILENAME,
        Tool.require("qemu-img")
            .ok("info", "-U", "--backing-chain", "--output=json", top)
            .out()
            // what qemu-img tells of the file beneath the format is not meant
            .replaceAll("(?s)\"children\": \\[.*?\\n {8}\\]", ""));
  }

  private static List<Path> all(Pattern pattern, String text) {
    List<Path> found = new ArrayList<>();
    Matcher matcher = pattern.matcher(text);
    while (matcher.find()) {
      found.add(Path.of(matcher.group(1)));
    }
    return found;
  }

  private void endAndCheck() throws IOException {
    guest.assertUnharmed();
    List<Path> chain = chain();
    guest.close();
    long last = guest.proof().acknowledged();
    virsh.ok("destroy", DOMAIN);
    for (Path image : chain) {
      Tool.Result check = Tool.require("qemu-img").run("check", image);
      assertThat(check.exit())
          .as(check.out() + check.err())
          .isIn(0, 3); // leaks are allowed after a crash
    }
    Path raw = folder.resolve("judged.raw");
    Tool.require("qemu-img").ok("convert", "-O", "raw", chain.getFirst(), raw);
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      guest.assertHolds(copy, last);
    }
  }
}
