// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static io.tidemark.interop.ImageTool.agree;
import static io.tidemark.interop.ImageTool.change;
import static io.tidemark.interop.ImageTool.ok;
import static io.tidemark.interop.ImageTool.qemuImg;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import tools.jackson.databind.json.JsonMapper;

/// `tidemark image info` and `map` beside qemu-img's.
@Tag("interop")
class ImageInfoIT {
  private static final long MIB = 1 << 20;
  private final ScratchFolder folder = new ScratchFolder();

  @BeforeEach
  void requireTools() {
    Tool.require("qemu-img");
    Tool.require("qemu-io");
  }

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  private static void agreeInJson(Object... words) {
    Tool.Result theirs = qemuImg(words);
    assertThat(theirs.exit()).isZero();
    JsonMapper mapper = JsonMapper.shared();
    assertThat(mapper.readTree(ok(words))).isEqualTo(mapper.readTree(theirs.out()));
  }

  private void agreeOn(Path image) {
    agree("info", image);
    agree("info", "--backing-chain", image);
    agree("map", image);
    agree("map", "--output=json", image);
    agree("map", "--output=json", "-s", "1M", "-l", "3M", image);
    agreeInJson("info", "--output=json", image);
    agreeInJson("info", "--output=json", "--backing-chain", image);
  }

  @ParameterizedTest
  @Seeds(8)
  void chainsOfRandomImages(long seed) {
    Random random = new Random(seed);
    Path base = folder.resolve("base");
    Path middle = folder.resolve("middle");
    Path top = folder.resolve("top");
    String baseFormat = random.nextBoolean() ? "raw" : "qcow2";
    long size = (8 + random.nextInt(200)) * MIB;
    Tool.require("qemu-img").ok("create", "-q", "-f", baseFormat, base, size);
    change(base, baseFormat, size, random, 20);
    long middleSize = size / 2 + random.nextInt(64) * MIB;
    String cluster = "cluster_size=" + (512 << random.nextInt(13));
    Tool.require("qemu-img")
        .ok(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            cluster,
            "-b",
            "base",
            "-F",
            baseFormat,
            middle,
            middleSize);
    change(middle, "qcow2", middleSize, random, 20);
    long topSize = middleSize / 2 + random.nextInt(64) * MIB;
    Tool.require("qemu-img")
        .ok("create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", top, topSize);
    change(top, "qcow2", topSize, random, 20);
    for (Path image : List.of(base, middle, top)) {
      agreeOn(image);
    }
  }

  @Test
  void bitmapsAndTheirFlags() {
    Path image = folder.resolve("b.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, "64M");
    Tool.require("qemu-img").ok("bitmap", "--add", image, "one");
    Tool.require("qemu-img").ok("bitmap", "--add", "--disable", "-g", "4k", image, "two");
    agreeOn(image);
  }

  @Test
  void internalSnapshots() {
    Path image = folder.resolve("s.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, "64M");
    change(image, "qcow2", 64 * MIB, new Random(1), 10);
    Tool.require("qemu-img").ok("snapshot", "-c", "first", image);
    Tool.require("qemu-img").ok("snapshot", "-c", "a longer name than fits the column", image);
    change(image, "qcow2", 64 * MIB, new Random(2), 10);
    agreeOn(image);
  }

  @Test
  void variantsOfTheFormat() {
    for (String options :
        List.of(
            "compat=0.10",
            "compat=v3,lazy_refcounts=on",
            "refcount_bits=1",
            "refcount_bits=64",
            "preallocation=metadata",
            "preallocation=falloc",
            "compression_type=zstd",
            "cluster_size=2M")) {
      Path image = folder.resolve("v-" + options.replace('=', '-') + ".qcow2");
      Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", "-o", options, image, "32M");
      agree("info", image);
      agreeInJson("info", "--output=json", image);
      agree("map", "--output=json", image);
    }
  }

  @Test
  void compressedClustersHaveNoPlace() {
    Path source = folder.resolve("s.raw");
    Path image = folder.resolve("c.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "raw", source, "16M");
    change(source, "raw", 16 * MIB, new Random(3), 10);
    Tool.require("qemu-img").ok("convert", "-f", "raw", "-O", "qcow2", "-c", source, image);
    agree("map", "--output=json", image);
    assertThat(ImageTool.tidemark("map", image).exit())
        .isEqualTo(qemuImg("map", image).exit())
        .isEqualTo(1);
  }

  @Test
  void whatIsNoImage() throws java.io.IOException {
    Path garbage = folder.resolve("garbage");
    byte[] bytes = new byte[70_000];
    new Random(4).nextBytes(bytes);
    java.nio.file.Files.write(garbage, bytes);
    agree("info", garbage); // raw, as far as anyone can tell
    for (Object[] words :
        new Object[][] {
          {"info", folder.resolve("missing")},
          {"info", "-f", "qcow2", garbage},
          {"info", "-f", "zork", garbage},
          {"info", folder.path()},
          {"map", folder.resolve("missing")},
          {"info", "--output=yaml", garbage},
          {"info"},
        }) {
      agree(words);
      assertThat(ImageTool.tidemark(words).err())
          .startsWith("tidemark: ")
          .doesNotContain("Exception");
    }
  }
}
