// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.qcow2.CheckResult;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import io.tidemark.testkit.Workload;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// The qcow2 room beside QEMU: ours written and theirs checked, theirs written and ours read, and
/// bitmaps both ways.
@Tag("interop")
class Qcow2PeerIT {
  private final ScratchFolder scratch = new ScratchFolder();

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static Qcow2Image open(Path path, OpenOptions options) throws BlockException {
    return Qcow2Image.open(FileNode.open(path, options), options);
  }

  private static void create(Path path, long size, Map<String, String> options)
      throws BlockException {
    try (FileNode file = FileNode.create(path)) {
      Qcow2Image.create(file, new CreateOptions(size, Optional.empty(), options));
    }
  }

  private static Path rawOf(ModelDisk model, Path path) throws IOException {
    return Files.write(path, model.read(0, Math.toIntExact(model.size())));
  }

  @ParameterizedTest
  @Seeds(8)
  void qemuFindsOursSoundAndReadsTheSame(long seed) throws Exception {
    var random = new Random(seed);
    long size = (2 << 20) + random.nextInt(1000) * 512L;
    Path path = scratch.resolve("ours.qcow2");
    int bits = 9 + random.nextInt(10);
    boolean v2 = random.nextInt(4) == 0;
    create(path, size, Map.of("cluster_size", "" + (1 << bits), "compat", v2 ? "0.10" : "1.1"));
    OpenOptions options = OpenOptions.readWrite();
    if (seed != 1) { // the first without a log: every allocating write then waits for the disk
      options = options.withRunDir(scratch.path());
    }
    var model = new ModelDisk(size);
    for (int round = 0; round < 2; round++) {
      try (Qcow2Image image = open(path, options)) {
        Workload.random(seed * 2 + round)
            .maxLength(100_000)
            .flushPercent(12)
            .run(image, model, 120);
      }
    }
    Tool qemuImg = Tool.require("qemu-img");
    Tool.Result check = qemuImg.ok("check", path);
    assertThat(check.out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, rawOf(model, scratch.resolve("raw")));
    try (Qcow2Image image = open(path, OpenOptions.reading())) {
      agrees(qemuImg.ok("check", "--output=json", path).out(), image.check());
    }
  }

  private static void agrees(String json, CheckResult ours) {
    assertThat(ours.corruptions() + ours.leaks() + ours.checkErrors())
        .as("%s", ours.findings())
        .isZero();
    assertThat(number(json, "image-end-offset")).isEqualTo(ours.imageEndOffset());
    assertThat(number(json, "total-clusters")).isEqualTo(ours.totalClusters());
    assertThat(number(json, "allocated-clusters")).isEqualTo(ours.allocatedClusters());
    assertThat(number(json, "fragmented-clusters")).isEqualTo(ours.fragmentedClusters());
    assertThat(number(json, "compressed-clusters")).isEqualTo(ours.compressedClusters());
  }

  private static long number(String json, String key) {
    int at = json.indexOf('"' + key + "\":");
    if (at < 0) {
      return 0; // qemu-img leaves zeroes out
    }
    int from = at + key.length() + 3;
    int to = from;
    while (to < json.length() && " 0123456789".indexOf(json.charAt(to)) >= 0) {
      to++;
    }
    return Long.parseLong(json.substring(from, to).strip());
  }

