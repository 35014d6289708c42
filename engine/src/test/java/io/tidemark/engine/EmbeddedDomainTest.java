// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.base;
import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EmbeddedDomainTest {
  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  @Test
  void servesAChainAndWritesToItsTopOnly() throws IOException {
    Path base = rig.create("base.raw", "raw");
    rig.fill(base, "raw", 65536, bytes(65536, 7));
    ModelDisk before = rig.content(base, "raw");
    Path top = rig.create("top.qcow2", "qcow2", "base.raw", "raw");
    ModelDisk model = rig.content(top, "qcow2");

    RunningDomain domain =
        rig.launch(drive("vda", node("n1", top, "qcow2", base("n2", base, "raw"))));
    try (NbdClient guest = rig.guest("vda")) {
      assertThat(guest.virtualSize()).isEqualTo(SIZE);
      Workload.random(1).run(guest, model, 200);
      model.holdsExactly(guest);
    }
    assertThat(domain.statistics("vda").writeBytes()).isPositive();
    assertThat(domain.sizes("vda").capacity()).isEqualTo(SIZE);
    domain.stop();

    rig.requireHolds(base, "raw", before);
    rig.requireHolds(top, "qcow2", model);
    assertThat(dir.resolve("run/guest/vm.sock")).doesNotExist();
  }

  @Test
  void opensTheChainOfTheSpecAndNotTheHeaders() throws IOException {
    Path base = rig.create("base.raw", "raw");
    rig.fill(base, "raw", 0, bytes(4096, 7));
    Path top = rig.create("top.qcow2", "qcow2", "base.raw", "raw");

    RunningDomain domain = rig.launch(drive("vda", node("n1", top, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      new ModelDisk(SIZE).holdsExactly(guest);
    } finally {
      domain.stop();
    }
  }

  @Test
  void refusesWritesToAReadOnlyDisk() throws IOException {
    Path image = rig.create("a.raw", "raw");
    RunningDomain domain =
        rig.launch(new DriveSpec("vda", "virtio-disk0", base("n1", image, "raw"), true));
    try (NbdClient guest = rig.guest("vda")) {
      assertThat(guest.readOnly()).isTrue();
      assertThatThrownBy(() -> guest.write(0, ByteBuffer.wrap(bytes(512, 1))))
          .isInstanceOf(BlockException.class);
    } finally {
      domain.stop();
    }
  }

  @Test
  void holdsTheGuestOfADomainStartedPausedUntilItIsResumed() throws Exception {
    Path image = rig.create("a.raw", "raw");
    LaunchSpec spec =
        new LaunchSpec(
            "vm", new UUID(1, 2), 1, List.of(drive("vda", node("n1", image, "raw"))), true);
    RunningDomain domain = rig.driver.launch(spec, rig.statuses);
    try (NbdClient guest = rig.guest("vda")) {
      var wrote = new CountDownLatch(1);
      AtomicReference<@Nullable BlockException> failure = new AtomicReference<>();
      Thread.ofPlatform()
          .start(() -> {
            try {
              guest.write(0, ByteBuffer.wrap(bytes(512, 1)));
            } catch (BlockException e) {
              failure.set(e);
            }
            wrote.countDown();
          });
      assertThat(wrote.await(200, TimeUnit.MILLISECONDS)).isFalse();
      domain.resume();
      assertThat(wrote.await(20, TimeUnit.SECONDS)).isTrue();
      assertThat(failure.get()).isNull();
    } finally {
      domain.stop();
    }
  }

  @Test
  void stopsADomainWhoseSuspendedGuestHasARequestOut() throws Exception {
    Path image = rig.create("a.raw", "raw");
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, "raw")));
    try (NbdClient guest = rig.guest("vda")) {
      domain.suspend();
      domain.suspend();
      var ended = new CountDownLatch(1);
      Thread.ofPlatform()
          .start(() -> {
            try {
              guest.write(0, ByteBuffer.wrap(bytes(512, 1)));
            } catch (BlockException e) {
              ended.countDown();
            }
          });
      domain.stop();
      assertThat(ended.await(20, TimeUnit.SECONDS)).isTrue();
    }
    rig.requireHolds(image, "raw", new ModelDisk(SIZE));
  }

  @Test
  void namesAMissingImageAndLeavesTheOthersUnlocked() throws IOException {
    Path image = rig.create("a.qcow2", "qcow2");

    refuses(
        () ->
            rig.launch(
                drive("vda", node("n1", image, "qcow2")),
                drive("vdb", node("n2", rig.file("none.qcow2"), "qcow2"))),
        Kind.MISSING_FILE,
        rig.file("none.qcow2") + ": no such file");

    assertFree(image, "qcow2");
    assertThat(dir.resolve("run/guest/vm.sock")).doesNotExist();
  }

  @Test
  void tellsAFileThatIsNotItsFormat() throws IOException {
    Path image = Files.write(rig.file("a.qcow2"), new byte[65536]);

    refuses(
        () -> rig.launch(drive("vda", node("n1", image, "qcow2"))), Kind.CORRUPT_IMAGE, "a.qcow2");
    assertFree(image, "raw");
  }

  @Test
  void refusesAnImageThatSomeoneElseWrites() throws IOException {
    Path image = rig.create("a.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, "qcow2")));

    var other = new Rig(dir);
    LaunchSpec second =
        new LaunchSpec(
            "vm2", new UUID(3, 4), 2, List.of(drive("vda", node("n1", image, "qcow2"))), false);
    refuses(() -> other.driver.launch(second, other.statuses), Kind.IMAGE_BUSY, "a.qcow2");

    domain.stop();
    assertFree(image, "qcow2");
  }

  @Test
  void refusesASecondDomainOnALiveSocketAndLeavesItsImageFree() throws IOException {
    Path image = rig.create("a.qcow2", "qcow2");
    Path second = rig.create("b.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, "qcow2")));

    assertThatThrownBy(() -> rig.launch(drive("vda", node("n1", second, "qcow2"))))
        .isInstanceOf(DriverException.class)
        .hasMessageContaining("socket");
    assertFree(second, "qcow2");
    try (NbdClient guest = rig.guest("vda")) {
      guest.flush();
    }
    domain.stop();
  }

  @Test
  void refusesCallsAfterTheEnd() throws IOException {
    Path image = rig.create("a.raw", "raw");
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, "raw")));
    domain.stop();
    domain.stop();

    refuses(() -> domain.suspend(), Kind.GENERIC, "domain vm is stopped");
    refuses(() -> domain.addNode(node("n2", image, "raw")), Kind.GENERIC, "is stopped");
  }

  @Test
  void startsAgainWhereADetachedOneLeftOff() throws IOException {
    Path image = rig.create("a.qcow2", "qcow2");
    var model = new ModelDisk(SIZE);
    RunningDomain first = rig.launch(drive("vda", node("n1", image, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      Workload.random(2).run(guest, model, 100);
    }
    first.detach();

    RunningDomain again =
        rig.driver.reattach(rig.spec(drive("vda", node("n1", image, "qcow2"))), rig.statuses);
    try (NbdClient guest = rig.guest("vda")) {
      model.holdsExactly(guest);
    } finally {
      again.stop();
    }
  }

  private static void assertFree(Path image, String format) throws IOException {
    try (FormatNode node =
        new ImageOpener(ImageOpener.Probing.REFUSED)
            .openLayer(image, format, OpenOptions.readWrite())) {
      assertThat(node.readOnly()).isFalse();
    } catch (ImageBusyException e) {
      throw new AssertionError("still locked", e);
    }
  }
}
