// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ResizeOptions;
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
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// External data files beside QEMU: ours read by it, its read and written on by us.
@Tag("interop")
class Qcow2DataFileIT {
  private final ScratchFolder scratch = new ScratchFolder();
  private final Tool qemuImg = Tool.require("qemu-img");
  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private FormatNode open(Path path) throws Exception {
    return opener.open(path, "qcow2", OpenOptions.readWrite().with(Durability.FLUSHED));
  }

  private void judge(Path image, Path data, ModelDisk model, boolean raw) throws Exception {
    Path bytes =
        Files.write(scratch.resolve("model.raw"), model.read(0, Math.toIntExact(model.size())));
    assertThat(qemuImg.ok("check", image).out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", image, bytes);
    if (raw) {
      assertThat(Files.mismatch(data, bytes)).isEqualTo(-1);
    }
  }

  @ParameterizedTest
  @Seeds(6)
  void qemuReadsOurs(long seed) throws Exception {
    var random = new Random(seed);
    boolean raw = random.nextBoolean();
    boolean extended = random.nextInt(3) == 0;
    Path image = scratch.resolve("ours.qcow2");
    Path data = scratch.resolve("ours.data");
    long size = (1 << 20) + random.nextInt(1000) * 512L;
    opener.create(
        image,
        "qcow2",
        new CreateOptions(
            size,
            Optional.empty(),
            Map.of(
                "data_file",
                data.toString(),
                "data_file_raw",
                raw ? "on" : "off",
                "extended_l2",
                extended ? "on" : "off",
                "cluster_size",
                "" + (1 << (extended ? 14 : 9 + random.nextInt(9))))));
    ModelDisk model;
    try (FormatNode node = open(image)) {
      model = ModelDisk.of(node);
      Workload.random(seed).maxLength(100_000).run(node, model, 100);
    }
    judge(image, data, model, raw);
    try (FormatNode node = open(image)) {
      node.resize(600 * 1024, ResizeOptions.ANY);
      node.resize(1 << 20);
      model = ModelDisk.of(node);
    }
    judge(image, data, model, raw);
  }

  @ParameterizedTest
  @Seeds(6)
  void oursReadsQemus(long seed) throws Exception {
    var random = new Random(seed);
    boolean raw = random.nextBoolean();
    Path image = scratch.resolve("theirs.qcow2");
    Path data = scratch.resolve("theirs.data");
    qemuImg.ok(
        "create",
        "-f",
        "qcow2",
        "-o",
        "data_file=" + data + ",data_file_raw=" + (raw ? "on" : "off"),
        image,
        "3M");
    Tool.require("qemu-io")
        .ok(
            "-f",
            "qcow2",
            "-c",
            "write -P 3 0 700k",
            "-c",
            "write -P 4 1M 100k",
            "-c",
            "write -z -u 64k 128k",
            "-c",
            "write -z 256k 3k",
            "-c",
            "discard 384k 64k",
            image);
    Path before = scratch.resolve("before.raw");
    qemuImg.ok("convert", "-f", "qcow2", "-O", "raw", image, before);
    ModelDisk model = new ModelDisk(3 << 20);
    model.write(0, Files.readAllBytes(before));
    try (FormatNode node = open(image)) {
      model.holdsExactly(node);
      Workload.random(seed).maxLength(100_000).run(node, model, 80);
    }
    judge(image, data, model, raw);
  }

  @ParameterizedTest
  @ValueSource(strings = {"on", "off"})
  void createIsByteForByteTheSame(String raw) throws Exception {
    Path theirs = scratch.resolve("theirs.qcow2");
    Path ours = scratch.resolve("ours.qcow2");
    Path data = scratch.resolve("data");
    qemuImg.ok(
        "create",
        "-f",
        "qcow2",
        "-o",
        "data_file=" + data + ",data_file_raw=" + raw,
        theirs,
        "10M");
    long dataSize = Files.size(data);
    opener.create(
        ours,
        "qcow2",
        new CreateOptions(
            10 << 20,
            Optional.empty(),
            Map.of("data_file", data.toString(), "data_file_raw", raw)));
    assertThat(Files.size(data)).isEqualTo(dataSize);
    assertThat(Files.mismatch(ours, theirs)).isEqualTo(-1);
  }
}
