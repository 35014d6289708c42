// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class ImageCheckTest {
  private static CrashingFile create(long size, Map<String, String> options) throws BlockException {
    var file = new CrashingFile(1);
    Qcow2Image.create(file, new CreateOptions(size, Optional.empty(), options));
    return file;
  }

  private static CheckResult check(CrashingFile file) throws BlockException {
    return new ImageCheck(new HostFile(file)).run();
  }

  private static CheckResult check(CrashingFile file, List<String> lines, ClusterCounts counts)
      throws BlockException {
    var host = new HostFile(file);
    SnapshotTable snapshots = SnapshotTable.read(host, Header.parse(host));
    return new ImageCheck(host, ImageCheck.Mode.LOOK, lines, snapshots, counts).run();
  }

  /// The refcount of a cluster, in an image with one refcount block of 16 bits.
  private static void setCount(CrashingFile file, int cluster, int count) throws BlockException {
    Header header = Header.parse(new HostFile(file));
    var counts = new Refcounts(new HostFile(file), header, MetadataClusters.NONE);
    file.write(counts.table()[0] + 2L * cluster, Header.bigEndian(2).putShort(0, (short) count));
  }

  @Test
  void givesFiguresOfAnUntouchedImage() throws Exception {
    CheckResult result = check(create(1 << 20, Map.of()));
    assertThat(result.findings()).isEmpty();
    assertThat(result.totalClusters()).isEqualTo(16);
    assertThat(result.allocatedClusters()).isZero();
    assertThat(result.imageEndOffset()).isEqualTo(4 * 65536);
  }

  @Test
  void namesLeaksAndCountsTooLow() throws Exception {
    CrashingFile file = create(1 << 20, Map.of());
    setCount(file, 2, 3);
    setCount(file, 3, 0);
    CheckResult result = check(file);
    assertThat(result.leaks()).isEqualTo(1);
    assertThat(result.corruptions()).isEqualTo(1);
    assertThat(result.findings())
        .containsExactly(
            "Leaked cluster 2 refcount=3 reference=1", "ERROR cluster 3 refcount=0 reference=1");
    assertThat(result.sound()).isFalse();
  }

  @Test
  void namesCopiedFlagsThatContradictTheCount() throws Exception {
    CrashingFile file = create(1 << 20, Map.of());
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      image.write(0, ByteBuffer.wrap(new byte[] {1}));
    }
    file.reopen();
    Header header = Header.parse(new HostFile(file));
    byte[] first = new byte[1];
    file.read(header.l1Offset(), ByteBuffer.wrap(first));
    file.write(header.l1Offset(), ByteBuffer.wrap(new byte[] {(byte) (first[0] ^ 0x80)}));
    CheckResult result = check(file);
    assertThat(result.corruptions()).isEqualTo(1);
    assertThat(result.findings().getFirst())
        .startsWith("ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=")
        .endsWith(" refcount=1");
  }

  @ParameterizedTest
  @Seeds(10)
  void findsTheSameInManyWindows(long seed) throws Exception {
    var random = new Random(seed);
    long size = 40 << 20;
    CrashingFile file = create(size, Map.of("cluster_size", "512", "refcount_bits", "16"));
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      ModelDisk model = ModelDisk.of(image);
      Workload.random(seed).maxLength(3 << 20).run(image, model, 30);
      image.snapshots().orElseThrow().create("s", Instant.EPOCH);
      Workload.random(seed + 1).maxLength(1 << 20).run(image, model, 20);
    }
    file.reopen();
    for (int i = 0; i < 5; i++) {
      setCount(file, random.nextInt(200), random.nextInt(5));
    }
    CheckResult whole = check(file);
    var lines = new ArrayList<String>();
    CheckResult windows = check(file, lines, new ClusterCounts(2 * (ClusterCounts.PAGE + 128)));
    assertThat(windows).isEqualTo(whole);
    assertThat(file.virtualSize() / 512).isGreaterThan(2L * ClusterCounts.PAGE);
  }

  @Test
  void anImageOf64TebibytesTakesMemoryForWhatIsInUse() throws Exception {
    CrashingFile file = create(64L << 40, Map.of());
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      for (int i = 0; i < 64; i++) {
        image.write((long) i << 40, ByteBuffer.wrap(new byte[] {1}));
      }
    }
    file.reopen();
    CheckResult result = check(file, new ArrayList<>(), new ClusterCounts(1 << 20));
    assertThat(result.findings()).isEmpty();
    assertThat(result.totalClusters()).isEqualTo(1L << 30);
    assertThat(result.allocatedClusters()).isEqualTo(64);
  }
}
