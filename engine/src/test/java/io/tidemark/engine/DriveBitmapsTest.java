// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.bytes;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.ImageService.StoredBitmap;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.nbd.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DriveBitmapsTest {
  @TempDir private Path dir;
  private Rig rig;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
  }

  @Test
  void areUsableAgainAfterACleanStopAndRecordOn() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain first = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    first.transaction(
        List.of(
            new AddBitmap("vda", "c1", 65536, true), new AddBitmap("vda", "gone", 65536, false)));
    write(0);
    first.stop();
    assertThat(stored(vda)).containsExactly(new StoredBitmap("c1", 65536, false, true));

    RunningDomain second = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    assertThat(second.bitmaps("vda"))
        .containsExactly(new BitmapState("c1", 65536, 65536, true, true, false));
    write(1 << 20);
    second.detach();

    RunningDomain third = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    assertThat(third.bitmaps("vda"))
        .containsExactly(new BitmapState("c1", 65536, 131072, true, true, false));
    third.stop();
  }

  @Test
  void areInUseOnDiskWhileTheDomainRuns() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain first = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    first.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    first.stop();

    RunningDomain second = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    assertThat(stored(vda)).containsExactly(new StoredBitmap("c1", 65536, true, true));
    second.stop();
    assertThat(stored(vda)).containsExactly(new StoredBitmap("c1", 65536, false, true));
  }

  @Test
  void stayUsableWhenAStartFails() throws IOException {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain first = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    first.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    first.stop();

    refuses(
        () ->
            rig.launch(
                drive("vda", node("n1", vda, "qcow2")),
                drive("vdb", node("n2", rig.file("none"), "raw"))),
        Kind.MISSING_FILE,
        "none");

    assertThat(stored(vda)).containsExactly(new StoredBitmap("c1", 65536, false, true));
  }

  private void write(long offset) throws IOException {
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(offset, ByteBuffer.wrap(bytes(512, 1)));
    }
  }

  private List<StoredBitmap> stored(Path image) throws IOException {
    return rig.images.inspect(image, "qcow2").bitmaps();
  }
}
