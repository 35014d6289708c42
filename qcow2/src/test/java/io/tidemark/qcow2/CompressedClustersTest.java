// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.Extent;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CompressedClustersTest {
  private static final int CLUSTER = 65536;

  private static CrashingFile create(long size, Map<String, String> options) throws BlockException {
    var file = new CrashingFile(1);
    Qcow2Image.create(file, new CreateOptions(size, Optional.empty(), options));
    return file;
  }

  private static Qcow2Image open(CrashingFile file) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite(), Durability.FLUSHED, Optional.empty());
  }

  private static byte[] text(int seed, int length) {
    byte[] bytes = new byte[length];
    var random = new Random(seed);
    for (int i = 0; i < length; i++) {
      bytes[i] = (byte) ('a' + random.nextInt(7));
    }
    return bytes;
  }

  private static void assertSound(Qcow2Image image) throws BlockException {
    CheckResult result = image.check();
    assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
  }

  private static byte[] read(Qcow2Image image, long offset, int length) throws BlockException {
    byte[] bytes = new byte[length];
    image.read(offset, ByteBuffer.wrap(bytes));
    return bytes;
  }

  @ParameterizedTest
  @Seeds(120)
  void behaveAsAPlainDiskAmongOtherWrites(long seed) throws BlockException {
    var random = new Random(seed);
    boolean v2 = random.nextInt(5) == 0;
    boolean extended = !v2 && random.nextInt(4) == 0;
    var options =
        Map.of(
            "cluster_size", "" + (1 << (extended ? 14 : 9 + random.nextInt(8))),
            "extended_l2", extended ? "on" : "off",
            "compat", v2 ? "0.10" : "1.1",
            "refcount_bits", v2 ? "16" : "" + (1 << random.nextInt(7)),
            "compression_type", v2 || random.nextBoolean() ? "zlib" : "zstd");
    CrashingFile file = create(64 * 1024 + random.nextInt(30) * 40960L + 512, options);
    var image = open(file);
    var model = ModelDisk.of(image);
    for (int round = 0; round < 3; round++) {
      Workload.random(seed * 7 + round)
          .maxLength(100_000)
          .compressedPercent(60)
          .run(image, model, 60);
      model.holdsExactly(image);
      assertSound(image);
      Workload.random(seed * 11 + round)
          .maxLength(50_000)
          .compressedPercent(30)
          .run(image, model, 20);
      image.close();
      image = open(file.reopen());
      model.holdsExactly(image);
      assertSound(image);
    }
    image.close();
  }

  @ParameterizedTest
  @ValueSource(strings = {"zlib", "zstd"})
  void shareHostClusters(String type) throws BlockException {
    CrashingFile file = create(64L * CLUSTER, Map.of("compression_type", type));
    long before;
    try (var image = open(file)) {
      before = file.virtualSize();
      for (int i = 0; i < 64; i++) {
        image.writeCompressed((long) i * CLUSTER, ByteBuffer.wrap(text(i, CLUSTER)));
      }
      CheckResult result = image.check();
      assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
      assertThat(result.compressedClusters()).isEqualTo(64);
    }
    assertThat(file.virtualSize() - before).isLessThan(30L * CLUSTER);
    file.reopen();
    try (var image = open(file)) {
      for (int i = 0; i < 64; i++) {
        assertThat(read(image, (long) i * CLUSTER, CLUSTER)).isEqualTo(text(i, CLUSTER));
      }
      var extents = new ArrayList<Extent>();
      image.extents(0, image.virtualSize(), extents::add);
      assertThat(extents).allMatch(Extent::compressed);
    }
  }

  @Test
  void aClusterThatDoesNotShrinkIsPlain() throws BlockException {
    CrashingFile file = create(4L * CLUSTER + 512, Map.of());
    try (var image = open(file)) {
      byte[] noise = new byte[CLUSTER];
      new Random(3).nextBytes(noise);
      image.writeCompressed(0, ByteBuffer.wrap(noise));
      image.writeCompressed(4L * CLUSTER, ByteBuffer.wrap(text(1, 512)));
      var extents = new ArrayList<Extent>();
      image.extents(0, image.virtualSize(), extents::add);
      assertThat(extents.getFirst().compressed()).isFalse();
      assertThat(extents.getFirst().hostOffset()).isPositive();
      assertThat(extents.getLast().compressed()).isTrue();
      assertThat(read(image, 0, CLUSTER)).isEqualTo(noise);
      assertThat(read(image, 4L * CLUSTER, 512)).isEqualTo(text(1, 512));
    }
  }

  @Test
  void refusesWhatIsNotOneCluster() throws BlockException {
    CrashingFile file = create(4L * CLUSTER, Map.of());
    try (var image = open(file)) {
      for (int[] range : new int[][] {{512, CLUSTER}, {0, CLUSTER - 512}, {0, CLUSTER + 512}}) {
        assertThatThrownBy(() -> image.writeCompressed(range[0], ByteBuffer.allocate(range[1])))
            .isInstanceOf(IllegalArgumentException.class);
      }
    }
  }

  @Test
  void aKeptClusterIsForgottenWhenItsPlaceGoesToAnother() throws BlockException {
    CrashingFile file = create(2L * CLUSTER, Map.of());
    try (var image = open(file)) {
      for (int round = 0; round < 50; round++) {
        byte[] now = text(round, CLUSTER);
        image.writeCompressed(0, ByteBuffer.wrap(now));
        assertThat(read(image, 1000, 100)).isEqualTo(java.util.Arrays.copyOfRange(now, 1000, 1100));
        image.flush();
        image.flush();
      }
      assertSound(image);
    }
  }

  @ParameterizedTest
  @Seeds(20)
  void snapshotsKeepThem(long seed) throws BlockException {
    var random = new Random(seed);
    int bits = 9 + random.nextInt(6);
    CrashingFile file =
        create(
            300 * 1024,
            Map.of(
                "cluster_size",
                "" + (1 << bits),
                "refcount_bits",
                "" + (1 << (2 + random.nextInt(5)))));
    try (var image = open(file)) {
      var model = ModelDisk.of(image);
      Workload.random(seed).maxLength(30_000).compressedPercent(70).run(image, model, 40);
      byte[] then = read(image, 0, 300 * 1024);
      image.snapshots().orElseThrow().create("s", java.time.Instant.EPOCH);
      assertSound(image);
      Workload.random(seed + 1).maxLength(30_000).compressedPercent(60).run(image, model, 40);
      model.holdsExactly(image);
      assertSound(image);
      byte[] now = read(image, 0, 300 * 1024);
      image.snapshots().orElseThrow().apply("s");
      assertThat(read(image, 0, 300 * 1024)).isEqualTo(then);
      assertSound(image);
      image.writeZeroes(0, 300 * 1024, io.tidemark.block.ZeroMode.MAY_UNMAP);
      image.write(0, ByteBuffer.wrap(now));
      image.snapshots().orElseThrow().delete("s");
      assertThat(read(image, 0, 300 * 1024)).isEqualTo(now);
      assertSound(image);
    }
  }

  /// Stream and what it claims: a cluster's worth and one byte more.
  @ParameterizedTest
  @ValueSource(strings = {"zlib", "zstd"})
  void refusesAStreamThatGivesMoreThanACluster(String type) throws Exception {
    Codec codec = Codec.of(type.equals("zlib") ? Codec.ZLIB : Codec.ZSTD);
    byte[] plain = new byte[CLUSTER + 1];
    byte[] packed = new byte[CLUSTER + Codec.SLACK];
    int length = codec.pack(plain, plain.length, packed, CLUSTER);
    byte[] into = new byte[CLUSTER];
    assertThatThrownBy(() -> codec.unpack(packed, length, into, 0, CLUSTER))
        .isInstanceOf(Codec.BadData.class);
    assertThatThrownBy(() -> codec.unpack(packed, length, new byte[CLUSTER + 9], 0, CLUSTER + 2))
        .isInstanceOf(Codec.BadData.class);
    codec.unpack(packed, packed.length, new byte[CLUSTER + 1], 0, CLUSTER + 1);
    codec.close();
  }

  @ParameterizedTest
  @ValueSource(strings = {"zlib", "zstd"})
  void anyDamageOfPackedBytesIsAValueOrAnError(String type) throws BlockException {
    CrashingFile file = create(4096L * 4, Map.of("cluster_size", "4096", "compression_type", type));
    try (var image = open(file)) {
      image.writeCompressed(0, ByteBuffer.wrap(text(1, 4096)));
    }
    var random = new Random(9);
    int refused = 0;
    for (int round = 0; round < 300; round++) {
      CrashingFile damaged = file.reopen().copy();
      long place = damaged.virtualSize() - 4096; // the last host cluster holds the packed bytes
      byte[] noise = new byte[1 + random.nextInt(4)];
      random.nextBytes(noise);
      damaged.write(place + random.nextInt(1400), ByteBuffer.wrap(noise));
      try (var image = Qcow2Image.open(damaged, OpenOptions.reading())) {
        read(image, 0, 4096);
      } catch (CorruptImageException _) {
        refused++;
      }
    }
    assertThat(refused).isPositive();
  }

  @ParameterizedTest
  @Seeds(3)
  void manyWritersAtOnce(long seed) throws Exception {
    CrashingFile file = create(600L * 4096, Map.of("cluster_size", "4096"));
    var failures = new java.util.concurrent.ConcurrentLinkedQueue<Throwable>();
    try (var image = open(file)) {
      var threads = new ArrayList<Thread>();
      for (int t = 0; t < 4; t++) {
        int mine = t;
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    for (int round = 0; round < 3; round++) {
                      for (int i = mine; i < 600; i += 4) {
                        byte[] bytes = text((int) seed + i + round, 4096);
                        image.writeCompressed(i * 4096L, ByteBuffer.wrap(bytes));
                        byte[] part = read(image, i * 4096L + 512, 512);
                        if (!java.util.Arrays.equals(part, 0, 512, bytes, 512, 1024)) {
                          throw new AssertionError("cluster " + i);
                        }
                      }
                      image.flush();
                    }
                  } catch (Throwable e) {
                    failures.add(e);
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(failures).isEmpty();
      for (int i = 0; i < 600; i++) {
        assertThat(read(image, i * 4096L, 4096)).isEqualTo(text((int) seed + i + 2, 4096));
      }
      assertSound(image);
    }
  }
}
