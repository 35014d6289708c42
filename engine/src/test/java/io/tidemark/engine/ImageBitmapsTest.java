// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.base;
import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FormatNode;
import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.StreamSpec;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.MergeBitmaps;
import io.tidemark.domain.spi.TransactionAction.RemoveBitmap;
import io.tidemark.domain.spi.TransactionAction.Snapshot;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// The bitmaps of images beneath a drive's top: what a commit, a copy, a pull and their ends make
/// of them.
class ImageBitmapsTest {
  private static final int GRANULE = 65536;

  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  /// What a run remembers of its guest.
  private static final class Chain {
    final Random random;
    final List<Path> files = new ArrayList<>();
    final List<String> nodes = new ArrayList<>();
    final Map<String, byte[]> contentAt = new HashMap<>();
    final Map<String, Set<Integer>> writtenSince = new HashMap<>();
    int names;

    Chain(long seed) {
      random = new Random(seed);
    }

    String name(String kind) {
      return kind + ++names;
    }
  }

  /// Checkpoints, snapshots, commits of every kind and aborted ones, in any order: the drive's
  /// bitmaps are always exactly what was written since; and after the end no image of the chain has
  /// a bitmap that calls clean what is not as it was when the bitmap was made.
  @ParameterizedTest
  @Seeds(25)
  void tellWhatWasWrittenSinceWhateverIsCommittedWhereAndHoweverItEnds(long seed) throws Exception {
    var chain = new Chain(seed);
    Path file = rig.create("base", "qcow2");
    chain.files.add(file);
    chain.nodes.add("n0");
    RunningDomain domain = rig.launch(drive("vda", node("n0", file, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      for (int step = 0; step < 14; step++) {
        switch (chain.random.nextInt(chain.files.size() > 1 ? 7 : 4)) {
          case 0 -> mark(domain, guest, chain);
          case 1, 2 -> write(guest, chain);
          case 3 -> snapshot(domain, chain);
          default -> commit(domain, guest, chain);
        }
        requireExact(domain, chain);
      }
    }
    domain.stop();
    for (int at = 0; at < chain.files.size(); at++) {
      requireTrue(chain, at);
    }
  }

  private void mark(RunningDomain domain, NbdClient guest, Chain chain) throws IOException {
    String name = chain.name("c");
    domain.transaction(List.of(new AddBitmap("vda", name, GRANULE, true)));
    chain.writtenSince.put(name, new TreeSet<>());
    chain.contentAt.put(name, ModelDisk.of(guest).read(0, (int) SIZE));
  }

  private static void write(NbdClient guest, Chain chain) throws IOException {
    int granule = chain.random.nextInt((int) (SIZE / GRANULE));
    guest.write(
        (long) granule * GRANULE, ByteBuffer.wrap(bytes(GRANULE, 1 + chain.random.nextInt(255))));
    chain.writtenSince.values().forEach(written -> written.add(granule));
  }

  private void snapshot(RunningDomain domain, Chain chain) throws IOException {
    String name = chain.name("s");
    Path over = rig.create(name, "qcow2", chain.files.getLast().toString(), "qcow2");
    domain.addNode(node(name, over, "qcow2"));
    domain.transaction(List.of(new Snapshot("vda", name)));
    chain.files.add(over);
    chain.nodes.add(name);
  }

  private void commit(RunningDomain domain, NbdClient guest, Chain chain) throws IOException {
    int last = chain.files.size() - 1;
    int top = 1 + chain.random.nextInt(last);
    int base = chain.random.nextInt(top);
    String job = chain.name("job");
    domain.startCommit(
        new CommitSpec(
            job, "vda", chain.nodes.get(top), chain.nodes.get(base), Optional.empty(), 0));
    boolean active = top == last;
    rig.statuses.await(job, active ? DriverJobStatus.READY : DriverJobStatus.PENDING);
    if (active && chain.random.nextBoolean()) {
      write(guest, chain);
    }
    if (active && !chain.writtenSince.isEmpty() && chain.random.nextInt(4) == 0) {
      String gone = chain.writtenSince.keySet().iterator().next();
      domain.transaction(List.of(new RemoveBitmap("vda", gone)));
      chain.writtenSince.remove(gone);
      chain.contentAt.remove(gone);
    }
    if (chain.random.nextInt(3) == 0) {
      domain.cancelJob(job);
      rig.statuses.await(job, DriverJobStatus.CONCLUDED);
      domain.dismissJob(job);
      return;
    }
    if (active) {
      domain.completeJob(job);
      rig.statuses.await(job, DriverJobStatus.PENDING);
    }
    domain.finalizeJob(job);
    rig.statuses.await(job, DriverJobStatus.CONCLUDED);
    domain.dismissJob(job);
    domain.removeNode(chain.nodes.get(top));
    chain.files.subList(base + 1, top + 1).clear();
    chain.nodes.subList(base + 1, top + 1).clear();
  }

  private static void requireExact(RunningDomain domain, Chain chain) throws IOException {
    List<BitmapState> states = domain.bitmaps("vda");
    assertThat(states)
        .extracting(BitmapState::name)
        .containsExactlyInAnyOrderElementsOf(chain.writtenSince.keySet());
    for (BitmapState state : states) {
      assertThat(state.inconsistent()).as(state.name()).isFalse();
      assertThat(state.dirtyBytes())
          .as(state.name())
          .isEqualTo(
              (long) GRANULE * chain.writtenSince.getOrDefault(state.name(), Set.of()).size());
    }
  }

  private void requireTrue(Chain chain, int at) throws IOException {
    Path file = chain.files.get(at);
    byte[] now = rig.content(file, "qcow2").read(0, (int) SIZE);
    try (FormatNode image = rig.open(file, "qcow2")) {
      assertThat(image.bitmapStore().orElseThrow().stored())
          .as("image %d of %s", at, chain.nodes)
          .noneMatch(stored -> stored.inconsistent())
          .extracting(stored -> stored.name())
          .isSubsetOf(chain.contentAt.keySet());
      for (var stored : image.bitmapStore().orElseThrow().stored()) {
        DirtyBitmap bitmap = image.bitmapStore().orElseThrow().load(stored.name());
        byte[] then = chain.contentAt.getOrDefault(stored.name(), now);
        for (int from = 0; from < SIZE; from += GRANULE) {
          if (!Arrays.equals(now, from, from + GRANULE, then, from, from + GRANULE)) {
            assertThat(bitmap.isDirty(from))
                .as("image %d, bitmap %s, byte %d", at, stored.name(), from)
                .isTrue();
          }
        }
      }
    }
  }

  /// As libvirt leaves them at a snapshot: each image has what was written while it was the top.
  @Test
  void ofOneNameDownAChainAreOneBitmap() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    Path high = rig.create("high", "qcow2", low.toString(), "qcow2");
    record(high, "c1", 1);
    RunningDomain domain = rig.launch(drive("vda", over(high, low)));
    assertThat(domain.bitmaps("vda"))
        .containsExactly(new BitmapState("c1", GRANULE, 2 * GRANULE, true, true, false));
    domain.stop();
  }

  /// Takes a bitmap of what is written into one granule.
  private void record(Path file, String bitmap, int granule) throws IOException {
    RunningDomain domain = rig.launch(drive("vda", node("n", file, "qcow2")));
    domain.transaction(List.of(new AddBitmap("vda", bitmap, GRANULE, true)));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write((long) granule * GRANULE, ByteBuffer.wrap(bytes(GRANULE, 1)));
    }
    domain.stop();
  }

