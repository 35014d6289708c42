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
import io.tidemark.block.TransportException;
import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.MergeBitmaps;
import io.tidemark.domain.spi.TransactionAction.RemoveBitmap;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/// What is true after SIGKILL of the engine's process under a writing guest.
class CrashTest {
  @TempDir private Path dir;

  @ParameterizedTest
  @EnumSource(mode = EnumSource.Mode.EXCLUDE, names = "COPYING_TO_THE_END")
  void keepsEveryAcknowledgedWriteAndTrustsNoBitmap(EngineProcess.Busy busy) throws IOException {
    long seed = ThreadLocalRandom.current().nextLong();
    System.out.println("crash " + busy + " with seed " + seed);
    var rig = new Rig(dir);
    Path vda = rig.create("vda.qcow2", "qcow2");
    var model = new ModelDisk(SIZE);
    Workload guestWork = Workload.random(seed).maxLength(128 * 1024);
    try (EngineProcess engine = EngineProcess.start(dir, busy);
        NbdClient guest = rig.guest("vda")) {
      guestWork.run(guest, model, 300);
      Thread killer = Thread.ofPlatform().start(engine::kill);
      BlockException end = guestWork.runUntilCrash(guest, model);
      assertThat(end).isInstanceOf(TransportException.class);
      join(killer);
    }
    assertThat(scratchFiles(rig)).isEmpty();

    RunningDomain domain =
        rig.driver.reattach(rig.spec(drive("vda", node("n1", vda, "qcow2"))), rig.statuses);
    try (NbdClient guest = rig.guest("vda")) {
      model.holdsAcknowledged(guest);
      assertThat(domain.bitmaps("vda"))
          .containsExactly(new BitmapState("c1", 65536, 0, true, true, true));
      refuses(
          () ->
              domain.transaction(
                  List.of(
                      new AddBitmap("vda", "backup-vda", 65536, false),
                      new MergeBitmaps("vda", "backup-vda", List.of("c1")))),
          Kind.INCONSISTENT_BITMAP,
          "c1");
      ModelDisk now = ModelDisk.of(guest);
      Workload.random(seed + 1).run(guest, now, 50);
      domain.transaction(
          List.of(new RemoveBitmap("vda", "c1"), new AddBitmap("vda", "c1", 65536, true)));
      Workload.random(seed + 2).run(guest, now, 50);
      domain.stop();
      rig.requireHolds(vda, "qcow2", now);
    }
    assertThat(rig.images.inspect(vda, "qcow2").bitmaps())
        .singleElement()
        .matches(stored -> stored.name().equals("c1") && !stored.inconsistent());
  }

  @Test
  void isAPauseAndNoErrorForAGuestThatReconnects() throws IOException {
    var rig = new Rig(dir);
    Path vda = rig.create("vda.qcow2", "qcow2");
    var model = new ModelDisk(SIZE);
    var reconnecting = ClientOptions.defaults().withReconnectDelay(Duration.ofSeconds(30));
    RunningDomain domain;
    try (EngineProcess engine = EngineProcess.start(dir, EngineProcess.Busy.IDLE);
        NbdClient guest = rig.guest("vda", reconnecting);
        var writer = new GuestWriter(guest, model, 1)) {
      writer.awaitRequests(100);
      engine.kill();
      domain = rig.driver.reattach(rig.spec(drive("vda", node("n1", vda, "qcow2"))), rig.statuses);
      writer.awaitRequests(100);
    }
    domain.stop();
    rig.requireHolds(vda, "qcow2", model);
  }

  /// A snapshot was recorded, and the process died before the drive stood on its overlay.
  @Test
  void oldTopHoldsInItsFileWhatWasAcknowledgedWhenItComesUpBeneathAnOverlay() throws IOException {
    var rig = new Rig(dir);
    Path vda = rig.create("vda.qcow2", "qcow2");
    try (EngineProcess engine = EngineProcess.start(dir, EngineProcess.Busy.IDLE);
        NbdClient guest = rig.guest("vda")) {
      guest.write(65536, ByteBuffer.wrap(bytes(65536, 1))); // acknowledged, not flushed
      engine.kill();
    }
    Path over = rig.create("over.qcow2", "qcow2", vda.toString(), "qcow2");
    RunningDomain domain =
        rig.driver.reattach(
            rig.spec(drive("vda", node("n2", over, "qcow2", base("n1", vda, "qcow2")))),
            rig.statuses);
    assertThat(rig.content(vda, "qcow2").read(65536, 65536)).isEqualTo(bytes(65536, 1));
    domain.stop();
  }

  private static List<Path> scratchFiles(Rig rig) throws IOException {
    if (Files.notExists(rig.config.scratchDir())) {
      return List.of();
    }
    try (Stream<Path> files = Files.list(rig.config.scratchDir())) {
      return files.toList();
    }
  }

  private static void join(Thread thread) {
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }
}
