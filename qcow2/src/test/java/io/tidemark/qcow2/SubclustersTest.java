// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Extent;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.assertj.core.api.Assertions;
import org.assertj.core.groups.Tuple;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Clusters of 64 KiB, subclusters of 2 KiB.
class SubclustersTest {
  private static final int CLUSTER = 65536;
  private static final int SUB = CLUSTER / 32;
  private static final int SIZE = 8 * CLUSTER;

  private static CrashingFile create(boolean backed) throws BlockException {
    var file = new CrashingFile(1);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            backed
                ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
                : Optional.empty(),
            Map.of("extended_l2", "on")));
    return file;
  }

  private static byte[] baseBytes() {
    byte[] bytes = new byte[SIZE];
    new Random(5).nextBytes(bytes);
    return bytes;
  }

  private static Qcow2Image overBase(CrashingFile file) throws BlockException {
    var base = CrashingFile.ofSize(7, SIZE);
    base.write(0, ByteBuffer.wrap(baseBytes()));
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.attachBacking(base);
    return image;
  }

  private static List<Tuple> extents(Qcow2Image image, long offset, long length)
      throws BlockException {
    List<Tuple> found = new ArrayList<>();
    image.extents(
        offset,
        length,
        extent -> found.add(Tuple.tuple(extent.state(), extent.offset(), extent.length())));
    return found;
  }

  private static void holds(Qcow2Image image, byte[] expected) throws BlockException {
    byte[] now = new byte[SIZE];
    image.read(0, ByteBuffer.wrap(now));
    assertThat(Arrays.mismatch(now, expected)).isEqualTo(-1);
  }

  @Test
  void aWriteBringsInTheSubclustersItTouchesAndNoOthers() throws BlockException {
    CrashingFile file = create(true);
    var image = overBase(file);
    byte[] expected = baseBytes();
    byte[] bytes = new byte[3000];
    Arrays.fill(bytes, (byte) 9);
    int at = CLUSTER + 5 * SUB + 100;
    image.write(at, ByteBuffer.wrap(bytes));
    System.arraycopy(bytes, 0, expected, at, bytes.length);
    holds(image, expected);
    assertThat(extents(image, CLUSTER, CLUSTER))
        .containsExactly(
            Tuple.tuple(Extent.State.UNALLOCATED, (long) CLUSTER, 5L * SUB),
            Tuple.tuple(Extent.State.DATA, CLUSTER + 5L * SUB, 2L * SUB),
            Tuple.tuple(Extent.State.UNALLOCATED, CLUSTER + 7L * SUB, 25L * SUB));
    image.close();
  }

  @Test
  void zeroesAndDiscardsOfSubclustersLeaveTheirNeighbours() throws BlockException {
    CrashingFile file = create(true);
    var image = overBase(file);
    byte[] expected = baseBytes();
    image.write(0, ByteBuffer.wrap(new byte[] {1}));
    expected[0] = 1;
    image.writeZeroes(3 * SUB, 2 * SUB, ZeroMode.NO_UNMAP);
    Arrays.fill(expected, 3 * SUB, 5 * SUB, (byte) 0);
    image.discard(2L * CLUSTER + SUB, SUB); // nothing of this cluster is here
    Arrays.fill(expected, 2 * CLUSTER + SUB, 2 * CLUSTER + 2 * SUB, (byte) 0);
    holds(image, expected);
    assertThat(extents(image, 0, CLUSTER))
        .containsExactly(
            Tuple.tuple(Extent.State.DATA, 0L, (long) SUB),
            Tuple.tuple(Extent.State.UNALLOCATED, (long) SUB, 2L * SUB),
            Tuple.tuple(Extent.State.ZERO, 3L * SUB, 2L * SUB),
            Tuple.tuple(Extent.State.UNALLOCATED, 5L * SUB, 27L * SUB));
    assertThat(extents(image, 2 * CLUSTER, 3 * SUB))
        .extracting(t -> t.toArray()[0])
        .containsExactly(Extent.State.UNALLOCATED, Extent.State.ZERO, Extent.State.UNALLOCATED);
    image.close();
  }

  @Test
  void theLastDataSubclusterTakesThePlaceAlongUnlessPlacesAreKept() throws BlockException {
    CrashingFile file = create(false);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.write(SUB, ByteBuffer.wrap(new byte[] {1}));
    image.write(CLUSTER + SUB, ByteBuffer.wrap(new byte[] {1}));
    image.writeZeroes(SUB, SUB, ZeroMode.NO_UNMAP);
    image.writeZeroes(CLUSTER + SUB, SUB, ZeroMode.MAY_UNMAP);
    List<Long> places = new ArrayList<>();
    image.extents(SUB, SUB, extent -> places.add(extent.hostOffset()));
    image.extents(CLUSTER + SUB, SUB, extent -> places.add(extent.hostOffset()));
    assertThat(places.get(0)).isPositive();
    assertThat(places.get(1)).isEqualTo(-1);
    assertThat(image.check().allocatedClusters()).isEqualTo(1);
    image.close();
    assertThat(Qcow2Image.open(file.reopen(), OpenOptions.reading()).check().leaks()).isZero();
  }

  /// The host offset of the only L2 table.
  private static long l2Table(CrashingFile file) throws BlockException {
    ByteBuffer word = Header.bigEndian(8);
    file.read(40, word);
    long l1 = word.getLong(0);
    word.clear();
    file.read(l1, word);
    return L2Entry.host(word.getLong(0));
  }

  @Test
  void refusesASubclusterThatIsBothDataAndZero() throws BlockException {
    CrashingFile file = create(false);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.write(0, ByteBuffer.wrap(new byte[CLUSTER]));
    image.close();
    file.reopen();
    file.write(l2Table(file) + 8, Header.bigEndian(8).putLong(0, 0x1_ffff_ffffL));
    var reading = Qcow2Image.open(file, OpenOptions.reading());
    Assertions.assertThatThrownBy(() -> reading.read(0, ByteBuffer.allocate(10)))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("bitmap 0x1ffffffff contradict");
    assertThat(reading.check().corruptions()).isPositive();
    var writing = Qcow2Image.open(file, OpenOptions.readWrite());
    Assertions.assertThatThrownBy(() -> writing.write(CLUSTER, ByteBuffer.wrap(new byte[] {1})))
        .isInstanceOf(CorruptImageException.class);
  }

  @Test
  void refusesASubclusterThatIsDataWithoutAPlace() throws BlockException {
    CrashingFile file = create(false);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.write(0, ByteBuffer.wrap(new byte[CLUSTER]));
    image.close();
    file.reopen();
    file.write(l2Table(file), Header.bigEndian(8));
    var reading = Qcow2Image.open(file, OpenOptions.reading());
    Assertions.assertThatThrownBy(() -> reading.read(0, ByteBuffer.allocate(10)))
        .isInstanceOf(CorruptImageException.class);
  }

  @Test
  void bitZeroOfAnExtendedEntryMeansNothing() throws BlockException {
    CrashingFile file = create(false);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.write(0, ByteBuffer.wrap(new byte[] {5}));
    image.close();
    file.reopen();
    ByteBuffer word = Header.bigEndian(8);
    file.read(l2Table(file), word);
    file.write(l2Table(file), Header.bigEndian(8).putLong(0, word.getLong(0) | L2Entry.ZERO));
    var reading = Qcow2Image.open(file, OpenOptions.reading());
    ByteBuffer first = ByteBuffer.allocate(1);
    reading.read(0, first);
    assertThat(first.get(0)).isEqualTo((byte) 5);
  }

  @Test
  void createRefusesSmallClustersAndVersion2() {
    for (Map<String, String> options :
        List.of(
            Map.of("extended_l2", "on", "cluster_size", "8k"),
            Map.of("extended_l2", "on", "compat", "0.10"))) {
      Assertions.assertThatThrownBy(() ->
              Qcow2Image.create(
                  new CrashingFile(1), new CreateOptions(SIZE, Optional.empty(), options)))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining("extended_l2");
    }
  }

  @Test
  void masksAndStatesFollowTheSpecification() {
    assertThat(Subclusters.mask(0, 32)).isEqualTo(0xffff_ffffL);
    assertThat(Subclusters.mask(31, 32)).isEqualTo(0x8000_0000L);
    assertThat(Subclusters.mask(4, 4)).isZero();
    long entry = 0x50000L | L2Entry.COPIED;
    long bitmap = 0x2_0000_0001L; // subcluster 0 data, 1 zero
    assertThat(L2Entry.kind(Subclusters.plain(entry, bitmap, 0))).isEqualTo(L2Entry.Kind.DATA);
    assertThat(L2Entry.kind(Subclusters.plain(entry, bitmap, 1)))
        .isEqualTo(L2Entry.Kind.ZERO_ALLOCATED);
    assertThat(L2Entry.kind(Subclusters.plain(entry, bitmap, 2)))
        .isEqualTo(L2Entry.Kind.UNALLOCATED);
    assertThat(L2Entry.kind(Subclusters.plain(0, bitmap & ~1, 1)))
        .isEqualTo(L2Entry.Kind.ZERO_PLAIN);
    assertThat(Subclusters.written(entry, bitmap, 0b110)).isEqualTo(0b111);
    assertThat(Subclusters.zeroed(bitmap, 0b1)).isEqualTo(0x3_0000_0000L);
    assertThat(Subclusters.corrupt(entry, 0x1_0000_0001L)).isTrue();
    assertThat(Subclusters.corrupt(0, 1)).isTrue();
    assertThat(Subclusters.corrupt(L2Entry.COMPRESSED, 1)).isFalse();
  }

  /// Entries and bitmaps of any content: a value or an error, and an image that was called sound
  /// when it was opened for writing is written on without harm to its tables.
  @ParameterizedTest
  @Seeds(150)
  void entriesAndBitmapsOfAnyContentGiveAValueOrAnError(long seed) throws BlockException {
    var random = new Random(seed);
    CrashingFile file = create(false);
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      for (int i = 0; i < 6; i++) {
        image.write(random.nextInt(SIZE - 9000), ByteBuffer.wrap(new byte[9000]));
      }
    }
    file.reopen();
    long table = l2Table(file);
    for (int i = 0; i < 1 + random.nextInt(3); i++) {
      long at = table + 8L * random.nextInt(16);
      ByteBuffer word = Header.bigEndian(8);
      file.read(at, word);
      long changed =
          random.nextBoolean()
              ? word.getLong(0) ^ 1L << random.nextInt(64)
              : random.nextLong() & (random.nextBoolean() ? -1L : 0xc000_0000_001f_0000L);
      file.write(at, Header.bigEndian(8).putLong(0, changed));
    }
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      attempt(() -> image.read(0, ByteBuffer.allocate(SIZE)));
      attempt(() -> image.extents(0, SIZE, _ -> true));
      attempt(() -> image.write(3000, ByteBuffer.allocate(200_000)));
      attempt(() -> image.discard(CLUSTER + SUB, 2 * CLUSTER));
      attempt(() -> image.writeZeroes(SUB, 3 * SUB, ZeroMode.NO_UNMAP));
      attempt(image::flush);
      attempt(image::check);
      Qcow2Image reading = Qcow2Image.open(file, OpenOptions.reading());
      attempt(() -> reading.read(0, ByteBuffer.allocate(SIZE)));
      attempt(reading::check);
    } catch (BlockException _) {
      // opening and closing may fail as well
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
}
