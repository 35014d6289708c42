// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
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
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Compressed clusters beside QEMU: ours read and checked by it, its read and written on by us.
@Tag("interop")
class Qcow2CompressionIT {
  /// Unpacks every compressed cluster of an image with a window of 2^12 bytes, in small pieces, so
  /// that a match that reaches further back fails.
  private static final String STRICT_READER =
      """
      import struct, sys, zlib
      f = open(sys.argv[1], 'rb').read() + bytes(1 << 17)
      bits, = struct.unpack('>I', f[20:24]); n, l1 = struct.unpack('>IQ', f[36:48])
      size = 1 << bits; shift = 62 - (bits - 8); count = 0
      for i in range(n):
          l2 = struct.unpack('>Q', f[l1 + 8 * i:l1 + 8 * i + 8])[0] & 0x00fffffffffffe00
          for j in range(size // 8 if l2 else 0):
              e, = struct.unpack('>Q', f[l2 + 8 * j:l2 + 8 * j + 8])
              if not e >> 62 & 1: continue
              at = e & (1 << shift) - 1; end = (at // 512 + (e >> shift & (1 << 62 - shift) - 1) + 1) * 512
              d = zlib.decompressobj(-12); left = f[at:end]; done = 0
              while not d.eof:
                  piece = d.decompress(left, 7); done += len(piece); left = d.unconsumed_tail
                  assert piece or d.eof, 'cut short'
              assert done == size, done
              count += 1
      print(count)
      """;

  private final ScratchFolder scratch = new ScratchFolder();

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static Qcow2Image open(Path path, OpenOptions options) throws BlockException {
    return Qcow2Image.open(FileNode.open(path, options), options, Durability.FLUSHED);
  }

  private static Path rawOf(ModelDisk model, Path path) throws IOException {
    return Files.write(path, model.read(0, Math.toIntExact(model.size())));
  }

  private static void sound(Path path) throws BlockException {
    try (Qcow2Image image = open(path, OpenOptions.reading())) {
      CheckResult result = image.check();
      assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
    }
  }

  @ParameterizedTest
  @Seeds(10)
  void qemuReadsOurs(long seed) throws Exception {
    var random = new Random(seed);
    long size = (2 << 20) + random.nextInt(1000) * 512L;
    Path path = scratch.resolve("ours.qcow2");
    String type = seed % 2 == 0 ? "zstd" : "zlib";
    int bits = 9 + random.nextInt(13);
    try (FileNode file = FileNode.create(path)) {
      Qcow2Image.create(
          file,
          new CreateOptions(
              size,
              Optional.empty(),
              Map.of(
                  "cluster_size",
                  "" + (1 << bits),
                  "compression_type",
                  type,
                  "refcount_bits",
                  "" + (1 << random.nextInt(7)))));
    }
    var model = new ModelDisk(size);
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      Workload.random(seed).maxLength(100_000).compressedPercent(70).run(image, model, 150);
    }
    Tool qemuImg = Tool.require("qemu-img");
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, rawOf(model, scratch.resolve("raw")));
    if (type.equals("zlib")) {
      Tool.require("python3").ok("-c", STRICT_READER, path);
    }
  }

  @ParameterizedTest
  @Seeds(8)
  void oursReadsQemus(long seed) throws Exception {
    var random = new Random(seed);
    long size = (3 << 20) + random.nextInt(1000) * 512L;
    var source = new ModelDisk(size);
    byte[] bytes = new byte[(int) size];
    for (int at = 0; at < size; at++) { // some of it noise, some of it text
      bytes[at] = (byte) (at % 300_000 < 90_000 ? random.nextInt() : 'a' + random.nextInt(9));
    }
    source.write(0, bytes);
    Path raw = rawOf(source, scratch.resolve("raw"));
    Path path = scratch.resolve("theirs.qcow2");
    String options =
        "compression_type="
            + (seed % 2 == 0 ? "zstd" : "zlib")
            + ",cluster_size="
            + (1 << (9 + random.nextInt(13)));
    Tool qemuImg = Tool.require("qemu-img");
    qemuImg.ok("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path);
    ModelDisk model;
    try (Qcow2Image image = open(path, OpenOptions.readWrite())) {
      source.holdsExactly(image);
      model = ModelDisk.of(image);
      Workload.random(seed).maxLength(100_000).compressedPercent(30).run(image, model, 100);
      model.holdsExactly(image);
    }
    sound(path);
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
    qemuImg.ok("compare", "-f", "qcow2", "-F", "raw", path, rawOf(model, scratch.resolve("after")));
  }

  @Test
  void packsAsTightlyAsQemu() throws Exception {
    var text = new java.io.ByteArrayOutputStream();
    try (var files = Files.walk(Path.of("/usr/share/common-licenses"))) {
      for (Path file : files.filter(Files::isRegularFile).sorted().toList()) {
        text.write(Files.readAllBytes(file));
      }
    }
    text.write(new byte[512 - text.size() % 512]);
    byte[] bytes = text.toByteArray();
    Path raw = Files.write(scratch.resolve("raw"), bytes);
    Path theirs = scratch.resolve("theirs.qcow2");
    Path ours = scratch.resolve("ours.qcow2");
    Tool qemuImg = Tool.require("qemu-img");
    qemuImg.ok("convert", "-c", "-f", "raw", "-O", "qcow2", raw, theirs);
    try (FileNode file = FileNode.create(ours)) {
      Qcow2Image.create(file, CreateOptions.ofSize(bytes.length));
    }
    try (Qcow2Image image = open(ours, OpenOptions.readWrite())) {
      for (int at = 0; at < bytes.length; at += 65536) {
        image.writeCompressed(at, ByteBuffer.wrap(bytes, at, Math.min(65536, bytes.length - at)));
      }
    }
    qemuImg.ok("compare", "-f", "raw", "-F", "qcow2", raw, ours);
    assertThat(Files.size(ours)).isLessThanOrEqualTo(Files.size(theirs) + 65536);
  }
}
