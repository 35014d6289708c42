// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.ImageService.StoredBitmap;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.MergeBitmaps;
import io.tidemark.domain.spi.TransactionAction.RemoveBitmap;
import io.tidemark.domain.spi.TransactionAction.StartBackup;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TransactionTest {
  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  @Test
  void backsUpTwoDrivesAsTheyWereAtOneInstantAndThenTheDifference() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path vdb = rig.create("b.qcow2", "qcow2");
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "qcow2")), drive("vdb", node("n2", vdb, "qcow2")));
    var modelA = new ModelDisk(SIZE);
    var modelB = new ModelDisk(SIZE);
    Path fullA = rig.create("full-a.qcow2", "qcow2");
    Path fullB = rig.create("full-b.raw", "raw");
    Path incrementA = rig.create("inc-a.qcow2", "qcow2", "full-a.qcow2", "qcow2");
    try (NbdClient a = rig.guest("vda");
        NbdClient b = rig.guest("vdb");
        var writerA = new GuestWriter(a, modelA, 1);
        var writerB = new GuestWriter(b, modelB, 2)) {
      writerA.awaitRequests(50);
      writerB.awaitRequests(50);
      domain.addNode(node("n3", fullA, "qcow2"));
      domain.addNode(node("n4", fullB, "raw"));
      ModelDisk[] atInstant = new ModelDisk[2];
      atInstant[0] =
          writerA.between(() ->
              atInstant[1] =
                  writerB.between(() ->
                      domain.transaction(
                          List.of(
                              new AddBitmap("vda", "c1", 65536, true),
                              new AddBitmap("vdb", "c1", 65536, true),
                              backup("vda", "b1", "n3", Optional.empty()),
                              backup("vdb", "b2", "n4", Optional.empty())))));
      conclude(domain, "b1", "n3");
      conclude(domain, "b2", "n4");
      rig.requireHolds(fullA, "qcow2", atInstant[0]);
      rig.requireHolds(fullB, "raw", atInstant[1]);

      writerA.awaitRequests(50);
      domain.addNode(node("n5", incrementA, "qcow2"));
      ModelDisk atSecond =
          writerA.between(() ->
              domain.transaction(
                  List.of(
                      new AddBitmap("vda", "backup-vda", 65536, false),
                      new MergeBitmaps("vda", "backup-vda", List.of("c1")),
                      new AddBitmap("vda", "c2", 65536, true),
                      backup("vda", "b3", "n5", Optional.of("backup-vda")))));
      conclude(domain, "b3", "n5");
      domain.transaction(List.of(new RemoveBitmap("vda", "backup-vda")));
      rig.requireHolds(incrementA, "qcow2", atSecond);
    }
    assertThat(domain.bitmaps("vda"))
        .extracting(BitmapState::name)
        .containsExactlyInAnyOrder("c1", "c2");
    domain.stop();
    try (var left = Files.list(rig.config.scratchDir())) {
      assertThat(left).isEmpty();
    }
  }

  @Test
  void changesNothingWhenOneActionIsRefused() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path vdb = rig.create("b.raw", "raw");
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "qcow2")), drive("vdb", node("n2", vdb, "raw")));
    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    List<BitmapState> before = domain.bitmaps("vda");
    List<StoredBitmap> stored = rig.images.inspect(vda, "qcow2").bitmaps();

    AddBitmap good = new AddBitmap("vda", "c2", 65536, true);
    RemoveBitmap goodToo = new RemoveBitmap("vda", "c1");
    refused(domain, Kind.UNSUPPORTED, "cannot keep", good, new AddBitmap("vdb", "c2", 65536, true));
    refused(
        domain,
        Kind.GENERIC,
        "Bitmap already exists: c1",
        good,
        new AddBitmap("vda", "c1", 65536, false));
    refused(domain, Kind.GENERIC, "Bitmap already exists: c2", good, good);
    refused(domain, Kind.NOT_FOUND, "none", goodToo, new RemoveBitmap("vda", "none"));
    refused(
        domain, Kind.NOT_FOUND, "c1", good, goodToo, new MergeBitmaps("vda", "c2", List.of("c1")));
    refused(domain, Kind.NOT_FOUND, "vdz", good, new AddBitmap("vdz", "c1", 65536, false));
    refused(domain, Kind.NOT_FOUND, "node n9", good, backup("vda", "b1", "n9", Optional.empty()));
    refused(domain, Kind.GENERIC, "granularity 1000", good, new AddBitmap("vda", "c3", 1000, true));
    refused(domain, Kind.GENERIC, "in use", good, backup("vda", "b1", "n2", Optional.empty()));

    assertThat(domain.bitmaps("vda")).isEqualTo(before);
    assertThat(rig.images.inspect(vda, "qcow2").bitmaps()).isEqualTo(stored);
    assertThat(domain.jobs()).isEmpty();
    domain.stop();
  }

  @Test
  void remembersANewPersistentBitmapOnDiskBeforeItIsReported() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));

    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    assertThat(rig.images.inspect(vda, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> stored.name().equals("c1") && stored.inconsistent());

    domain.transaction(List.of(new RemoveBitmap("vda", "c1")));
    assertThat(rig.images.inspect(vda, "qcow2").bitmaps()).isEmpty();
    domain.stop();
  }

  @Test
  void recordsFromTheInstantOnAndMergesWhatWasRecorded() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(512, 1)));
      domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
      guest.write(65536, ByteBuffer.wrap(bytes(512, 1)));
      domain.transaction(List.of(new AddBitmap("vda", "c2", 65536, false)));
      guest.write(131072, ByteBuffer.wrap(bytes(512, 1)));
    }
    assertThat(dirty(domain, "c1")).isEqualTo(131072);
    assertThat(dirty(domain, "c2")).isEqualTo(65536);

    domain.transaction(
        List.of(
            new AddBitmap("vda", "both", 131072, false),
            new MergeBitmaps("vda", "both", List.of("c1", "c2"))));
    assertThat(dirty(domain, "both")).isEqualTo(262144);
    domain.stop();
  }

  @Test
  void endsTheWholeGroupWhenOneIsCancelled() throws Exception {
    Path vda = rig.create("a.raw", "raw");
    Path vdb = rig.create("b.raw", "raw");
    rig.fill(vda, "raw", 0, bytes((int) SIZE, 1));
    rig.fill(vdb, "raw", 0, bytes((int) SIZE, 2));
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "raw")), drive("vdb", node("n2", vdb, "raw")));
    domain.addNode(node("n3", rig.create("t1.qcow2", "qcow2"), "qcow2"));
    domain.addNode(node("n4", rig.create("t2.qcow2", "qcow2"), "qcow2"));
    domain.transaction(
        List.of(
            new StartBackup("vda", "b1", "n3", Optional.empty(), 1),
            new StartBackup("vdb", "b2", "n4", Optional.empty(), 1)));
    refuses(() -> domain.removeNode("n3"), Kind.GENERIC, "in use by job b1");

    domain.cancelJob("b1");
    rig.statuses.await("b1", DriverJobStatus.CONCLUDED);
    rig.statuses.await("b2", DriverJobStatus.CONCLUDED);

    assertThat(domain.jobs()).allMatch(JobState::cancelled);
    try (NbdClient guest = rig.guest("vda")) {
      Workload.random(3).run(guest, ModelDisk.of(guest), 20);
    }
    domain.stop();
  }

  private void refused(RunningDomain domain, Kind kind, String text, TransactionAction... actions) {
    refuses(() -> domain.transaction(List.of(actions)), kind, text);
  }

  private static long dirty(RunningDomain domain, String bitmap) throws IOException {
    return domain.bitmaps("vda").stream()
        .filter(state -> state.name().equals(bitmap))
        .findFirst()
        .orElseThrow()
        .dirtyBytes();
  }

  private void conclude(RunningDomain domain, String job, String node) throws IOException {
    rig.statuses.await(job, DriverJobStatus.CONCLUDED);
    JobState state =
        domain.jobs().stream().filter(j -> j.id().equals(job)).findFirst().orElseThrow();
    assertThat(state.error()).isEmpty();
    assertThat(state.cancelled()).isFalse();
    domain.dismissJob(job);
    domain.removeNode(node);
  }

  private static StartBackup backup(
      String target, String job, String node, Optional<String> bitmap) {
    return new StartBackup(target, job, node, bitmap, 0);
  }
}
