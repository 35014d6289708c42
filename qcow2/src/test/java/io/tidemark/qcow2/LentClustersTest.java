// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Clusters whose bytes are taken from where they lie.
class LentClustersTest {
  private static final int CLUSTER = 4096;
  private static final int SIZE = 4096 * CLUSTER; // more than is counted ahead

  @TempDir Path dir;
  private Pipe pipe;

  @BeforeEach
  void openPipe() throws IOException {
    pipe = Pipe.open();
    pipe.sink().configureBlocking(false);
    pipe.source().configureBlocking(false);
  }

  @AfterEach
  void closePipe() throws IOException {
    pipe.sink().close();
    pipe.source().close();
  }

  private Qcow2Image image(String name, Optional<BackingReference> backing) throws BlockException {
    Path path = dir.resolve(name);
    try (var file = FileNode.create(path)) {
      Qcow2Image.create(
          file, new CreateOptions(SIZE, backing, Map.of("cluster_size", "" + CLUSTER)));
    }
    return Qcow2Image.open(
        FileNode.open(path, OpenOptions.readWrite()), OpenOptions.readWrite().withRunDir(dir));
  }

  private static ByteBuffer filled(int length, int with) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) with);
    return ByteBuffer.wrap(bytes);
  }

  private int toPipe(ByteBuffer bytes) {
    try {
      return pipe.sink().write(bytes);
    } catch (IOException e) {
      throw new AssertionError("lent bytes that cannot be read", e);
    }
  }

  private byte[] fromPipe() throws IOException {
    ByteBuffer got = ByteBuffer.allocate(64 << 10);
    while (pipe.source().read(got) > 0) {}
    return Arrays.copyOf(got.array(), got.position());
  }

  @Test
  void lendsRunAfterRunAsTheGuestSeesThem() throws Exception {
    try (Qcow2Image image = image("a", Optional.empty())) {
      for (int cluster : new int[] {3, 0, 2, 1}) { // places in the file out of order
        image.write((long) cluster * CLUSTER, filled(CLUSTER, cluster + 1));
      }
      assertThat(image.lend(100, 3 * CLUSTER, this::toPipe)).isEqualTo(3 * CLUSTER);
      byte[] got = fromPipe();
      byte[] wanted = new byte[3 * CLUSTER];
      image.read(100, ByteBuffer.wrap(wanted));
      assertThat(got).isEqualTo(wanted);
    }
  }

  @Test
  void stopsAtWhatIsNotInTheFileAndWhereTheBorrowerStops() throws Exception {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(8 * CLUSTER, 9));
      image.writeZeroes(2L * CLUSTER, CLUSTER, ZeroMode.MAY_UNMAP);
      assertThat(image.lend(0, 8 * CLUSTER, this::toPipe)).isEqualTo(2 * CLUSTER);
      assertThat(fromPipe()).hasSize(2 * CLUSTER).containsOnly(9);
      assertThat(image.lend(2L * CLUSTER, CLUSTER, this::toPipe)).isZero();
      assertThat(image.lend(20L * CLUSTER, CLUSTER, this::toPipe)).isZero();
      assertThat(image.lend(4L * CLUSTER, CLUSTER, _ -> 17)).isEqualTo(17);
      image.writeCompressed(3L * CLUSTER, filled(CLUSTER, 9));
      assertThat(image.lend(3L * CLUSTER, 2 * CLUSTER, this::toPipe)).isZero();
    }
  }

  @Test
  void lendsWhatTheBackingImageHolds() throws Exception {
    Qcow2Image base = image("base", Optional.empty());
    base.write(0, filled(4 * CLUSTER, 5));
    var reference = new BackingReference("base", Optional.of("qcow2"));
    try (Qcow2Image top = image("top", Optional.of(reference))) {
      top.attachBacking(base);
      top.write(CLUSTER, filled(CLUSTER, 6));
      assertThat(top.lend(0, 3 * CLUSTER, this::toPipe)).isEqualTo(3 * CLUSTER);
      byte[] got = fromPipe();
      assertThat(Arrays.copyOfRange(got, 0, CLUSTER)).containsOnly(5);
      assertThat(Arrays.copyOfRange(got, CLUSTER, 2 * CLUSTER)).containsOnly(6);
      assertThat(Arrays.copyOfRange(got, 2 * CLUSTER, 3 * CLUSTER)).containsOnly(5);
    }
  }

  /// While a borrower holds clusters they are discarded, and as many written elsewhere: their
  /// places go to nobody. Without a borrower they do.
  @ParameterizedTest
  @ValueSource(booleans = {true, false})
  void aClusterThatIsLentGoesToNobody(boolean lent) throws Exception {
    try (Qcow2Image image = image("a", Optional.empty())) {
      image.write(0, filled(8 * CLUSTER, 1));
      long place = Elsewhere.firstPlace(image);
      if (lent) {
        int taken =
            image.lend(
                0,
                8 * CLUSTER,
                bytes -> {
                  Elsewhere.run(() -> Elsewhere.takeEveryPlace(image));
                  return toPipe(bytes);
                });
        assertThat(taken).isEqualTo(8 * CLUSTER);
        for (byte b : fromPipe()) {
          assertThat(b).isIn((byte) 1, (byte) 0);
        }
      } else {
        Elsewhere.run(() -> Elsewhere.takeEveryPlace(image));
      }
      assertThat(Elsewhere.tookPlace(image, place)).isEqualTo(!lent);
    }
  }
}
