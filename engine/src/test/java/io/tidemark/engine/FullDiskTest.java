// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.bytes;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.OutOfSpaceException;
import io.tidemark.nbd.NbdClient;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What a full disk under source or target does. The engine runs in a process whose files may not
/// grow, which it is told of as EFBIG, one of the errors that mean a full disk.
class FullDiskTest {
  private static final long ROOM = 2 << 20;

  @TempDir private Path dir;

  @Test
  void tellsTheGuestAndServesOnWhenTheSourceIsFull() throws IOException {
    var rig = new Rig(dir);
    Path vda = rig.create("vda.qcow2", "qcow2");
    var model = new ModelDisk(SIZE);
    try (var engine = EngineProcess.startWithFullDisk(dir, EngineProcess.Busy.IDLE, ROOM);
        NbdClient guest = rig.guest("vda")) {
      int failures = Workload.random(1).runThroughFailures(guest, model, 400);
      assertThat(failures).isPositive();
      assertThatThrownBy(() -> guest.write(0, ByteBuffer.wrap(bytes((int) SIZE, 3))))
          .isInstanceOf(OutOfSpaceException.class);
      engine.kill();
    }
    assertThat(rig.images.sizes(vda, "qcow2").physical()).isLessThanOrEqualTo(ROOM);
  }

  @Test
  void failsTheCopyAndNotTheGuestWhenTheTargetIsFull() throws IOException {
    var rig = new Rig(dir);
    Path vda = rig.create("vda.raw", "raw");
    rig.fill(vda, "raw", 0, bytes((int) SIZE, 5));
    ModelDisk model = rig.content(vda, "raw");
    try (var engine =
            EngineProcess.startWithFullDisk(dir, EngineProcess.Busy.COPYING_TO_THE_END, ROOM);
        NbdClient guest = rig.guest("vda")) {
      for (int at = 0; at < ROOM; at += 65536) {
        byte[] written = bytes(65536, at >> 16);
        guest.write(at, ByteBuffer.wrap(written));
        model.write(at, written);
      }
      assertThat(engine.says()).isEqualTo("copy: Optional[OUT_OF_SPACE]");
      model.holdsExactly(guest);
    }
  }
}
