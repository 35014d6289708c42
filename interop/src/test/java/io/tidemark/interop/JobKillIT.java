// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.WindowNode;
import io.tidemark.cli.GuestPattern;
import io.tidemark.cli.GuestProof;
import io.tidemark.cli.GuestVerdict;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// Kill -9 of the daemon at random moments of every verb that changes a running domain's disks,
/// under a guest that writes two disks in turn without pause and reconnects.
///
/// After each kill every image passes qemu-img's check as it lies; after each restart the domain is
/// what it was or what the verb makes of it, in the live record and in the images' headers alike,
/// no job is left, a job that was begun and did not take effect is among the domain's messages as
/// failed, and no other is, and both disks hold all that was acknowledged. A snapshot that took
/// place holds both disks as they were at one instant. `-Dkill.rounds=N` for more of each verb,
/// `-Dseed=N` for other moments.
@Tag("interop")
class JobKillIT {
  private static final int ROUNDS = Integer.getInteger("kill.rounds", 2);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final String DOMAIN = "killed";
  private static final long MIB = 1 << 20;
  private static final int DISK_MIB = 16;
  private static final String DISK_SIZE = DISK_MIB + "M";
  private static final int MAX_LAYERS = 8;

  /// As many lost jobs are remembered.
  private static final int MAX_ROUNDS = 100;

  private static final Pattern SOURCE = Pattern.compile("<source file='([^']*)'");
  private static final Pattern FILENAME = Pattern.compile("\"filename\": \"([^\"]*)\"");

  /// What is in the middle of something when the daemon dies.
  enum Verb {
    COPY(2, 600, true),
    REBASE_COPY(2, 600, false),
    PULL(4, 500, false),
    PULL_TO_BASE(4, 500, false),
    COMMIT(4, 500, false),
    ACTIVE_COMMIT(4, 500, true),
    SNAPSHOT(1, 200, true),
    RESIZE(1, 120, true),
    PLUG(1, 120, true);

    /// Layers of vda that it needs.
    final int layers;

    /// A kill comes within so many milliseconds of the call.
    final int spanMillis;

    final boolean persistent;

    Verb(int layers, int spanMillis, boolean persistent) {
      this.layers = layers;
      this.spanMillis = spanMillis;
      this.persistent = persistent;
    }

    boolean isJob() {
      return spanMillis >= 500;
    }

    boolean pivots() {
      return this == COPY || this == REBASE_COPY || this == ACTIVE_COMMIT;
    }
  }

  /// What the domain is, as far as a verb may change it.
  private record Shape(List<Path> vda, List<Path> vdb, long vdaBytes, boolean plugged) {
    Shape withVda(List<Path> chain) {
      return new Shape(List.copyOf(chain), vdb, vdaBytes, plugged);
    }
  }

  /// A call and what it makes of the domain.
  private record Attempt(List<Object> words, Shape wanted, List<Path> deleted) {}

  @TempDir Path folder;
  private final SplittableRandom random = new SplittableRandom(SEED);

  // Set where each test starts; null only where that failed.
  @SuppressWarnings("NullAway.Init")
  private OneDomain domain;

  @SuppressWarnings("NullAway.Init")
  private Virsh virsh;

  @SuppressWarnings("NullAway.Init")
  private ProvingGuest guest;

  @SuppressWarnings("NullAway.Init")
  private Path plugged;

  private long plugs;
  private int reported;
  private int files;

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  @ParameterizedTest
  @EnumSource
  void isDoneWholeOrNotAtAll(Verb verb) throws IOException {
    assertThat(ROUNDS).isLessThanOrEqualTo(MAX_ROUNDS);
    startDomainAndGuest(verb);
    int done = 0;
    for (int round = 0; round < ROUNDS; round++) {
      if (killOnce(verb)) {
        done++;
      }
    }
    System.out.printf(
        "%s: killed %d times, %d after the change, %d jobs reported failed; the guest waited %d ms"
            + " at most%n",
        verb, ROUNDS, done, reported, guest.longestOperation().toMillis());
    endAndCheck();
  }

  private void startDomainAndGuest(Verb verb) throws IOException {
    OneDomain.Wanted wanted =
        OneDomain.in(folder, DOMAIN).newDisk("vda", DISK_SIZE).newDisk("vdb", DISK_SIZE);
    plugged = OneDomain.newImage(folder, "vdc", DISK_SIZE);
    domain = (verb.persistent ? wanted : wanted.transientOne()).start();
    virsh = domain.virsh();
    guest = domain.beginGuest(SEED);
  }