  private static NodeSpec over(Path high, Path low) {
    return node("high", high, "qcow2", base("low", low, "qcow2"));
  }

  private void breakBitmap(Path file) throws BlockException {
    rig.fill(file, "qcow2", 3 * GRANULE, bytes(GRANULE, 9)); // nobody follows this write
  }

  @Test
  void thatHaveAPartNobodyCanTrustAreRefusedAndStayBehind() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    breakBitmap(low);
    Path high = rig.create("high", "qcow2", low.toString(), "qcow2");
    record(high, "c1", 1);
    Path copy = rig.create("copy", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", over(high, low)));
    assertThat(domain.bitmaps("vda")).singleElement().matches(BitmapState::inconsistent);
    refuses(
        () ->
            domain.transaction(
                List.of(
                    new AddBitmap("vda", "t", GRANULE, false),
                    new MergeBitmaps("vda", "t", List.of("c1")))),
        Kind.INCONSISTENT_BITMAP,
        "c1");
    domain.addNode(node("copy", copy, "qcow2"));
    domain.startMirror(new MirrorSpec("copy", "vda", "copy", false, true, 0, 0, 0, false));
    pivot(domain, "copy");
    assertThat(domain.bitmaps("vda")).as("of the copy").isEmpty();
    domain.stop();
    assertThat(rig.images.inspect(high, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> !stored.inconsistent());
  }

  private void pivot(RunningDomain domain, String job) throws IOException {
    rig.statuses.await(job, DriverJobStatus.READY);
    domain.completeJob(job);
    rig.statuses.await(job, DriverJobStatus.PENDING);
    domain.finalizeJob(job);
    rig.statuses.await(job, DriverJobStatus.CONCLUDED);
    domain.dismissJob(job);
  }

  /// The overlay was made without a daemon, so it has no bitmaps.
  @Test
  void ofTheBaseGoOnWhenTheDriveComesDownToIt() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    Path high = rig.create("high", "qcow2", low.toString(), "qcow2");
    RunningDomain domain = rig.launch(drive("vda", over(high, low)));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(GRANULE, ByteBuffer.wrap(bytes(GRANULE, 2)));
      assertThat(domain.bitmaps("vda")).isEmpty();
      domain.startCommit(new CommitSpec("job", "vda", "high", "low", Optional.empty(), 0));
      pivot(domain, "job");
      guest.write(2 * GRANULE, ByteBuffer.wrap(bytes(GRANULE, 3)));
    }
    assertThat(domain.bitmaps("vda"))
        .containsExactly(new BitmapState("c1", GRANULE, 3 * GRANULE, true, true, false));
    domain.stop();
    assertThat(rig.images.inspect(low, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> !stored.inconsistent());
  }

