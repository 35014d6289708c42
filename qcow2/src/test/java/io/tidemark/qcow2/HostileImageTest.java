// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class HostileImageTest {
  private static final int SIZE = 200 * 1024;
  private static final int CLUSTER = 1024;

  private byte[] good = {};

  @BeforeEach
  void makeAnImageWithEverythingInIt() throws BlockException {
    var file = new CrashingFile(1);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            Optional.of(new BackingReference("base.raw", Optional.of("raw"))),
            Map.of("cluster_size", "" + CLUSTER)));
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      byte[] bytes = new byte[60_000];
      new Random(1).nextBytes(bytes);
      image.write(5_000, ByteBuffer.wrap(bytes));
      image.writeZeroes(80_000, 20_000, ZeroMode.MAY_UNMAP);
      image.writeZeroes(10_240, 4_096, ZeroMode.NO_UNMAP);
      var bitmap = new DirtyBitmap("b0", SIZE, 512);
      bitmap.set(100, 50_000);
      image.bitmapStore().orElseThrow().store(List.of(bitmap));
    }
    file.reopen();
    good = new byte[(int) file.virtualSize()];
    file.read(0, ByteBuffer.wrap(good));
  }

  private static CrashingFile file(byte[] bytes) throws BlockException {
    var file = CrashingFile.ofSize(1, bytes.length);
    file.write(0, ByteBuffer.wrap(bytes));
    return file;
  }

  /// Does everything that can be done with an image; the only exceptions that may come are
  /// [BlockException]s.
  private static void use(byte[] bytes, boolean readOnly) throws BlockException {
    CrashingFile file = file(bytes);
    long length = bytes.length;
    Qcow2Image opened = null;
    try {
      opened =
          Qcow2Image.open(
              file, readOnly ? OpenOptions.reading() : OpenOptions.readWrite(), Durability.FLUSHED);
    } catch (BlockException _) {
      return;
    }
    long steps = file.steps();
    try (Qcow2Image image = opened) {
      int most = (int) Math.min(image.virtualSize(), SIZE);
      attempt(() -> image.read(0, ByteBuffer.allocate(most)));
      attempt(() -> image.extents(0, most, _ -> true));
      image.information();
      attempt(image::check);
      if (image.bitmapStore().isPresent()) {
        BitmapStore store = image.bitmapStore().get();
        for (BitmapStore.Stored stored : store.stored()) {
          attempt(() -> store.load(stored.name()));
        }
      }
      if (readOnly) {
        assertThat(file.steps()).isEqualTo(steps);
        return;
      }
      attempt(() ->
          image.write(
              Math.min(most, 3_000),
              ByteBuffer.allocate(Math.min(9_000, most - Math.min(most, 3_000)))));
      attempt(() -> image.discard(0, Math.min(20_000, most)));
      attempt(image::flush);
      attempt(() -> image.write(0, ByteBuffer.allocate(Math.min(most, 30_000))));
      attempt(() -> image.bitmapStore().ifPresent(store -> attempt(() -> store.store(List.of()))));
      attempt(image::flush);
      assertThat(file.virtualSize()).isLessThan(length + (16 << 20));
    } catch (BlockException _) {
      // closing may fail as well
    }
  }

  private interface Action {
    void run() throws BlockException;
  }

  private static void attempt(Action action) {
    try {
      action.run();
    } catch (BlockException e) {
      assertThat(e.getMessage()).isNotBlank();
    }
  }

  @Test
  void givesAValueOrAnErrorWhereverTheFileIsCutShort() throws BlockException {
    for (int length = 0; length < 1024; length++) {
      use(java.util.Arrays.copyOf(good, length), true);
    }
    for (int length = 1024; length < good.length; length += 2039) {
      use(java.util.Arrays.copyOf(good, length), true);
      use(java.util.Arrays.copyOf(good, length), false);
    }
  }

  @Test
  void givesAValueOrAnErrorForEveryHeaderFieldAtItsEdges() throws BlockException {
    int[][] fields = {
      {0, 4}, {4, 4}, {8, 8}, {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8},
      {56, 4}, {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1}
    };
    long[] values = {0, 1, -1, -2, Long.MAX_VALUE, Long.MIN_VALUE, 512, 1024, 0x7fffffff, 1L << 40};
    for (int[] field : fields) {
      for (long value : values) {
        byte[] bytes = good.clone();
        for (int i = 0; i < field[1]; i++) {
          bytes[field[0] + i] = (byte) (value >>> (8 * (field[1] - 1 - i)));
        }
        use(bytes, true);
        use(bytes, false);
      }
    }
  }

  @ParameterizedTest
  @Seeds(300)
  void givesAValueOrAnErrorForFlippedBytes(long seed) throws BlockException {
    var random = new Random(seed);
    byte[] bytes = good.clone();
    int flips = 1 + random.nextInt(20);
    for (int i = 0; i < flips; i++) {
      int at =
          switch (random.nextInt(3)) {
            case 0 -> random.nextInt(CLUSTER);
            case 1 -> CLUSTER + random.nextInt(Math.min(bytes.length - CLUSTER, 12 * CLUSTER));
            default -> random.nextInt(bytes.length);
          };
      bytes[at] =
          (byte)
              (random.nextBoolean() ? random.nextInt(256) : bytes[at] ^ (1 << random.nextInt(8)));
    }
    use(bytes, true);
    use(bytes, false);
  }

  @ParameterizedTest
  @Seeds(200)
  void givesAValueOrAnErrorForWildTableEntries(long seed) throws BlockException {
    var random = new Random(seed);
    byte[] bytes = good.clone();
    ByteBuffer raw = ByteBuffer.wrap(bytes);
    long[] wild = {
      0,
      1,
      -1,
      1L << 63,
      1L << 62,
      3L << 62,
      CLUSTER,
      CLUSTER | 1L << 63,
      513,
      bytes.length,
      0x00fffffffffffe00L,
      1L << 55,
      random.nextLong(),
      (random.nextLong() & 0xffff) | 1L << 62,
      (long) random.nextInt(bytes.length / CLUSTER) * CLUSTER | 1L << 63
    };
    for (int i = 0; i < 1 + random.nextInt(6); i++) {
      int at = CLUSTER + random.nextInt((bytes.length - CLUSTER) / 8) / 2 * 8;
      raw.putLong(at, wild[random.nextInt(wild.length)]);
    }
    use(bytes, true);
    use(bytes, false);
  }

  private static Qcow2Image open(byte[] bytes) throws BlockException {
    return Qcow2Image.open(file(bytes), OpenOptions.readWrite());
  }

  private byte[] with(int at, long value) {
    byte[] bytes = good.clone();
    ByteBuffer.wrap(bytes).putLong(at, value);
    return bytes;
  }

  @Test
  void givesWholeSectorsOfASizeThatEndsAmidOne() throws BlockException {
    try (var image = open(with(24, 1000))) {
      assertThat(image.virtualSize()).isEqualTo(512);
    }
    try (var image = open(with(24, 1))) {
      assertThat(image.virtualSize()).isZero();
      assertThat(image.check().checkErrors()).isZero();
    }
  }

  @Test
  void namesUnsupportedFeatures() {
    assertThatThrownBy(() -> open(with(72, 1L << 2)))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("external data file");
    assertThatThrownBy(() -> open(with(72, 1L << 40)))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("bit 40");
  }

  @Test
  void takesTheNameOfAnUnknownFeatureFromTheImagesOwnTable() {
    byte[] bytes = with(72, 1L << 9);
    int table = 112 + 16 + 8; // after the backing format extension
    bytes[table + 1] = 9;
    byte[] name = "time travel\0".getBytes(StandardCharsets.UTF_8);
    System.arraycopy(name, 0, bytes, table + 2, name.length);
    assertThatThrownBy(() -> open(bytes))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("time travel");
  }

  @Test
  void refusesToWriteCorruptImagesButReadsThem() throws BlockException {
    assertThatThrownBy(() -> open(with(72, 2)))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("marked corrupt");
    try (var image = Qcow2Image.open(file(with(72, 3)), OpenOptions.reading())) {
      image.read(0, ByteBuffer.allocate(100));
    }
  }

  @Test
  void clearsUnknownAutoclearBitsWithTheFirstWriteAndKeepsTheBitmaps() throws BlockException {
    CrashingFile file = file(with(88, 1 | 1L << 7));
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      image.read(0, ByteBuffer.allocate(100));
      assertThat(autoclear(file)).isEqualTo(1 | 1L << 7);
      image.write(0, ByteBuffer.allocate(100));
      assertThat(autoclear(file)).isEqualTo(1);
      assertThat(image.bitmapStore().orElseThrow().stored())
          .containsExactly(new BitmapStore.Stored("b0", 512, true, true));
    }
  }

  private static long autoclear(CrashingFile file) throws BlockException {
    ByteBuffer raw = ByteBuffer.allocate(8);
    file.read(88, raw);
    return raw.getLong(0);
  }

  @Test
  void neverWritesAMetadataClusterThatAnEntryNames() throws BlockException {
    try (var image = Qcow2Image.open(file(good), OpenOptions.reading())) {
      assertThat(image.check().sound()).isTrue();
    }
    // The first L2 entry in use comes to name the L1 table's cluster.
    ByteBuffer raw = ByteBuffer.wrap(good);
    long l1 = raw.getLong(40);
    long l2 = raw.getLong((int) l1) & 0x00fffffffffffe00L;
    byte[] bytes = with((int) l2 + 5 * 8, l1 | 1L << 63);
    assertThatThrownBy(
            () -> {
              try (var image = open(bytes)) {
                image.write(5 * 1024, ByteBuffer.allocate(1024));
              }
            })
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("not a data cluster");
  }
}