  @ParameterizedTest
  @Seeds(8)
  void oursReadsAndWritesWhatQemuMade(long seed) throws Exception {
    var random = new Random(seed);
    long size = (2 << 20) + random.nextInt(1000) * 512L;
    Path path = scratch.resolve("theirs.qcow2");
    Tool qemuImg = Tool.require("qemu-img");
    Tool qemuIo = Tool.require("qemu-io");
    boolean v2 = random.nextInt(4) == 0;
    String options =
        "cluster_size="
            + (1 << (9 + random.nextInt(10)))
            + ",compat="
            + (v2 ? "0.10" : "1.1,refcount_bits=" + (4 << random.nextInt(5)));
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options, path, size);
    for (int round = 0; round < 3; round++) {
      ImageTool.change(path, "qcow2", size, random, 12);
      if (random.nextBoolean()) {
        qemuImg.ok("snapshot", "-c", "snap" + round, path);
      }
    }
    Path raw = scratch.resolve("raw");
    qemuImg.ok("convert", "-f", "qcow2", "-O", "raw", path, raw);
    String theirs = qemuImg.ok("check", "--output=json", path).out();
    ModelDisk model;
    OpenOptions logged = OpenOptions.readWrite().withRunDir(scratch.path());
    try (Qcow2Image image = open(path, logged)) {
      model = ModelDisk.of(image);
      assertThat(model.read(0, Math.toIntExact(size))).isEqualTo(Files.readAllBytes(raw));
      agrees(theirs, image.check());
      Workload.random(seed).maxLength(100_000).flushPercent(12).run(image, model, 120);
      model.holdsExactly(image);
    }
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    Path after = scratch.resolve("after.raw");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, rawOf(model, after));
    // QEMU goes on with what ours left.
    ImageTool.change(path, "qcow2", size, random, 10);
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    qemuIo.ok("-f", "qcow2", "-c", "read 0 4096", path);
  }

  @Test
  void compressedClustersOfQemuAreReadAndOverwritten() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    Path raw = scratch.resolve("raw");
    byte[] bytes = new byte[3 << 20];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) (i / 1000 * 7 + (i % 50 == 0 ? i : 0));
    }
    Files.write(raw, bytes);
    Path path = scratch.resolve("c.qcow2");
    qemuImg.ok("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path);
    OpenOptions logged = OpenOptions.readWrite().withRunDir(scratch.path());
    try (Qcow2Image image = open(path, logged)) {
      ModelDisk model = ModelDisk.of(image);
      assertThat(model.read(0, bytes.length)).isEqualTo(bytes);
      Workload.random(3).maxLength(100_000).flushPercent(12).run(image, model, 120);
      model.holdsExactly(image);
      image.flush();
      rawOf(model, scratch.resolve("after"));
    }
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, scratch.resolve("after"));
  }

  @Test
  void qemuShowsAndUsesOurBitmaps() throws Exception {
    long size = 64 << 20;
    Path path = scratch.resolve("b.qcow2");
    create(path, size, Map.of());
    var first = new DirtyBitmap("first", size, 65536);
    var second = new DirtyBitmap("a longer name, disabled", size, 4096);
    second.setEnabled(false);
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      image.write(1 << 20, ByteBuffer.wrap(new byte[100_000]));
      first.set(1 << 20, 100_000);
      second.set(5 << 20, 4096);
      image.bitmapStore().orElseThrow().store(List.of(first, second));
    }
    Tool qemuImg = Tool.require("qemu-img");
    String info = qemuImg.ok("info", path).out();
    assertThat(info).contains("name: first", "name: a longer name, disabled", "granularity: 4096");
    assertThat(info).contains("[0]: auto").doesNotContain("in-use");
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    // QEMU records into the enabled one, and merges the other into it: ours loads both kinds.
    Tool.require("qemu-io").ok("-f", "qcow2", "-c", "write 32M 64k", path);
    qemuImg.ok("bitmap", "--merge", "a longer name, disabled", path, "first");
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    first.set(32 << 20, 65536);
    first.set(5 << 20, 4096);
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      BitmapStore store = image.bitmapStore().orElseThrow();
      same(store.load("first"), first);
      same(store.load("a longer name, disabled"), second);
      assertThat(store.load("a longer name, disabled").enabled()).isFalse();
      store.remove("first");
      store.remove("a longer name, disabled");
    }
    assertThat(qemuImg.ok("info", path).text()).doesNotContain("bitmaps", "WARNING");
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
  }

  private static void same(DirtyBitmap found, DirtyBitmap wanted) {
    assertThat(found.granularity()).isEqualTo(wanted.granularity());
    assertThat(found.dirtyBits()).isEqualTo(wanted.dirtyBits());
    List<Long> differing = new ArrayList<>();
    for (int i = 0; i < wanted.wordCount(); i++) {
      if (found.word(i) != wanted.word(i)) {
        differing.add((long) i);
      }
    }
    assertThat(differing).isEmpty();
  }

  @Test
  void aWriteThatNobodyTracksLeavesQemuAnInconsistentBitmap() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    Path path = scratch.resolve("b.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", path, "64M");
    qemuImg.ok("bitmap", "--add", "-g", "64k", path, "tracked");
    qemuImg.ok("bitmap", "--add", "--disable", path, "resting");
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      assertThat(image.bitmapStore().orElseThrow().stored())
          .containsExactly(
              new BitmapStore.Stored("tracked", 65536, false, true),
              new BitmapStore.Stored("resting", 65536, false, false));
      image.write(0, ByteBuffer.wrap(new byte[512]));
    }
    assertThat(qemuImg.ok("info", "--output=json", path).out())
        .containsSubsequence("in-use", "tracked", "resting");
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      assertThat(image.bitmapStore().orElseThrow().stored())
          .containsExactly(
              new BitmapStore.Stored("tracked", 65536, true, true),
              new BitmapStore.Stored("resting", 65536, false, false));
      image.bitmapStore().orElseThrow().remove("tracked");
    }
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
  }

  @Test
  void aBitmapAddedHereAndNotStoredIsInUseForQemu() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    Path path = scratch.resolve("b.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "-u", path, "64M");
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      image.bitmapStore().orElseThrow().add(new DirtyBitmap("new", 64 << 20, 65536));
    }
    String info = qemuImg.ok("info", "-U", path).out();
    assertThat(info).contains("in-use", "name: new", "backing file: base.raw");
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      assertThat(image.backingReference().orElseThrow().name()).isEqualTo("base.raw");
      assertThat(image.bitmapStore().orElseThrow().stored())
          .containsExactly(new BitmapStore.Stored("new", 65536, true, true));
    }
  }

  @Test
  void createsWhatQemuImgCreates() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    for (long size : new long[] {0, 512, 1 << 20, 1L << 30, 40L << 40}) {
      Path theirs = scratch.resolve("theirs-" + size);
      Path ours = scratch.resolve("ours-" + size);
      qemuImg.ok("create", "-q", "-f", "qcow2", theirs, size);
      create(ours, size, Map.of());
      byte[] a = Files.readAllBytes(theirs);
      byte[] b = Files.readAllBytes(ours);
      assertThat(java.util.Arrays.equals(a, b)).as("size %d", size).isTrue();
      assertThat(qemuImg.ok("check", ours).out()).contains("No errors were found");
    }
  }

  @Test
  void growsAsQemuSeesIt() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    Path path = scratch.resolve("g.qcow2");
    create(path, 1 << 20, Map.of("cluster_size", "512"));
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      image.write(0, ByteBuffer.wrap(new byte[] {1}));
      image.resize(512 << 20);
      image.write((512 << 20) - 1, ByteBuffer.wrap(new byte[] {2}));
    }
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    assertThat(qemuImg.ok("info", path).out()).contains("512 MiB");
    Tool.require("qemu-io")
        .ok("-f", "qcow2", "-c", "read -P 2 536870911 1", "-c", "read -P 0 1M 1M", path);
  }
}
