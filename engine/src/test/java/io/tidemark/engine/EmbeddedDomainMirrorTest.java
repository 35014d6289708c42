// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.base;
import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EmbeddedDomainMirrorTest {
  private static final String JOB = "copy-vda-libvirt-1-format";

  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  @Test
  void pivotsUnderAWriterWithoutLosingAWrite() throws Exception {
    Path top = rig.create("top.qcow2", "qcow2");
    Path copy = rig.create("copy.qcow2", "qcow2");
    var model = new ModelDisk(SIZE);
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      Workload.random(1).run(guest, model, 100);
      try (var writer = new GuestWriter(guest, model, 2)) {
        domain.addNode(node("n2", copy, "qcow2"));
        domain.startMirror(mirror("n2", false));
        rig.statuses.await(JOB, DriverJobStatus.READY);
        writer.awaitRequests(50);
        domain.completeJob(JOB);
        rig.statuses.await(JOB, DriverJobStatus.PENDING);
        domain.finalizeJob(JOB);
        writer.awaitRequests(50);
        domain.dismissJob(JOB);
        domain.removeNode("n1");
        writer.awaitRequests(50);
      }
      model.holdsExactly(guest);
    }
    assertThat(domain.jobs()).isEmpty();
    domain.stop();
    assertThat(rig.statuses.of(JOB))
        .containsSubsequence(
            JOB + " RUNNING",
            JOB + " READY",
            JOB + " WAITING",
            JOB + " PENDING",
            JOB + " CONCLUDED",
            JOB + " NULL");
    rig.requireHolds(copy, "qcow2", model);
  }

  @Test
  void sharesTheBackingNodeOfAShallowCopy() throws Exception {
    Path base = rig.create("base.raw", "raw");
    rig.fill(base, "raw", 0, bytes(1 << 20, 9));
    Path top = rig.create("top.qcow2", "qcow2", "base.raw", "raw");
    Path copy = rig.create("copy.qcow2", "qcow2", "base.raw", "raw");
    ModelDisk model = rig.content(top, "qcow2");
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", top, "qcow2", base("n2", base, "raw"))));
    try (NbdClient guest = rig.guest("vda")) {
      Workload.random(3).run(guest, model, 50);
      domain.addNode(node("n3", copy, "qcow2", base("n2", base, "raw")));
      domain.startMirror(mirror("n3", true));
      pivot(domain);
      domain.removeNode("n1");
      model.holdsExactly(guest);
      Workload.random(4).run(guest, model, 50);
      refuses(() -> domain.removeNode("n2"), Kind.GENERIC, "node n2 is in use");
    }
    domain.stop();
    rig.requireHolds(copy, "qcow2", model);
    assertThat(rig.images.sizes(copy, "qcow2").physical()).isLessThan(SIZE + (1 << 20));
  }

  @Test
  void leavesACopyOfOneInstantWhenAReadyCopyIsCancelled() throws Exception {
    Path top = rig.create("top.qcow2", "qcow2");
    Path copy = rig.create("copy.raw", "raw");
    var model = new ModelDisk(SIZE);
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      Workload.random(5).run(guest, model, 100);
      domain.addNode(node("n2", copy, "raw"));
      domain.startMirror(mirror("n2", false));
      rig.statuses.await(JOB, DriverJobStatus.READY);
      Workload.random(6).run(guest, model, 20);
      domain.cancelJob(JOB);
      rig.statuses.await(JOB, DriverJobStatus.CONCLUDED);
      JobState state = domain.jobs().getFirst();
      assertThat(state.cancelled()).isTrue();
      assertThat(state.error()).isEmpty();
      domain.removeNode("n2");
      rig.requireHolds(copy, "raw", model);
      Workload.random(7).run(guest, model, 20);
    }
    domain.stop();
    rig.requireHolds(top, "qcow2", model);
  }

  @Test
  void refusesVerbsThatDoNotFit() throws Exception {
    Path top = rig.create("top.raw", "raw");
    rig.fill(top, "raw", 0, bytes((int) SIZE, 1));
    Path copy = rig.create("copy.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "raw")));
    domain.addNode(node("n2", copy, "qcow2"));
    domain.startMirror(
        new MirrorSpec(JOB, "vda", "n2", false, true, 0, 1, 1 << 16, false)); // 1 byte a second

    refuses(() -> domain.completeJob(JOB), Kind.JOB_STATE, "cannot complete while running");
    refuses(() -> domain.finalizeJob(JOB), Kind.JOB_STATE, "cannot finalize while running");
    refuses(() -> domain.dismissJob(JOB), Kind.JOB_STATE, "cannot dismiss while running");
    refuses(() -> domain.completeJob("none"), Kind.NOT_FOUND, "job none is not there");
    refuses(() -> domain.removeNode("n2"), Kind.GENERIC, "node n2 is in use by job " + JOB);
    refuses(() -> domain.removeNode("n1"), Kind.GENERIC, "node n1 is in use");
    refuses(() -> domain.startMirror(mirror("n2", false)), Kind.GENERIC, "is there already");

    assertThat(domain.jobs().getFirst().status()).isEqualTo(DriverJobStatus.RUNNING);
    domain.setJobSpeed(JOB, 0);
    rig.statuses.await(JOB, DriverJobStatus.READY);
    domain.stop();
  }

  @Test
  void refusesATargetOfAnotherSizeAndOneInUse() throws Exception {
    Path top = rig.create("top.raw", "raw");
    rig.images.create(rig.file("small.raw"), "raw", SIZE / 2, java.util.Optional.empty());
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "raw")));
    domain.addNode(node("n2", rig.file("small.raw"), "raw"));

    refuses(
        () -> domain.startMirror(mirror("n2", false)),
        Kind.GENERIC,
        "Source and target image have different sizes");
    refuses(() -> domain.startMirror(mirror("n1", false)), Kind.GENERIC, "node n1 is in use");
    refuses(() -> domain.addNode(node("n3", top, "raw")), Kind.IMAGE_BUSY, "top.raw");
    assertThat(domain.jobs()).isEmpty();
    domain.stop();
  }

  @Test
  void takesPersistentBitmapsToTheNewImage() throws Exception {
    Path top = rig.create("top.qcow2", "qcow2");
    Path copy = rig.create("copy.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    BitmapState atPivot;
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(65536, ByteBuffer.allocate(200_000));
      domain.addNode(node("n2", copy, "qcow2"));
      domain.startMirror(mirror("n2", false));
      atPivot = domain.bitmaps("vda").getFirst();
      pivot(domain);
      domain.removeNode("n1");
      guest.write(0, ByteBuffer.allocate((int) SIZE)); // all of it is dirty
    }
    BitmapState atEnd = domain.bitmaps("vda").getFirst();
    assertThat(rig.images.inspect(copy, "qcow2").bitmaps())
        .as("on disk while running")
        .singleElement()
        .matches(stored -> stored.name().equals("c1") && stored.inconsistent());
    domain.stop();

    RunningDomain old = rig.launch(drive("vda", node("n1", top, "qcow2")));
    assertThat(old.bitmaps("vda")).as("in the image that was left").containsExactly(atPivot);
    old.stop();
    RunningDomain again = rig.launch(drive("vda", node("n1", copy, "qcow2")));
    assertThat(again.bitmaps("vda")).containsExactly(atEnd);
    assertThat(atEnd.dirtyBytes()).isEqualTo(SIZE);
    again.stop();
  }

  @Test
  void dropsPersistentBitmapsWhenTheNewImageIsRaw() throws Exception {
    Path top = rig.create("top.qcow2", "qcow2");
    Path copy = rig.create("copy.raw", "raw");
    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    domain.transaction(
        List.of(
            new AddBitmap("vda", "c1", 65536, true), new AddBitmap("vda", "here", 65536, false)));
    domain.addNode(node("n2", copy, "raw"));
    domain.startMirror(mirror("n2", false));
    pivot(domain);

    assertThat(domain.bitmaps("vda")).extracting(BitmapState::name).containsExactly("here");
    refuses(
        () -> domain.transaction(List.of(new AddBitmap("vda", "c2", 65536, true))),
        Kind.UNSUPPORTED,
        "cannot keep bitmaps");
    domain.removeNode("n1");
    domain.stop();
    assertThat(rig.images.inspect(top, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> stored.name().equals("c1") && !stored.inconsistent());
  }

  @Test
  void bitmapsOfAnImageThatAJobWritesAreInUseUntilItEnds() throws Exception {
    Path top = rig.create("top.qcow2", "qcow2");
    Path old = rig.create("old.qcow2", "qcow2");
    RunningDomain former = rig.launch(drive("vda", node("n1", old, "qcow2")));
    former.transaction(List.of(new AddBitmap("vda", "stale", 65536, true)));
    former.stop();
    assertThat(rig.images.inspect(old, "qcow2").bitmaps().getFirst().inconsistent()).isFalse();

    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    domain.addNode(node("n2", old, "qcow2"));
    domain.startMirror(mirror("n2", false));
    rig.statuses.await(JOB, DriverJobStatus.READY);
    assertThat(rig.images.inspect(old, "qcow2").bitmaps().getFirst().inconsistent()).isTrue();
    domain.stop();

    assertThat(rig.images.inspect(old, "qcow2").bitmaps().getFirst().inconsistent()).isFalse();
  }

  private void pivot(RunningDomain domain) throws IOException {
    rig.statuses.await(JOB, DriverJobStatus.READY);
    domain.completeJob(JOB);
    rig.statuses.await(JOB, DriverJobStatus.PENDING);
    domain.finalizeJob(JOB);
    domain.dismissJob(JOB);
  }

  private static MirrorSpec mirror(String node, boolean shallow) {
    return new MirrorSpec(JOB, "vda", node, shallow, true, 0, 0, 0, false);
  }
}