  /// The middle image has none, so that the parts beneath it are out of reach until it is gone.
  @Test
  void areWholeAgainWhenTheImageWithoutThemIsCommitted() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    Path middle = rig.create("middle", "qcow2", low.toString(), "qcow2");
    rig.fill(middle, "qcow2", GRANULE, bytes(GRANULE, 5));
    Path high = rig.create("high", "qcow2", middle.toString(), "qcow2");
    record(high, "c1", 2);
    RunningDomain domain =
        rig.launch(
            drive(
                "vda",
                node(
                    "high",
                    high,
                    "qcow2",
                    new NodeSpec(
                        "middle", middle, "qcow2", true, Optional.of(base("low", low, "qcow2"))))));
    assertThat(domain.bitmaps("vda")).singleElement().matches(BitmapState::inconsistent);
    domain.startCommit(new CommitSpec("job", "vda", "middle", "low", Optional.empty(), 0));
    rig.statuses.await("job", DriverJobStatus.PENDING);
    domain.finalizeJob("job");
    rig.statuses.await("job", DriverJobStatus.CONCLUDED);
    domain.dismissJob("job");
    assertThat(domain.bitmaps("vda"))
        .containsExactly(new BitmapState("c1", GRANULE, 3 * GRANULE, true, true, false));
    domain.stop();
  }

  /// What it takes away beneath is what would have to be trusted.
  @Test
  void thatHaveAPartNobodyCanTrustAreNotTrustedAfterAPull() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    breakBitmap(low);
    Path high = rig.create("high", "qcow2", low.toString(), "qcow2");
    record(high, "c1", 1);
    RunningDomain domain = rig.launch(drive("vda", over(high, low)));
    domain.startStream(new StreamSpec("job", "vda", Optional.empty(), Optional.empty(), 0));
    rig.statuses.await("job", DriverJobStatus.PENDING);
    domain.finalizeJob("job");
    rig.statuses.await("job", DriverJobStatus.CONCLUDED);
    domain.dismissJob("job");
    assertThat(domain.bitmaps("vda")).singleElement().matches(BitmapState::inconsistent);
    domain.stop();
    RunningDomain again = rig.launch(drive("vda", node("high", high, "qcow2")));
    assertThat(again.bitmaps("vda")).as("missing is refused as well").isEmpty();
    again.stop();
  }

  @Test
  void ofACopysOwnRecordWhatIsCopied() throws Exception {
    Path source = rig.create("source", "qcow2");
    Path copy = rig.create("copy", "qcow2");
    record(copy, "z", 0);
    RunningDomain domain = rig.launch(drive("vda", node("n1", source, "qcow2")));
    domain.addNode(node("n2", copy, "qcow2"));
    domain.startMirror(new MirrorSpec("job", "vda", "n2", false, false, 0, 0, 0, false));
    rig.statuses.await("job", DriverJobStatus.READY);
    domain.cancelJob("job");
    rig.statuses.await("job", DriverJobStatus.CONCLUDED);
    domain.dismissJob("job");
    domain.removeNode("n2");
    domain.stop();
    try (FormatNode image = rig.open(copy, "qcow2")) {
      assertThat(image.bitmapStore().orElseThrow().load("z").dirtyBytes()).isEqualTo(SIZE);
    }
  }

  @Test
  void ofABaseAreStoredWhenTheDomainStopsDuringACommit() throws Exception {
    Path low = rig.create("low", "qcow2");
    record(low, "c1", 0);
    Path high = rig.create("high", "qcow2", low.toString(), "qcow2");
    rig.fill(high, "qcow2", 5 * GRANULE, bytes(GRANULE, 5));
    RunningDomain domain = rig.launch(drive("vda", over(high, low)));
    domain.startCommit(new CommitSpec("job", "vda", "high", "low", Optional.empty(), 0));
    rig.statuses.await("job", DriverJobStatus.READY);
    assertThat(rig.images.inspect(low, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> stored.inconsistent());
    domain.stop();
    try (FormatNode image = rig.open(low, "qcow2")) {
      assertThat(image.bitmapStore().orElseThrow().load("c1").dirtyBytes()).isEqualTo(2 * GRANULE);
    }
  }
}
