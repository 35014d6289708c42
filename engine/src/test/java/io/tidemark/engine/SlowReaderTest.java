// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.StartView;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.domain.spi.ViewServerSpec.Address;
import io.tidemark.nbd.NbdClient;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// Replies that lie in a socket while the disk changes (rule 9). Half of the disk is asked for,
/// more than a socket holds: so some replies are in the socket, one is under way, the others are to
/// come.
class SlowReaderTest {
  private static final int HALF = (int) (SIZE / 2);
  private static final int PIECE = 256 << 10;
  private static final byte OLD = 0x11;
  private static final byte NEW = 0x22;

  @TempDir private Path dir;

  /// So often the half is asked for: what comes last is read after the change.
  private static final int TIMES = 4;

  private static void askForFirstHalf(SlowReader slow) throws Exception {
    for (int time = 0; time < TIMES; time++) {
      for (int at = 0; at < HALF; at += PIECE) {
        slow.ask(at, PIECE);
      }
    }
  }

  private static ByteBuffer filled(int length, byte with) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, with);
    return ByteBuffer.wrap(bytes);
  }

  /// A discarded cluster's place goes to another part of the disk while replies that were read from
  /// it wait: they never show what is written there then.
  @ParameterizedTest
  @CsvSource({"qcow2, false", "qcow2, true", "raw, false", "raw, true"})
  void aReplyNeverShowsWhatAReusedClusterHoldsForAnotherPlace(String format, boolean chunked)
      throws Exception {
    var rig = new Rig(dir);
    Path image = rig.create("a." + format, format);
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, format)));
    try (NbdClient guest = rig.guest("vda");
        var slow = new SlowReader(dir.resolve("run/guest/vm.sock"), "vda", chunked)) {
      guest.write(0, filled(HALF, OLD));
      askForFirstHalf(slow);
      assertThat(slow.take(PIECE)).as("read before the discard").containsOnly(OLD);
      guest.discard(0, HALF);
      guest.write(HALF, filled(HALF, NEW));
      guest.flush();
      for (int n = 1; n < TIMES * HALF / PIECE; n++) {
        for (byte b : slow.take(PIECE)) {
          assertThat(b).as("a byte of reply %d", n).isIn(OLD, (byte) 0);
        }
      }
    }
    domain.stop();
  }

  /// A frozen view is read into buffers under the range's lock: what the guest writes later shows
  /// in no reply, sent or not.
  @ParameterizedTest
  @CsvSource({"qcow2, false", "qcow2, true", "raw, false", "raw, true"})
  void aFrozenViewNeverShowsALaterWrite(String format, boolean chunked) throws Exception {
    var rig = new Rig(dir);
    Path image = rig.create("a." + format, format);
    RunningDomain domain = rig.launch(drive("vda", node("n1", image, format)));
    Path socket = dir.resolve("pull.sock");
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, filled(HALF, OLD));
      domain.addNode(node("n2", rig.create("scratch", "qcow2"), "qcow2"));
      domain.startViewServer(new ViewServerSpec(new Address.Unix(socket), false));
      domain.transaction(List.of(new StartView("vda", "pull-vda", "n2", Optional.empty())));
      domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty()));
      try (var slow = new SlowReader(socket, "vda", chunked)) {
        askForFirstHalf(slow);
        for (int at = 0; at < HALF; at += PIECE / 2) {
          guest.write(at, filled(PIECE / 2, NEW));
        }
        guest.flush();
        for (int n = 0; n < TIMES * HALF / PIECE; n++) {
          assertThat(slow.take(PIECE)).as("reply %d", n).containsOnly(OLD);
        }
      }
      domain.stopViewServer();
      domain.cancelJob("pull-vda");
      rig.statuses.await("pull-vda", DriverJobStatus.CONCLUDED);
    }
    domain.stop();
  }
}
