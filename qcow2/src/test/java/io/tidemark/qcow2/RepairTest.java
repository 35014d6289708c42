// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ResizeOptions;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class RepairTest {
  private static final long SIZE = 200 * 1024;

  private static CrashingFile image(long seed, Random random) throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            Optional.empty(),
            Map.of(
                "cluster_size", "" + (512 << random.nextInt(4)),
                "refcount_bits", "" + (4 << random.nextInt(5)))));
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    Workload.random(seed).maxLength(20_000).run(image, ModelDisk.of(image), 15);
    image.snapshots().orElseThrow().create("s", Instant.EPOCH);
    Workload.random(seed + 1).maxLength(20_000).run(image, ModelDisk.of(image), 10);
    image.close();
    return file.reopen();
  }

  /// What a snapshot holds looks leaked while nobody can read where it is.
  @ParameterizedTest
  @EnumSource(Repair.class)
  void repairsNothingWhileTheSnapshotTableCannotBeRead(Repair what) throws Exception {
    CrashingFile file = image(1, new Random(1));
    Header header = Header.parse(new HostFile(file));
    int extraLength = 36;
    file.write(header.snapshotsOffset() + extraLength, Header.bigEndian(4).putInt(0, 1 << 30));
    file.flush();
    byte[] before = bytes(file);
    var image = Qcow2Image.open(file, OpenOptions.reading());
    assertThatThrownBy(image::check)
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("not checked");
    assertThatThrownBy(() -> image.repair(what))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("passes the end of the file")
        .hasMessageContaining("nothing is repaired");
    assertThat(bytes(file.reopen())).isEqualTo(before);
  }

  private static byte[] bytes(CrashingFile file) throws BlockException {
    byte[] all = new byte[(int) file.virtualSize()];
    file.read(0, ByteBuffer.wrap(all));
    return all;
  }

  @Test
  void makesARefcountTableWhereTheHeaderNamesNone() throws Exception {
    CrashingFile file = image(2, new Random(2));
    byte[] guest;
    try (var before = Qcow2Image.open(file, OpenOptions.reading())) {
      guest = bytes(before);
    }
    file.reopen();
    int refcountClusters = 56;
    file.write(refcountClusters, Header.bigEndian(4));
    file.flush();
    for (OpenOptions options : List.of(OpenOptions.reading(), OpenOptions.readWrite())) {
      assertThatThrownBy(() -> Qcow2Image.open(file, options))
          .isInstanceOf(CorruptImageException.class)
          .hasMessageContaining("does not contain a refcount table");
    }
    for (int cut = 1; cut < 30; cut++) {
      CrashingFile copy = file.copy();
      copy.cutPowerAt(cut);
      var image = Qcow2Image.open(copy, OpenOptions.reading().toJudge());
      assertThat(image.check().corruptions()).isPositive();
      assertThat(image.repair(Repair.LEAKS).after().sound()).isFalse();
      try {
        assertThat(image.repair(Repair.ALL).after().sound()).isTrue();
        image.close();
        clean(copy.reopen(), guest);
        return;
      } catch (BlockException e) { // power was cut: the next repair makes it whole
        CrashingFile left = copy.crash(cut);
        try (var again = Qcow2Image.open(left, OpenOptions.reading().toJudge())) {
          assertThat(again.repair(Repair.ALL).after().sound()).isTrue();
        }
        clean(left.reopen(), guest);
      }
    }
    throw new AssertionError("a repair takes more than 30 steps");
  }

  /// qemu: refuses too.
  @Test
  void doesNotShrinkAnImageWhoseRefcountTableLeadsOutside() throws Exception {
    CrashingFile file = image(3, new Random(3));
    Header header = Header.parse(new HostFile(file));
    file.write(
        header.refcountTableOffset() + 8, Header.bigEndian(8).putLong(0, 0xffffff0000_0000L));
    file.flush();
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      assertThatThrownBy(() -> image.resize(SIZE / 2, ResizeOptions.ANY))
          .isInstanceOf(CorruptImageException.class)
          .hasMessageContaining("refcount table entry 1");
      assertThat(image.virtualSize()).isEqualTo(SIZE);
    }
  }

  /// Overwrites refcounts, and flips copied flags of the active L1 table.
  private static void breakCounts(CrashingFile file, Random random) throws BlockException {
    Header header = Header.parse(new HostFile(file));
    var counts = new Refcounts(new HostFile(file), header, MetadataClusters.NONE);
    long clusters = header.geometry().clusters(file.virtualSize());
    for (int i = 0; i < 4; i++) {
      long cluster = random.nextLong(clusters);
      int index = (int) (cluster >>> header.geometry().refcountBlockBits());
      ByteBuffer block = counts.blockCopy(index);
      int within = (int) (cluster & ((1L << header.geometry().refcountBlockBits()) - 1));
      Refcounts.set(block, within, header.geometry().refcountOrder(), random.nextInt(4));
      file.write(counts.table()[index], block.rewind());
    }
    if (random.nextBoolean()) {
      long at = header.l1Offset() + 8L * random.nextInt(header.l1Entries());
      byte[] first = new byte[1];
      file.read(at, ByteBuffer.wrap(first));
      first[0] ^= (byte) 0x80;
      file.write(at, ByteBuffer.wrap(first));
    }
    if (random.nextInt(4) == 0) { // a refcount block that is nowhere
      file.write(
          header.refcountTableOffset(),
          Header.bigEndian(8).putLong(0, (clusters + 5) << header.geometry().clusterBits()));
    }
    file.flush();
  }

  private static byte[] bytes(Qcow2Image image) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(image.virtualSize())];
    image.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  private static void clean(CrashingFile file, byte[] guest) throws BlockException {
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      CheckResult check = image.check();
      assertThat(check.findings()).isEmpty();
      assertThat(bytes(image)).isEqualTo(guest);
    }
    file.reopen();
  }

  @ParameterizedTest
  @Seeds(60)
  void repairsRefcountsAndFlagsAndKeepsTheGuestsData(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = image(seed, random);
    byte[] guest = bytes(Qcow2Image.open(file.copy(), OpenOptions.reading()));
    breakCounts(file, random);
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      CheckResult before = image.check();
      RepairResult result = image.repair(Repair.ALL);
      assertThat(result.after().findings()).isEmpty();
      assertThat(result.leaksFixed() + result.corruptionsFixed() > 0)
          .isEqualTo(!before.findings().isEmpty());
    }
    file.reopen();
    clean(file, guest);
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      Workload.random(seed).maxLength(20_000).run(image, ModelDisk.of(image), 10);
      assertThat(image.check().findings()).isEmpty();
    }
  }

  @ParameterizedTest
  @Seeds(25)
  void aPowerCutLosesNothingAndTheNextRepairEndsIt(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = image(seed, random);
    byte[] guest = bytes(Qcow2Image.open(file.copy(), OpenOptions.reading()));
    breakCounts(file, random);
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      var attempt = Qcow2Image.open(copy, OpenOptions.reading());
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        attempt.repair(Repair.ALL);
      } catch (BlockException e) {
        assertThat(e).hasStackTraceContaining("power is cut");
        done = false;
      }
      for (int i = 0; i < 3; i++) {
        CrashingFile left = copy.crash(seed * 5 + cut * 3 + i);
        try (var image = Qcow2Image.open(left, OpenOptions.reading())) {
          assertThat(bytes(image)).isEqualTo(guest);
          assertThat(image.repair(Repair.ALL).after().findings()).isEmpty();
        }
        clean(left.reopen(), guest);
      }
      if (done) {
        return;
      }
    }
  }

  @Test
  void leaksAreGivenBackAndCorruptionsStayWithoutAll() throws Exception {
    var random = new Random(1);
    CrashingFile file = image(1, random);
    Header header = Header.parse(new HostFile(file));
    var counts = new Refcounts(new HostFile(file), header, MetadataClusters.NONE);
    ByteBuffer block = counts.blockCopy(0);
    int order = header.geometry().refcountOrder();
    Refcounts.set(block, 0, order, 2); // the header
    Refcounts.set(block, 1, order, 7);
    file.write(counts.table()[0], block.rewind());
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      RepairResult result = image.repair(Repair.LEAKS);
      assertThat(result.leaksFixed()).isEqualTo(2);
      assertThat(result.findings()).contains("Repairing cluster 0 refcount=2 reference=1");
      assertThat(result.after().findings()).isEmpty();
    }
  }

  @Test
  void anImageThatWasNotClosedIsRepairedBeforeItIsWritten() throws Exception {
    var random = new Random(3);
    CrashingFile file = image(3, random);
    byte[] guest = bytes(Qcow2Image.open(file.copy(), OpenOptions.reading()));
    breakCounts(file, random);
    file.write(79, ByteBuffer.wrap(new byte[] {1})); // the dirty bit
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      assertThat(image.information().dirty()).isTrue();
    }
    file.reopen();
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      assertThat(image.information().dirty()).isFalse();
      assertThat(image.check().findings()).isEmpty();
      assertThat(bytes(image)).isEqualTo(guest);
    }
  }

  @Test
  void theCorruptBitGoesWhenTheImageIsSound() throws Exception {
    CrashingFile file = image(4, new Random(4));
    file.write(79, ByteBuffer.wrap(new byte[] {2}));
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      assertThat(image.repair(Repair.ALL).after().sound()).isTrue();
      assertThat(image.information().corrupt()).isFalse();
      assertThat(image.readOnly()).isTrue();
    }
    Qcow2Image.open(file.reopen(), OpenOptions.readWrite()).close();
  }
}
