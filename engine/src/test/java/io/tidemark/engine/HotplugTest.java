// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.ThrottleSpec;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HotplugTest {
  @TempDir private Path dir;
  private Rig rig;
  private RunningDomain domain;

  @BeforeEach
  void launch() throws IOException {
    rig = new Rig(dir);
    domain = rig.launch(drive("vda", node("n1", rig.create("a.qcow2", "qcow2"), "qcow2")));
  }

  @Test
  void diskThatIsPluggedInIsReachedAndKeepsItsBitmapsWhenItIsTakenOut() throws Exception {
    Path file = rig.create("b.qcow2", "qcow2");
    domain.addDrive(drive("vdb", node("n2", file, "qcow2")));
    domain.transaction(List.of(new AddBitmap("vdb", "c1", 65536, true)));
    try (NbdClient guest = rig.guest("vdb")) {
      guest.write(0, ByteBuffer.wrap(bytes(65536, 7)));
      domain.removeDrive("vdb");
    }
    assertThatThrownBy(() -> rig.guest("vdb")).isInstanceOf(IOException.class);
    assertThat(rig.content(file, "qcow2").read(0, 65536)).isEqualTo(bytes(65536, 7));
    assertThat(rig.images.inspect(file, "qcow2").bitmaps())
        .singleElement()
        .satisfies(bitmap -> assertThat(bitmap.inconsistent()).isFalse());
    domain.addDrive(drive("vdb", node("n3", file, "qcow2")));
    assertThat(domain.bitmaps("vdb")).extracting(BitmapState::dirtyBytes).containsExactly(65536L);
    domain.stop();
  }

  @Test
  void diskWithAJobOrOfABusyNameOrFileIsRefused() throws Exception {
    Path file = rig.create("b.qcow2", "qcow2");
    refuses(
        () -> domain.addDrive(drive("vda", node("n2", file, "qcow2"))),
        Kind.GENERIC,
        "there already");
    refuses(
        () -> domain.addDrive(drive("vdb", node("n2", rig.file("a.qcow2"), "qcow2"))),
        Kind.IMAGE_BUSY,
        "a.qcow2");
    domain.addNode(node("n3", file, "qcow2"));
    domain.startMirror(new MirrorSpec("job", "vda", "n3", false, true, 0, 1, 0, false));
    refuses(() -> domain.removeDrive("vda"), Kind.GENERIC, "by job job");
    domain.stop();
  }

  @Test
  void suspendedDomainTakesADiskInHeldAndGivesOneUp() throws Exception {
    Path file = rig.create("b.qcow2", "qcow2");
    domain.suspend();
    domain.addDrive(drive("vdb", node("n2", file, "qcow2")));
    domain.removeDrive("vda");
    domain.resume();
    try (NbdClient guest = rig.guest("vdb")) {
      guest.write(0, ByteBuffer.wrap(bytes(512, 1)));
    }
    domain.stop();
    rig.requireHolds(rig.file("a.qcow2"), "qcow2", new ModelDisk(SIZE));
  }

  @Test
  void throttledGuestIsSlowedAndEndsAtOnce() throws Exception {
    domain.setThrottle(
        "vda",
        Optional.of(
            new ThrottleSpec(
                "",
                Map.of(ThrottleSpec.Kind.WRITE_BYTES, new ThrottleSpec.Limit(1 << 20, 0, 1)),
                0)));
    try (NbdClient guest = rig.guest("vda")) {
      long start = System.nanoTime();
      for (int i = 0; i < 10; i++) {
        guest.write(i * 65536L, ByteBuffer.wrap(bytes(65536, i)));
      }
      long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
      assertThat(millis).isGreaterThan(300); // 640 KiB, of which 164 at once
      domain.setThrottle("vda", Optional.empty());
    }
    domain.stop();
  }

  @Test
  void writeBeyondTheThresholdIsToldOnce() throws Exception {
    domain.setWriteThreshold("vda", 1 << 20);
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(bytes(65536, 1)));
      assertThat(rig.statuses.all()).isEmpty();
      guest.write(1 << 20, ByteBuffer.wrap(bytes(1 << 20, 2)));
      guest.write(2 << 20, ByteBuffer.wrap(bytes(65536, 3)));
    }
    rig.statuses.await("threshold vda 1048576 "); // told by another thread than the writer's
    domain.setWriteThreshold("vda", 0);
    domain.stop();
    assertThat(rig.statuses.all())
        .singleElement()
        .satisfies(told -> assertThat(told).startsWith("threshold vda 1048576 "));
  }
}
