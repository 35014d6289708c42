// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Pull and commit of intermediate layers: what the guest reads stays what it was, whatever it
/// writes meanwhile, and wherever the job ends.
class LayerJobTest {
  private static final int SIZE = (2 << 20) + 3 * MemoryNode.UNIT;
  private static final Duration LONG = Duration.ofSeconds(60);

  private static BackingReference reference(String name) {
    return new BackingReference(name, Optional.of("memory"));
  }

  /// Base first. Layers have sizes of their own, some shorter than what lies beneath.
  private static List<MemoryNode> chain(long seed, int layers) throws Exception {
    var random = new Random(seed);
    List<MemoryNode> chain = new ArrayList<>();
    for (int n = 0; n < layers; n++) {
      boolean top = n == layers - 1;
      int size = top ? SIZE : SIZE - random.nextInt(200) * MemoryNode.UNIT;
      Optional<BlockNode> beneath = n == 0 ? Optional.empty() : Optional.of(chain.getLast());
      var layer = new MemoryNode("layer" + n, size, beneath);
      layer.reference = beneath.map(node -> reference(node.name()));
      layer.readOnly = !top;
      chain.add(layer);
      layer.readOnly = false;
      MirrorJobTest.fill(layer, seed * 31 + n);
    }
    return chain;
  }

  private static StreamJob stream(Drive drive, MemoryNode top, Optional<MemoryNode> base) {
    return new StreamJob(
        new StreamOptions(
            "pull-vda",
            drive,
            top,
            base.map(node -> (BlockNode) node),
            base.map(node -> reference(node.name())),
            0,
            LONG,
            JobClock.SYSTEM));
  }

  private static CommitJob commit(
      Drive drive, MemoryNode overlay, MemoryNode top, MemoryNode base, long bandwidth) {
    return new CommitJob(
        new CommitOptions(
            "commit-vda",
            drive,
            overlay,
            top,
            base,
            reference(base.name()),
            bandwidth,
            LONG,
            JobClock.SYSTEM,
            List.of()));
  }

  @ParameterizedTest
  @Seeds(60)
  void pullUnderWritersThatNeverPauseChangesNothingTheGuestReads(long seed) throws Exception {
    List<MemoryNode> chain = chain(seed, 4);
    var random = new Random(seed);
    Optional<MemoryNode> base =
        random.nextInt(3) == 0 ? Optional.empty() : Optional.of(chain.get(random.nextInt(3)));
    MemoryNode top = chain.getLast();
    List<byte[]> beneath = new ArrayList<>();
    for (MemoryNode layer : chain.subList(0, 3)) {
      beneath.add(layer.content());
    }
    var drive = new Drive("vda", top);
    StreamJob job = stream(drive, top, base);
    try (var writers = new GuestWriters(drive, 3, seed)) {
      writers.awaitOperations(10);
      job.start();
      MirrorJobTest.reaches(job, JobStatus.PENDING);
      byte[] before = top.content();
      job.finalizeJob();
      assertThat(job.status()).isEqualTo(JobStatus.CONCLUDED);
      assertThat(job.error()).isEmpty();
      assertThat(top.backing()).isEqualTo(base);
      assertThat(top.reference.map(BackingReference::name)).isEqualTo(base.map(MemoryNode::name));
      writers.awaitOperations(50);
      writers.stopAndCompare(drive);
      assertThat(before).hasSize(SIZE);
    }
    for (int n = 0; n < 3; n++) {
      assertThat(chain.get(n).content()).as("layer " + n).isEqualTo(beneath.get(n));
    }
  }

  @ParameterizedTest
  @Seeds(60)
  void commitUnderWritersThatNeverPauseChangesNothingTheGuestReads(long seed) throws Exception {
    List<MemoryNode> chain = chain(seed, 5);
    var random = new Random(seed);
    int top = 1 + random.nextInt(3);
    int base = random.nextInt(top);
    // A base shorter than the top would have to grow, which these nodes cannot.
    if (chain.get(base).virtualSize() < chain.get(top).virtualSize()) {
      return;
    }
    byte[] committed = chain.get(top).content();
    MemoryNode overlay = chain.get(top + 1);
    overlay.readOnly = top + 1 < 4;
    boolean wasReadOnly = overlay.readOnly;
    var drive = new Drive("vda", chain.getLast());
    CommitJob job = commit(drive, overlay, chain.get(top), chain.get(base), 0);
    try (var writers = new GuestWriters(drive, 3, seed)) {
      writers.awaitOperations(10);
      job.start();
      MirrorJobTest.reaches(job, JobStatus.PENDING);
      assertThat(overlay.backing()).contains(chain.get(top));
      job.finalizeJob();
      assertThat(overlay.backing()).contains(chain.get(base));
      assertThat(overlay.reference).contains(reference(chain.get(base).name()));
      assertThat(overlay.readOnly).isEqualTo(wasReadOnly);
      writers.awaitOperations(50);
      writers.stopAndCompare(drive);
    }
    byte[] result = chain.get(base).content();
    assertThat(java.util.Arrays.copyOf(result, committed.length)).isEqualTo(committed);
    for (int at = committed.length; at < result.length; at++) {
      assertThat(result[at]).isZero();
    }
  }

