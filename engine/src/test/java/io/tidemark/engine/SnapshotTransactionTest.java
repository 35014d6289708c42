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
import io.tidemark.domain.spi.ImageService.StoredBitmap;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.RemoveBitmap;
import io.tidemark.domain.spi.TransactionAction.Snapshot;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SnapshotTransactionTest {
  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  @Test
  void keepsTwoDisksAsTheyWereAtOneInstantWhileTheirGuestsWriteOn() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path vdb = rig.create("b.raw", "raw");
    Path overA = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    Path overB = rig.create("b.snap", "qcow2", vdb.toString(), "raw");
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "qcow2")), drive("vdb", node("n2", vdb, "raw")));
    var modelA = new ModelDisk(SIZE);
    var modelB = new ModelDisk(SIZE);
    ModelDisk[] frozen = new ModelDisk[2];
    try (NbdClient a = rig.guest("vda");
        NbdClient b = rig.guest("vdb");
        var writerA = new GuestWriter(a, modelA, 1);
        var writerB = new GuestWriter(b, modelB, 2)) {
      writerA.awaitRequests(50);
      writerB.awaitRequests(50);
      domain.addNode(node("n3", overA, "qcow2"));
      domain.addNode(node("n4", overB, "qcow2"));
      frozen[0] =
          writerA.between(() ->
              frozen[1] =
                  writerB.between(() ->
                      domain.transaction(
                          List.of(new Snapshot("vda", "n3"), new Snapshot("vdb", "n4")))));
      writerA.awaitRequests(50);
      writerB.awaitRequests(50);
    }
    domain.stop();
    rig.requireHolds(vda, "qcow2", frozen[0]);
    rig.requireHolds(vdb, "raw", frozen[1]);
    rig.requireHolds(overA, "qcow2", modelA);
    rig.requireHolds(overB, "qcow2", modelB);
  }

  @Test
  void bitmapThatGoesLeavesTheImagesBeneathToo() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path over = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    domain.transaction(
        List.of(new AddBitmap("vda", "c1", 65536, true), new AddBitmap("vda", "c2", 65536, true)));
    domain.addNode(node("n2", over, "qcow2"));
    domain.transaction(List.of(new Snapshot("vda", "n2")));
    domain.transaction(List.of(new RemoveBitmap("vda", "c1")));
    assertThat(rig.images.inspect(vda, "qcow2").bitmaps())
        .extracting(StoredBitmap::name)
        .containsExactly("c2");
    domain.stop();
    assertThat(rig.images.inspect(over, "qcow2").bitmaps())
        .extracting(StoredBitmap::name)
        .containsExactly("c2");
  }

  /// As a backup by snapshot does: the image beneath is read while the guest goes on.
  @Test
  void oldTopIsSoundAndReadableByOthersWhileTheGuestGoesOn() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path over = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(65536, 1)));
      domain.addNode(node("n2", over, "qcow2"));
      domain.transaction(List.of(new Snapshot("vda", "n2")));
      guest.write(0, ByteBuffer.wrap(bytes(65536, 2)));
      assertThat(rig.content(vda, "qcow2").read(0, 65536)).isEqualTo(bytes(65536, 1));
      ByteBuffer now = ByteBuffer.allocate(65536);
      guest.read(0, now);
      assertThat(now.array()).isEqualTo(bytes(65536, 2));
    }
    domain.stop();
  }

  @Test
  void takesBitmapsAlongToTheOverlay() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path over = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(65536, 1)));
      domain.addNode(node("n2", over, "qcow2"));
      domain.transaction(List.of(new Snapshot("vda", "n2")));
      guest.write(1 << 20, ByteBuffer.wrap(bytes(65536, 2)));
      assertThat(domain.bitmaps("vda"))
          .extracting(BitmapState::name, BitmapState::dirtyBytes, BitmapState::inconsistent)
          .containsExactly(org.assertj.core.groups.Tuple.tuple("c1", 131072L, false));
    }
    domain.stop();
    RunningDomain beneath = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    assertThat(beneath.bitmaps("vda"))
        .as("as it was when the drive left the image")
        .extracting(BitmapState::dirtyBytes, BitmapState::inconsistent)
        .containsExactly(org.assertj.core.groups.Tuple.tuple(65536L, false));
    beneath.stop();
    assertThat(rig.images.inspect(over, "qcow2").bitmaps())
        .singleElement()
        .satisfies(bitmap -> assertThat(bitmap.inconsistent()).isFalse());
    RunningDomain again =
        rig.launch(drive("vda", node("n1", over, "qcow2", base("n2", vda, "qcow2"))));
    assertThat(again.bitmaps("vda")).extracting(BitmapState::dirtyBytes).containsExactly(131072L);
    again.stop();
  }

  @Test
  void isTakenOfASuspendedGuestWhichGoesOnInTheOverlay() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path over = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    domain.suspend();
    domain.addNode(node("n2", over, "qcow2"));
    domain.transaction(List.of(new Snapshot("vda", "n2")));
    domain.resume();
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(512, 7)));
    }
    domain.stop();
    rig.requireHolds(vda, "qcow2", new ModelDisk(SIZE));
    assertThat(rig.content(over, "qcow2").read(0, 512)).isEqualTo(bytes(512, 7));
  }

  @Test
  void refusesWhatCannotBeAnOverlayAndChangesNothing() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path vdb = rig.create("b.qcow2", "qcow2");
    Path over = rig.create("a.snap", "qcow2", vda.toString(), "qcow2");
    Path small = rig.file("small.qcow2");
    rig.images.create(small, "qcow2", SIZE / 2, java.util.Optional.empty());
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "qcow2")), drive("vdb", node("n2", vdb, "qcow2")));
    domain.addNode(node("n3", over, "qcow2"));
    domain.addNode(node("n4", small, "qcow2"));
    refuses(
        () -> domain.transaction(List.of(new Snapshot("vda", "n4"))),
        Kind.GENERIC,
        "an overlay of");
    refuses(() -> domain.transaction(List.of(new Snapshot("vda", "n2"))), Kind.GENERIC, "in use");
    refuses(
        () -> domain.transaction(List.of(new Snapshot("vda", "n3"), new Snapshot("vdb", "n3"))),
        Kind.GENERIC,
        "in use");
    refuses(() -> domain.transaction(List.of(new Snapshot("vda", "nope"))), Kind.NOT_FOUND, "nope");
    domain.transaction(List.of(new AddBitmap("vda", "b", 65536, false)));
    refuses(
        () -> domain.transaction(List.of(new RemoveBitmap("vda", "b"), new Snapshot("vda", "n3"))),
        Kind.GENERIC,
        "no other action");
    domain.startMirror(new MirrorSpec("job", "vdb", "n3", false, true, 0, 0, 0, false));
    refuses(
        () -> domain.transaction(List.of(new Snapshot("vdb", "n4"))), Kind.GENERIC, "by job job");
    domain.cancelJob("job");
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(512, 7)));
    }
    domain.stop();
    assertThat(rig.content(vda, "qcow2").read(0, 512)).isEqualTo(bytes(512, 7));
  }
}
