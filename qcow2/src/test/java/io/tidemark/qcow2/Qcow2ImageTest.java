// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.Extent;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class Qcow2ImageTest {
  private static final long MIB = 1 << 20;

  static CrashingFile image(long size, Map<String, String> options, boolean backed)
      throws BlockException {
    var file = new CrashingFile(1);
    Optional<BackingReference> backing =
        backed
            ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
            : Optional.empty();
    Qcow2Image.create(file, new CreateOptions(size, backing, options));
    return file;
  }

  private static CrashingFile base(long size) throws BlockException {
    var file = CrashingFile.ofSize(7, size);
    byte[] bytes = new byte[(int) size];
    new Random(size).nextBytes(bytes);
    file.write(0, ByteBuffer.wrap(bytes));
    return file;
  }

  private static byte[] read(Qcow2Image image, long offset, int length) throws BlockException {
    byte[] bytes = new byte[length];
    image.read(offset, ByteBuffer.wrap(bytes));
    return bytes;
  }

  private static List<Extent> extents(Qcow2Image image) throws BlockException {
    var found = new ArrayList<Extent>();
    image.extents(0, image.virtualSize(), found::add);
    return found;
  }

  @ParameterizedTest
  @Seeds(60)
  void behavesAsAPlainDiskThroughAnyWorkload(long seed) throws BlockException {
    var random = new Random(seed);
    int bits = 9 + random.nextInt(8);
    boolean v2 = random.nextInt(5) == 0;
    boolean backed = random.nextBoolean();
    long size = 64 * 1024 + random.nextInt(30) * 40960L + random.nextInt(8) * 512L;
    boolean extended = !v2 && bits >= 14;
    var options =
        Map.of(
            "cluster_size", "" + (1 << bits),
            "compat", v2 ? "0.10" : "1.1",
            "extended_l2", extended ? "on" : "off",
            "refcount_bits", v2 ? "16" : "" + (1 << random.nextInt(7)));
    CrashingFile file = image(size, options, backed);
    CrashingFile base = base(random.nextBoolean() ? size / 2 + 100 : size + 70000);
    var durability = random.nextBoolean() ? Durability.ACKNOWLEDGED : Durability.FLUSHED;
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), durability);
    if (backed) {
      image.attachBacking(base);
    }
    ModelDisk model = ModelDisk.of(image);
    for (int round = 0; round < 3; round++) {
      Workload.random(seed * 10 + round)
          .compressedPercent(seed % 3 == 0 ? 20 : 0)
          .maxLength(200_000)
          .run(image, model, 60);
      model.holdsExactly(image);
      image.close();
      file.reopen();
      base.reopen();
      image = Qcow2Image.open(file, OpenOptions.readWrite(), durability);
      if (backed) {
        image.attachBacking(base);
      }
      model.holdsExactly(image);
    }
    image.close();
  }

  @Test
  void readsABackingNodeThatIsShorter() throws BlockException {
    CrashingFile file = image(MIB, Map.of(), true);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.attachBacking(base(100_000));
    byte[] expected = new byte[(int) MIB];
    base(100_000).read(0, ByteBuffer.wrap(expected, 0, 100_000));
    assertThat(read(image, 0, (int) MIB)).isEqualTo(expected);
    image.write(99_000, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    expected[99_000] = 1;
    expected[99_001] = 2;
    expected[99_002] = 3;
    assertThat(read(image, 0, (int) MIB)).isEqualTo(expected);
    image.close();
  }

  @Test
  void growsWithoutShowingTheBackingNode() throws BlockException {
    CrashingFile file = image(100 * 1024, Map.of("cluster_size", "512"), true);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.attachBacking(base(300 * 1024));
    byte[] before = read(image, 0, 100 * 1024);
    image.resize(10 * MIB);
    assertThat(image.virtualSize()).isEqualTo(10 * MIB);
    byte[] expected = new byte[(int) (10 * MIB)];
    System.arraycopy(before, 0, expected, 0, before.length);
    assertThat(read(image, 0, (int) (10 * MIB))).isEqualTo(expected);
    image.close();
    image = Qcow2Image.open(file.reopen(), OpenOptions.readWrite());
    image.attachBacking(base(300 * 1024));
    assertThat(read(image, 0, (int) (10 * MIB))).isEqualTo(expected);
    image.close();
  }

  @Test
  void findsRoomForTablesLongerThanOneRefcountBlockCounts() throws BlockException {
    CrashingFile file = image(MIB, Map.of("cluster_size", "512", "refcount_bits", "64"), false);
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.FLUSHED);
    long steps = file.steps();
    for (long size = 64 * MIB; size <= 8192 * MIB; size *= 2) {
      image.resize(size); // an L1 table of up to 4,096 clusters, 64 to a block
      image.write(size - 1, ByteBuffer.wrap(new byte[] {1}));
    }
    assertThat(file.steps() - steps).isLessThan(20_000);
    CheckResult result = image.check();
    assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
    image.close();
  }

  @Test
  void zeroesAndDiscardsShowInTheExtents() throws BlockException {
    CrashingFile file = image(4 * 65536, Map.of(), true);
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.attachBacking(base(4 * 65536));
    image.write(0, ByteBuffer.wrap(new byte[2 * 65536]));
    image.writeZeroes(65536, 65536, ZeroMode.NO_UNMAP);
    image.discard(2 * 65536, 65536);
    assertThat(extents(image))
        .extracting(Extent::state, Extent::length)
        .containsExactly(
            org.assertj.core.groups.Tuple.tuple(Extent.State.DATA, 65536L),
            org.assertj.core.groups.Tuple.tuple(Extent.State.ZERO, 65536L),
            org.assertj.core.groups.Tuple.tuple(Extent.State.ZERO, 65536L),
            org.assertj.core.groups.Tuple.tuple(Extent.State.UNALLOCATED, 65536L));
    assertThat(extents(image).get(1).hostOffset()).as("keeps its cluster").isPositive();
    assertThat(extents(image).get(2).hostOffset()).as("has none").isEqualTo(-1);
    image.close();
  }

  @Test
  void opensReadOnlyWithoutAnyChange() throws BlockException {
    CrashingFile file = image(MIB, Map.of(), false);
    long steps = file.steps();
    var image = Qcow2Image.open(file, OpenOptions.reading());
    read(image, 0, 4096);
    image.flush();
    assertThatThrownBy(() -> image.write(0, ByteBuffer.wrap(new byte[512])))
        .isInstanceOf(ReadOnlyNodeException.class);
    image.close();
    assertThat(file.steps()).isEqualTo(steps);
  }
}