  /// @return whether the verb's effect is there
  private boolean killOnce(Verb verb) throws IOException {
    prepare(verb);
    guest.awaitProgress(1 + random.nextInt(300));
    Shape before = shape();
    int lostBefore = lostJobs();
    Attempt attempt = attempt(verb, before);
    long notBefore = guest.proof().acknowledged();
    var answered = new AtomicBoolean();
    var call =
        Thread.ofVirtual()
            .start(() -> {
              boolean begun = virsh.run(attempt.words().toArray()).exit() == 0;
              answered.set(begun);
              if (begun && verb.pivots()) {
                Kills.pivotWhenReady(virsh, DOMAIN);
              }
            });
    Kills.pauseMillis(random.nextInt(verb.spanMillis));
    domain.daemon().kill();
    long[] sent = {guest.proof(0).noted(), guest.proof(1).noted()};
    before.vda().stream().filter(Files::exists).forEach(JobKillIT::assertSound);
    before.vdb().forEach(JobKillIT::assertSound);
    domain.daemon().start();
    Kills.join(call);
    guest.awaitProgress(1);
    guest.assertDiskHoldsAllAcknowledged();
    Shape now = shape();
    assertThat(now).isIn(before, attempt.wanted());
    boolean done = now.equals(attempt.wanted());
    assertThat(headers(now.vda().getFirst())).isEqualTo(now.vda());
    assertThat(headers(now.vdb().getFirst())).isEqualTo(now.vdb());
    assertThat(virsh.ok("dumpxml", DOMAIN)).doesNotContain("<mirror");
    assertThat(virsh.ok("blockjob", DOMAIN, "vda")).doesNotContain("%");
    int lost = lostJobs() - lostBefore;
    if (done || !verb.isJob()) {
      assertThat(lost).isZero();
    } else if (answered.get()) {
      assertThat(lost).isOne();
    } else {
      assertThat(lost).isBetween(0, 1); // whether it began nobody was told
    }
    if (lost > 0) {
      reported++;
    }
    for (Path image : before.vda()) {
      assertThat(Files.exists(image))
          .as(image.toString())
          .isEqualTo(!(done && attempt.deleted().contains(image)));
    }
    if (done && verb == Verb.SNAPSHOT) {
      assertOneInstant(before.vda().getFirst(), before.vdb().getFirst(), notBefore, sent);
    }
    if (verb == Verb.PLUG) {
      useThePluggedDisk(now.plugged());
    }
    return done;
  }

  /// Brings the chains to where the verb can begin.
  private void prepare(Verb verb) {
    for (String disk : List.of("vda", "vdb")) {
      if (chain(disk).size() > MAX_LAYERS) {
        virsh.ok("blockpull", DOMAIN, disk, "--wait");
      }
    }
    while (chain("vda").size() < verb.layers) {
      guest.awaitProgress(1 + random.nextInt(100));
      List<Object> words = new ArrayList<>(List.of("snapshot-create-as", DOMAIN));
      words.addAll(List.of("--disk-only", "--no-metadata"));
      words.addAll(List.of("--diskspec", "vda,snapshot=external,file=" + newFile()));
      words.addAll(List.of("--diskspec", "vdb,snapshot=no"));
      virsh.ok(words.toArray());
      guest.awaitProgress(1 + random.nextInt(100));
    }
  }

  private Path newFile() {
    return folder.resolve("image" + files++ + ".qcow2");
  }

