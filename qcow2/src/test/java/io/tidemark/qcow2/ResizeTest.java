// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.Extent;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class ResizeTest {
  @TempDir Path runDir;

  private static CrashingFile create(long size, boolean backed, Map<String, String> options)
      throws BlockException {
    var file = new CrashingFile(1);
    Optional<BackingReference> backing =
        backed
            ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
            : Optional.empty();
    Qcow2Image.create(file, new CreateOptions(size, backing, options));
    return file;
  }

  private static Qcow2Image open(CrashingFile file) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite(), Durability.FLUSHED, Optional.empty());
  }

  private static CrashingFile base(long size) throws BlockException {
    var file = CrashingFile.ofSize(7, size);
    byte[] bytes = new byte[(int) size];
    new Random(size).nextBytes(bytes);
    file.write(0, ByteBuffer.wrap(bytes));
    return file;
  }

  private static void assertClean(Qcow2Image image) throws BlockException {
    CheckResult result = image.check();
    assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
  }

  private static byte[] read(Qcow2Image image) throws BlockException {
    byte[] bytes = new byte[(int) image.virtualSize()];
    image.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  @ParameterizedTest
  @Seeds(80)
  void theDiskIsCutAndExtendedByZeroes(long seed) throws Exception {
    var random = new Random(seed);
    boolean backed = random.nextBoolean();
    boolean v2 = random.nextInt(5) == 0;
    boolean extended = !v2 && random.nextInt(3) == 0;
    var options =
        Map.of(
            "cluster_size", "" + (1 << (extended ? 14 : 9 + random.nextInt(7))),
            "compat", v2 ? "0.10" : "1.1",
            "extended_l2", extended ? "on" : "off");
    CrashingFile file = create(200 * 1024, backed, options);
    boolean logged = random.nextBoolean();
    Optional<LogPlace> log = Optional.empty();
    if (logged) {
      var identity = new ChangeLog.Identity("00112233445566778899aabbccddeeff", 1, seed, 3);
      log = Optional.of(new LogPlace(identity.logIn(runDir), identity));
    }
    var durability = logged ? Durability.ACKNOWLEDGED : Durability.FLUSHED;
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), durability, log);
    if (backed) {
      image.attachBacking(base(400 * 1024));
    }
    for (int round = 0; round < 8; round++) {
      ModelDisk model = ModelDisk.of(image);
      Workload.random(seed * 9 + round)
          .maxLength(40_000)
          .compressedPercent(10)
          .run(image, model, 15);
      model.holdsExactly(image);
      byte[] before = read(image);
      long size = random.nextInt(5) == 0 ? 0 : random.nextInt(1600) * 512L;
      Preallocation ahead =
          size > image.virtualSize() && (!backed || extended)
              ? List.of(Preallocation.values()).get(random.nextInt(4))
              : Preallocation.OFF;
      image.resize(size, new ResizeOptions(ahead, true));
      assertThat(image.virtualSize()).isEqualTo(size);
      assertThat(read(image)).isEqualTo(Arrays.copyOf(before, (int) size));
      assertClean(image);
      if (size == 0) {
        image.resize(100 * 512);
      }
      if (random.nextInt(3) == 0) {
        before = read(image);
        image.close();
        image = Qcow2Image.open(file.reopen(), OpenOptions.readWrite(), durability, log);
        if (backed) {
          image.attachBacking(base(400 * 1024));
        }
        assertThat(read(image)).isEqualTo(before);
        assertClean(image);
      }
    }
    image.close();
  }

  @Test
  void aPowerCutAtAnyStepLeavesTheOldDiskOrTheNewOne() throws Exception {
    byte[] content = new byte[300 * 1024];
    new Random(4).nextBytes(content);
    for (long cut = 1; ; cut++) {
      CrashingFile file = create(300 * 1024, false, Map.of("cluster_size", "512"));
      var image = open(file);
      image.write(0, ByteBuffer.wrap(content));
      image.flush();
      file.cutPowerAt(cut);
      boolean done = false;
      try {
        image.resize(100 * 1024, ResizeOptions.ANY);
        image.resize(2 << 20, new ResizeOptions(Preallocation.METADATA, false));
        image.close();
        done = true;
      } catch (BlockException e) {
        assertThat(e.getMessage()).contains("power is cut");
      }
      for (int i = 0; i < 4; i++) {
        try (var after = open(file.crash(cut * 31 + i))) {
          CheckResult result = after.check();
          assertThat(result.sound()).as("cut at %d: %s", cut, result.findings()).isTrue();
          long size = after.virtualSize();
          byte[] wanted = size == content.length ? content : Arrays.copyOf(content, 100 * 1024);
          assertThat(read(after)).as("cut at %d", cut).isEqualTo(Arrays.copyOf(wanted, (int) size));
          after.resize(3 << 20); // what a cut left past the end never shows
          assertThat(read(after))
              .as("cut at %d, then grown", cut)
              .isEqualTo(Arrays.copyOf(wanted, 3 << 20));
        }
      }
      if (done) {
        return;
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Preallocation.class)
  void preallocationGivesEveryClusterAPlace(Preallocation preallocation) throws Exception {
    CrashingFile file =
        create(5 * 65536 + 512, false, Map.of("preallocation", preallocation.word()));
    try (var image = open(file)) {
      image.resize(9 * 65536, new ResizeOptions(preallocation, false));
      var extents = new ArrayList<Extent>();
      image.extents(0, image.virtualSize(), extents::add);
      Extent.State state =
          preallocation == Preallocation.OFF ? Extent.State.UNALLOCATED : Extent.State.DATA;
      assertThat(extents).allMatch(e -> e.state() == state);
      assertThat(read(image)).containsOnly(0);
      assertClean(image);
      image.write(7000, ByteBuffer.wrap(new byte[] {1}));
      assertClean(image);
    }
  }

  @Test
  void whatIsCutIsGivenBack() throws Exception {
    CrashingFile file = create(64 << 20, false, Map.of());
    try (var image = open(file)) {
      long empty = file.virtualSize();
      image.write(0, ByteBuffer.allocate(512)); // the L2 table is before the data
      image.write(0, ByteBuffer.allocate(32 << 20).put(5, (byte) 1));
      image.flush();
      image.resize(512, ResizeOptions.ANY);
      assertClean(image);
      assertThat(file.virtualSize()).isLessThan(empty + 5 * 65536);
    }
  }

  /// The largest disk there is: an L1 table of 32 MiB for clusters of 2 MiB.
  @Test
  void growsToTheEndOfTheFormat() throws Exception {
    CrashingFile file = create(1 << 20, false, Map.of("cluster_size", "2M"));
    long size = 1L << 61;
    try (var image = open(file)) {
      assertThatThrownBy(() -> image.resize(size + 512))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining("L1 table");
      image.resize(size);
      image.write(size - 3, ByteBuffer.wrap(new byte[] {1, 2, 3}));
      byte[] end = new byte[5];
      image.read(size - 5, ByteBuffer.wrap(end));
      assertThat(end).containsExactly(0, 0, 1, 2, 3);
      assertClean(image);
      image.resize(1 << 20, ResizeOptions.ANY);
      assertClean(image);
    }
  }

  @Test
  void persistentBitmapsFollow() throws Exception {
    CrashingFile file = create(1 << 20, false, Map.of());
    try (var image = open(file)) {
      var bitmap = new DirtyBitmap("b", 1 << 20, 65536);
      bitmap.set(3 * 65536, 10);
      bitmap.set(12 * 65536, 10);
      image.bitmapStore().orElseThrow().store(List.of(bitmap));
    }
    file.reopen();
    try (var image = open(file)) {
      image.resize(512 * 1024, ResizeOptions.ANY);
      image.resize(2 << 20);
    }
    file.reopen();
    try (var image = open(file)) {
      DirtyBitmap bitmap = image.bitmapStore().orElseThrow().load("b");
      assertThat(bitmap.size()).isEqualTo(2 << 20);
      assertThat(bitmap.isDirty(3 * 65536)).isTrue();
      assertThat(bitmap.isDirty(4 * 65536)).isFalse();
      assertClean(image);
    }
  }

  @ParameterizedTest
  @ValueSource(longs = {513, 1L << 62, -512})
  void refusesSizesThatCannotBe(long size) throws Exception {
    CrashingFile file = create(1 << 20, false, Map.of());
    try (var image = open(file)) {
      assertThatThrownBy(() -> image.resize(size, ResizeOptions.ANY))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining("" + size);
      assertThat(image.virtualSize()).isEqualTo(1 << 20);
    }
  }

  @Test
  void refusesWhatQemuRefuses() throws Exception {
    CrashingFile file = create(1 << 20, false, Map.of());
    try (var image = open(file)) {
      assertThatThrownBy(() -> image.resize(512)).hasMessageContaining("--shrink");
      assertThatThrownBy(() -> image.resize(512, new ResizeOptions(Preallocation.FULL, true)))
          .hasMessageContaining("preallocation");
    }
  }
}
