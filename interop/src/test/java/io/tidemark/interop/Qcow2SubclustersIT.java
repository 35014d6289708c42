// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import io.tidemark.testkit.Workload;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Images with extended L2 entries beside QEMU, both ways, over backing files shorter and longer.
@Tag("interop")
class Qcow2SubclustersIT {
  private static final int MIB = 1 << 20;

  private final ScratchFolder scratch = new ScratchFolder();

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static String clusterSize(Random random) {
    return (16 << random.nextInt(6)) + "k";
  }

  /// A raw file of random bytes with a hole, shorter or longer than the disk.
  private Path base(long size, Random random) throws Exception {
    byte[] bytes = new byte[(int) (random.nextBoolean() ? size / 2 + 700 : size + 70_000)];
    random.nextBytes(bytes);
    java.util.Arrays.fill(bytes, 100_000, 300_000, (byte) 0);
    return Files.write(scratch.resolve("base.raw"), bytes);
  }

  private static Qcow2Image open(Path path, OpenOptions options, Optional<Path> base)
      throws BlockException {
    Qcow2Image image = Qcow2Image.open(FileNode.open(path, options), options);
    if (base.isPresent()) {
      image.attachBacking(FileNode.open(base.get(), OpenOptions.reading()));
    }
    return image;
  }

  private Path raw(ModelDisk model) throws Exception {
    Path path = scratch.resolve("model.raw");
    return Files.write(path, model.read(0, Math.toIntExact(model.size())));
  }

  private void qemuFinds(Path path, ModelDisk model) throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, raw(model));
  }

  /// The same figures, in whatever order.
  private static void checksAgree(Path path) {
    String theirs = ImageTool.qemuImg("check", "--output=json", path).out();
    String ours = ImageTool.tidemark("check", "--output=json", path).out();
    assertThat(ours.replace(",", "").lines().sorted())
        .containsExactlyElementsOf(theirs.replace(",", "").lines().sorted().toList());
  }

  @ParameterizedTest
  @Seeds(10)
  void qemuFindsOursSoundAndReadsTheSame(long seed) throws Exception {
    var random = new Random(seed);
    long size = 2 * MIB + random.nextInt(1000) * 512L;
    Optional<Path> base = seed % 2 == 0 ? Optional.of(base(size, random)) : Optional.empty();
    Path path = scratch.resolve("ours.qcow2");
    try (FileNode file = FileNode.create(path)) {
      Qcow2Image.create(
          file,
          new CreateOptions(
              size,
              base.map(_ -> new BackingReference("base.raw", Optional.of("raw"))),
              Map.of("extended_l2", "on", "cluster_size", clusterSize(random))));
    }
    OpenOptions options = OpenOptions.readWrite();
    if (seed % 3 != 0) {
      options = options.withRunDir(scratch.path());
    }
    ModelDisk model;
    try (Qcow2Image image = open(path, OpenOptions.reading(), base)) {
      model = ModelDisk.of(image);
    }
    for (int round = 0; round < 2; round++) {
      try (Qcow2Image image = open(path, options, base)) {
        Workload.random(seed * 2 + round)
            .compressedPercent(10)
            .maxLength(100_000)
            .flushPercent(12)
            .run(image, model, 120);
        model.holdsExactly(image);
      }
      qemuFinds(path, model);
    }
    checksAgree(path);
    ImageTool.agree("map", "--output=json", path);
  }

  @ParameterizedTest
  @Seeds(10)
  void oursReadsAndWritesWhatQemuMade(long seed) throws Exception {
    var random = new Random(seed);
    long size = 2 * MIB + random.nextInt(1000) * 512L;
    Tool qemuImg = Tool.require("qemu-img");
    Optional<Path> base = seed % 2 == 0 ? Optional.of(base(size, random)) : Optional.empty();
    Path path = scratch.resolve("theirs.qcow2");
    String options =
        "extended_l2=on,cluster_size="
            + clusterSize(random)
            + (base.isEmpty() && seed % 3 == 0 ? ",preallocation=metadata" : "");
    if (base.isPresent()) {
      qemuImg.ok(
          "create", "-q", "-f", "qcow2", "-o", options, "-b", base.get(), "-F", "raw", path, size);
    } else {
      qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options, path, size);
    }
    for (int round = 0; round < 3; round++) {
      ImageTool.change(path, "qcow2", size, random, 12);
      if (random.nextBoolean()) {
        qemuImg.ok("snapshot", "-c", "snap" + round, path);
      }
    }
    Path raw = scratch.resolve("raw");
    qemuImg.ok("convert", "-f", "qcow2", "-O", "raw", path, raw);
    checksAgree(path);
    ImageTool.agree("map", "--output=json", path);
    ModelDisk model;
    try (Qcow2Image image = open(path, OpenOptions.readWrite().withRunDir(scratch.path()), base)) {
      model = ModelDisk.of(image);
      assertThat(model.read(0, Math.toIntExact(size))).isEqualTo(Files.readAllBytes(raw));
      Workload.random(seed)
          .compressedPercent(10)
          .maxLength(100_000)
          .flushPercent(12)
          .run(image, model, 120);
      model.holdsExactly(image);
    }
    qemuFinds(path, model);
    checksAgree(path);
    ImageTool.change(path, "qcow2", size, random, 10);
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
  }

  @Test
  void createsWhatQemuImgCreates() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    for (String clusters : new String[] {"16k", "64k", "2M"}) {
      for (long size : new long[] {0, 512, 1L << 30, 1L << 40}) {
        Path theirs = scratch.resolve("theirs-" + clusters + size);
        Path ours = scratch.resolve("ours-" + clusters + size);
        qemuImg.ok(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "extended_l2=on,cluster_size=" + clusters,
            theirs,
            size);
        try (FileNode file = FileNode.create(ours)) {
          Qcow2Image.create(
              file,
              new CreateOptions(
                  size, Optional.empty(), Map.of("extended_l2", "on", "cluster_size", clusters)));
        }
        assertThat(Files.mismatch(theirs, ours)).as("%s, %d", clusters, size).isEqualTo(-1);
      }
    }
  }

  @Test
  void aSmallWriteTakesItsSubclusterOnly() throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    Path base = base(4 * MIB, new Random(1));
    Path path = scratch.resolve("over.qcow2");
    qemuImg.ok(
        "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", path, "4M");
    try (Qcow2Image image = open(path, OpenOptions.readWrite(), Optional.of(base))) {
      image.write(MIB + 5000, java.nio.ByteBuffer.wrap(new byte[] {1, 2, 3}));
    }
    assertThat(qemuImg.ok("map", "--output=json", path).out())
        .contains("\"start\": " + (MIB + 4096) + ", \"length\": 2048, \"depth\": 0");
  }
}