  private Attempt attempt(Verb verb, Shape before) {
    List<Path> chain = before.vda();
    List<Object> words = new ArrayList<>();
    List<Path> deleted = new ArrayList<>();
    Path top = chain.getFirst();
    Path last = chain.getLast();
    boolean delete = random.nextBoolean();
    Shape wanted =
        switch (verb) {
          case COPY, REBASE_COPY -> {
            Path copy = newFile();
            boolean shallow = random.nextBoolean();
            words.addAll(List.of("blockcopy", DOMAIN, "vda", "--dest", copy));
            if (verb == Verb.COPY) {
              words.addAll(List.of("--transient-job", "--format", "qcow2"));
            }
            List<Path> copied = new ArrayList<>(List.of(copy));
            if (shallow) {
              words.add("--shallow");
              copied.addAll(chain.subList(1, chain.size()));
            }
            yield before.withVda(copied);
          }
          case PULL -> {
            words.addAll(List.of("blockpull", DOMAIN, "vda"));
            yield before.withVda(List.of(top));
          }
          case PULL_TO_BASE -> {
            words.addAll(List.of("blockpull", DOMAIN, "vda", "--base", last));
            yield before.withVda(List.of(top, last));
          }
          case COMMIT -> {
            words.addAll(List.of("blockcommit", DOMAIN, "vda"));
            words.addAll(List.of("--top", chain.get(1), "--base", last));
            deleted.addAll(chain.subList(1, chain.size() - 1));
            yield before.withVda(List.of(top, last));
          }
          case ACTIVE_COMMIT -> {
            words.addAll(List.of("blockcommit", DOMAIN, "vda", "--active", "--shallow"));
            deleted.add(top);
            yield before.withVda(chain.subList(1, chain.size()));
          }
          case SNAPSHOT -> {
            Path vda = newFile();
            Path vdb = newFile();
            words.addAll(List.of("snapshot-create-as", DOMAIN, "--disk-only"));
            words.addAll(List.of("--diskspec", "vda,snapshot=external,file=" + vda));
            words.addAll(List.of("--diskspec", "vdb,snapshot=external,file=" + vdb));
            yield new Shape(
                onTop(vda, chain), onTop(vdb, before.vdb()), before.vdaBytes(), before.plugged());
          }
          case RESIZE -> {
            long bytes = before.vdaBytes() + MIB;
            words.addAll(List.of("blockresize", DOMAIN, "vda", bytes + "B"));
            yield new Shape(chain, before.vdb(), bytes, before.plugged());
          }
          case PLUG -> {
            if (before.plugged()) {
              words.addAll(List.of("detach-disk", DOMAIN, "vdc", "--live"));
            } else {
              words.addAll(List.of("attach-disk", DOMAIN, plugged, "vdc", "--live"));
              words.addAll(List.of("--targetbus", "virtio", "--subdriver", "qcow2"));
            }
            yield new Shape(chain, before.vdb(), before.vdaBytes(), !before.plugged());
          }
        };
    if (verb.spanMillis >= 500) {
      // Every other job is slow, so that the kill finds it in the middle.
      words.addAll(List.of("--bandwidth", random.nextBoolean() ? 10 : 0));
    }
    if (verb == Verb.COMMIT || verb == Verb.ACTIVE_COMMIT) {
      if (delete) {
        words.add("--delete");
      } else {
        deleted.clear();
      }
    }
    return new Attempt(words, wanted, deleted);
  }

  private static List<Path> onTop(Path overlay, List<Path> chain) {
    List<Path> whole = new ArrayList<>(List.of(overlay));
    whole.addAll(chain);
    return List.copyOf(whole);
  }

  /// How many jobs the domain says that restarts ended.
  private int lostJobs() {
    String told = virsh.ok("dominfo", DOMAIN);
    return told.split("failed: the daemon ended during it", -1).length - 1;
  }

  private Shape shape() {
    Matcher size =
        Pattern.compile("Capacity:\\s+(\\d+)").matcher(virsh.ok("domblkinfo", DOMAIN, "vda"));
    assertThat(size.find()).isTrue();
    boolean there = virsh.ok("domblklist", DOMAIN).contains("vdc");
    return new Shape(chain("vda"), chain("vdb"), Long.parseLong(size.group(1)), there);
  }