  @ParameterizedTest
  @Seeds(20)
  void cancelledAnywhereTheGuestReadsWhatItDid(long seed) throws Exception {
    List<MemoryNode> chain = chain(seed, 4);
    MemoryNode top = chain.getLast();
    var drive = new Drive("vda", top);
    byte[] before = top.content();
    StreamJob job = stream(drive, top, Optional.of(chain.getFirst()));
    var random = new Random(seed);
    long writes = random.nextInt(12);
    top.hook =
        (request, _, _) -> {
          if (request == MemoryNode.Request.WRITE && top.writes.get() > writes) {
            job.cancelQuietly();
          }
        };
    job.start();
    assertThat(job.await(s -> s.over() || s == JobStatus.PENDING, LONG)).isTrue();
    if (job.status() == JobStatus.PENDING) {
      job.cancel();
    }
    MirrorJobTest.reaches(job, JobStatus.CONCLUDED);
    assertThat(job.cancelled()).isTrue();
    assertThat(job.error()).isEmpty();
    assertThat(top.backing()).contains(chain.get(2));
    assertThat(top.reference).contains(reference("layer2"));
    assertThat(top.content()).isEqualTo(before);
    drive.write(0, ByteBuffer.allocate(1)); // the guest is not held
  }

  @Test
  void pullOntoNothingWritesNoZeroes() throws Exception {
    var base = MemoryNode.empty("base", SIZE);
    base.write(0, ByteBuffer.wrap(new byte[] {1}));
    base.writeZeroes(1 << 20, 1 << 19, io.tidemark.block.ZeroMode.MAY_UNMAP);
    var top = new MemoryNode("top", SIZE, Optional.of(base));
    var drive = new Drive("vda", top);
    StreamJob job = stream(drive, top, Optional.empty());
    job.start();
    MirrorJobTest.reaches(job, JobStatus.PENDING);
    job.finalizeJob();
    assertThat(top.zeroes).hasValue(0);
    assertThat(top.state(0)).isEqualTo(Extent.State.DATA);
    assertThat(top.state(1 << 20)).isEqualTo(Extent.State.UNALLOCATED);
    assertThat(top.backing()).isEmpty();
    assertThat(top.reference).isEmpty();
  }

  @Test
  void headerThatCannotBeWrittenLeavesTheOldChain() throws Exception {
    List<MemoryNode> chain = chain(7, 3);
    MemoryNode top = chain.getLast();
    var drive = new Drive("vda", top);
    byte[] before = top.content();
    StreamJob job = stream(drive, top, Optional.empty());
    job.start();
    MirrorJobTest.reaches(job, JobStatus.PENDING);
    top.hook =
        (request, _, _) -> {
          if (request == MemoryNode.Request.HEADER) {
            throw new OutOfSpaceException("top: no space");
          }
        };
    assertThatThrownBy(job::finalizeJob).isInstanceOf(JobStateException.class);
    assertThat(job.error()).containsInstanceOf(OutOfSpaceException.class);
    assertThat(top.backing()).contains(chain.get(1));
    top.hook = (_, _, _) -> {};
    assertThat(top.content()).isEqualTo(before);
    drive.write(0, ByteBuffer.allocate(1)); // the guest is not held
  }

  @Test
  void fullBaseFailsTheCommitAndTheGuestReadsOn() throws Exception {
    List<MemoryNode> chain = chain(11, 4);
    MemoryNode base = MemoryNode.empty("base", SIZE);
    chain.get(1).attachBacking(base);
    var drive = new Drive("vda", chain.getLast());
    byte[] before = chain.getLast().content();
    base.hook =
        (request, _, _) -> {
          if (request == MemoryNode.Request.WRITE && base.writes.get() > 3) {
            throw new OutOfSpaceException("base: no space");
          }
        };
    CommitJob job = commit(drive, chain.get(3), chain.get(2), base, 0);
    job.start();
    MirrorJobTest.reaches(job, JobStatus.CONCLUDED);
    assertThat(job.error()).containsInstanceOf(OutOfSpaceException.class);
    assertThat(chain.get(3).backing()).contains(chain.get(2));
    assertThat(chain.getLast().content()).isEqualTo(before);
  }

  @Test
  void throttleHoldsTheCommitAndLetsItGoWhenItIsLifted() throws Exception {
    List<MemoryNode> chain = chain(13, 4);
    MemoryNode base = MemoryNode.empty("base", SIZE);
    chain.get(1).attachBacking(base);
    MirrorJobTest.fill(chain.get(1), 99);
    var drive = new Drive("vda", chain.getLast());
    CommitJob job = commit(drive, chain.get(3), chain.get(2), base, 1);
    job.start();
    assertThat(job.await(s -> s == JobStatus.PENDING, Duration.ofMillis(300))).isFalse();
    assertThat(job.progress().remaining()).isPositive();
    job.setSpeed(0);
    MirrorJobTest.reaches(job, JobStatus.PENDING);
    assertThat(job.progress().remaining()).isPositive(); // "done" is told at the end only
    job.finalizeJob();
    assertThat(job.progress().remaining()).isZero();
  }

  @Test
  void pausedPullWritesNothing() throws Exception {
    List<MemoryNode> chain = chain(17, 3);
    MemoryNode top = chain.getLast();
    var drive = new Drive("vda", top);
    StreamJob job = stream(drive, top, Optional.empty());
    job.pause();
    job.start();
    assertThat(job.status()).isEqualTo(JobStatus.PAUSED);
    long writes = top.writes.get();
    assertThat(job.await(s -> s == JobStatus.PENDING, Duration.ofMillis(100))).isFalse();
    assertThat(top.writes).hasValue(writes);
    job.resume();
    MirrorJobTest.reaches(job, JobStatus.PENDING);
    job.cancel();
    MirrorJobTest.reaches(job, JobStatus.CONCLUDED);
  }
}