  /// A disk's chain as clients see it.
  private List<Path> chain(String target) {
    String xml = virsh.ok("dumpxml", DOMAIN).replaceAll("(?s)<mirror.*?</mirror>", "");
    for (String disk : xml.split("<disk ", -1)) {
      if (disk.contains("<target dev='" + target + "'")) {
        return all(SOURCE, disk);
      }
    }
    throw new AssertionError("no " + target + " in " + xml);
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

  private static void assertSound(Path image) {
    Tool.Result check = Tool.require("qemu-img").run("check", image);
    assertThat(check.exit())
        .as(image + ": " + check.out() + check.err())
        .isIn(0, 3); // leaks are allowed after a crash
  }

  /// The images beneath two overlays are both disks as they were at one instant: as far as each
  /// other, or vda one operation further.
  private void assertOneInstant(Path vda, Path vdb, long notBefore, long[] sent)
      throws IOException {
    List<Long> first = moments(vda, 0, sent[0]);
    List<Long> second = moments(vdb, 1, sent[1]);
    assertThat(first)
        .as("moments of vda beside those of vdb: %s, not before %d", second, notBefore)
        .anyMatch(m -> m >= notBefore && (second.contains(m) || second.contains(m - 1)));
  }

  /// The moments of a disk that an image shows.
  ///
  /// @param cut the operation that a kill may have found in the middle: of its blocks some may be
  ///   there and some not, as it was sent again and then went elsewhere
  private List<Long> moments(Path image, int disk, long cut) throws IOException {
    Path raw = folder.resolve("judged.raw");
    Tool.require("qemu-img").ok("convert", "-U", "-f", "qcow2", "-O", "raw", image, raw);
    try (var copy = open(raw)) {
      GuestProof proof = guest.proof(disk);
      GuestVerdict verdict = GuestVerdict.of(copy, proof);
      if (verdict.differingBlocks() == 0) {
        return verdict.moments();
      }
      assertIsInTheMiddleOf(copy, proof, cut);
      return List.of(cut - 1, cut);
    } finally {
      Files.delete(raw);
    }
  }

  private static void assertIsInTheMiddleOf(BlockNode copy, GuestProof proof, long operation)
      throws IOException {
    int[] before = proof.stateAfter(operation - 1);
    int[] after = proof.stateAfter(operation);
    for (int block = 0; block < before.length; block++) {
      ByteBuffer found = ByteBuffer.allocate(GuestPattern.BLOCK);
      copy.read((long) block * GuestPattern.BLOCK, found);
      assertThat(found.flip())
          .as(
              "block %d in the middle of %d, %s: it is of operation %d, wanted is %d or %d; zero"
                  + " from byte %d",
              block,
              operation,
              proof.operation(operation),
              GuestPattern.operation(found, 0, block),
              before[block],
              after[block],
              zeroesFrom(found))
          .isIn(wanted(block, before[block]), wanted(block, after[block]));
    }
  }

  private static int zeroesFrom(ByteBuffer block) {
    int end = block.limit();
    while (end > 0 && block.get(end - 1) == 0) {
      end--;
    }
    return end;
  }

  private static ByteBuffer wanted(int block, int operation) {
    ByteBuffer wanted = ByteBuffer.allocate(GuestPattern.BLOCK);
    if (operation >= 0) {
      GuestPattern.put(wanted, block, operation);
    }
    return wanted.clear();
  }

  private static BlockNode open(Path raw) throws IOException {
    BlockNode whole = FileNode.open(raw, OpenOptions.reading());
    return WindowNode.of(whole, Optional.empty(), Optional.of(DISK_MIB * MIB));
  }

  /// Writes a disk that is there, so that the next round may lose it; reads what was written from
  /// one that has gone.
  private void useThePluggedDisk(boolean there) throws IOException {
    ByteBuffer block = ByteBuffer.allocate(GuestPattern.BLOCK);
    if (!there) {
      assertSound(plugged);
      Path raw = folder.resolve("plugged.raw");
      Tool.require("qemu-img").ok("convert", "-f", "qcow2", "-O", "raw", plugged, raw);
      try (var copy = open(raw)) {
        if (plugs > 0) {
          copy.read(0, block);
          assertThat(GuestPattern.operation(block.flip(), 0, 0)).isEqualTo(plugs);
        }
      }
      Files.delete(raw);
      return;
    }
    try (var disk = NbdClient.connect(NbdUri.unix(domain.guestSocket(), "vdc"))) {
      if (plugs > 0) {
        disk.read(0, block);
        assertThat(GuestPattern.operation(block.flip(), 0, 0)).isEqualTo(plugs);
        block.clear();
      }
      GuestPattern.put(block, 0, ++plugs);
      disk.write(0, block.flip());
    }
  }

  private void endAndCheck() throws IOException {
    guest.assertUnharmed();
    Shape last = shape();
    domain.end();
    last.vda().forEach(JobKillIT::assertSound);
    last.vdb().forEach(JobKillIT::assertSound);
    assertThat(moments(last.vda().getFirst(), 0, -1)).contains(guest.proof(0).acknowledged());
    assertThat(moments(last.vdb().getFirst(), 1, -1)).contains(guest.proof(1).acknowledged());
  }
}
