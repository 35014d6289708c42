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
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/// `tidemark image create`, `convert`, `compare` and `check`, judged by qemu-img.
@Tag("interop")
class ImageConvertIT {
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

  private static void same(Path one, Path other) {
    Tool.require("qemu-img").ok("compare", one, other);
    agree("compare", one, other);
  }

  private static void sound(Path image) {
    Tool.Result check = qemuImg("check", image);
    assertThat(check.exit()).as(check.text()).isZero();
  }

  /// A chain of two that qemu wrote; some tops are longer than their base, some shorter.
  private Path randomChain(Random random) {
    Path base = folder.resolve("base.qcow2");
    Path top = folder.resolve("top.qcow2");
    long size = (4 + random.nextInt(100)) * MIB + random.nextInt(100) * 512L;
    long topSize = (4 + random.nextInt(100)) * MIB + random.nextInt(100) * 512L;
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", base, size);
    change(base, "qcow2", size, random, 25);
    Tool.require("qemu-img")
        .ok("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top, topSize);
    change(top, "qcow2", topSize, random, 25);
    return top;
  }

  @ParameterizedTest
  @Seeds(8)
  void randomChainsBecomeImagesThatReadTheSame(long seed) {
    Random random = new Random(seed);
    Path top = randomChain(random);
    Path raw = folder.resolve("ours.raw");
    Path qcow2 = folder.resolve("ours.qcow2");
    Path over = folder.resolve("over.qcow2");
    String cluster = "cluster_size=" + (512 << random.nextInt(13));
    ok("convert", "-O", "raw", top, raw);
    same(top, raw);
    ok("convert", "-O", "qcow2", "-o", cluster, top, qcow2);
    same(top, qcow2);
    sound(qcow2);
    ok("convert", "-O", "qcow2", "-B", folder.resolve("base.qcow2"), "-F", "qcow2", top, over);
    same(top, over);
    sound(over);
    Path again = folder.resolve("again.qcow2");
    ok("convert", "-O", "qcow2", "-S", "64k", raw, again);
    same(top, again);
    sound(again);
  }

  @ParameterizedTest
  @Seeds(4)
  void imagesThatOursWroteAreChangedByQemuAndReadAgain(long seed) {
    Random random = new Random(seed);
    Path image = folder.resolve("image.qcow2");
    long size = (4 + random.nextInt(100)) * MIB;
    ok("create", "-q", "-f", "qcow2", image, size);
    sound(image);
    for (int round = 0; round < 3; round++) {
      change(image, "qcow2", size, random, 15);
      sound(image);
      Path copy = folder.resolve("copy.qcow2");
      ok("convert", "-O", "qcow2", image, copy);
      same(image, copy);
      sound(copy);
      image = Path.of(image + "x");
      Tool.require("qemu-img").ok("convert", "-O", "qcow2", copy, image);
    }
  }

  @Test
  void convertOntoAnImageThatIsThereClearsIt() {
    Path source = folder.resolve("s.qcow2");
    Path target = folder.resolve("t.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", source, "20M");
    change(source, "qcow2", 20 * MIB, new Random(1), 10);
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", target, "20M");
    Tool.require("qemu-io").ok("-c", "write -P 9 0 20M", target);
    ok("convert", "-n", "-O", "qcow2", source, target);
    same(source, target);
    sound(target);
  }

  @Test
  void formattingLineAndResultAreQemuImgs() {
    Path base = folder.resolve("base.raw");
    Tool.require("qemu-img").ok("create", "-q", "-f", "raw", base, "12345k");
    List<List<Object>> cases =
        List.of(
            List.of("-f", "qcow2", "x", "1G"),
            List.of("-f", "qcow2", "-b", "base.raw", "-F", "raw", "x"),
            List.of("-f", "qcow2", "-b", "base.raw", "-F", "raw", "x", "1M"),
            List.of("-f", "qcow2", "-u", "-b", "nope", "-F", "raw", "x", "1M"),
            List.of("-f", "qcow2", "-o", "cluster_size=128k", "x", "1.5G"),
            List.of("-f", "raw", "x", "1000"),
            List.of("-f", "raw", "-o", "preallocation=falloc", "x", "1M"));
    for (List<Object> one : cases) {
      List<Object> words = new ArrayList<>(List.of("create"));
      for (Object word : one) {
        words.add(word.equals("x") ? folder.resolve("x") : word.equals("base.raw") ? base : word);
      }
      Tool.Result theirs = qemuImg(words.toArray());
      assertThat(theirs.exit()).as("%s: %s", words, theirs.text()).isZero();
      JsonNode theirInfo = information(folder.resolve("x"));
      Tool.Result ours = ImageTool.tidemark(words.toArray());
      assertThat(ours.exit()).as("%s: %s", words, ours.text()).isZero();
      assertThat(ours.out()).isEqualTo(theirs.out());
      assertThat(information(folder.resolve("x"))).as("%s", words).isEqualTo(theirInfo);
    }
  }

  /// What qemu-img says of an image, less the space it takes.
  private static JsonNode information(Path image) {
    var tree =
        JsonMapper.shared()
            .readTree(Tool.require("qemu-img").ok("info", "--output=json", image).out());
    ((tools.jackson.databind.node.ObjectNode) tree).remove("actual-size");
    return tree;
  }

  @Test
  void persistentBitmapsAreCopied() {
    Path source = folder.resolve("s.qcow2");
    Path ours = folder.resolve("ours.qcow2");
    Path theirs = folder.resolve("theirs.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", source, "64M");
    Tool.require("qemu-img").ok("bitmap", "--add", source, "b0");
    Tool.require("qemu-img").ok("bitmap", "--add", "-g", "16k", source, "b1");
    Tool.require("qemu-io").ok("-c", "write -P 1 3M 200k", "-c", "write -P 1 50M 64k", source);
    ok("convert", "-O", "qcow2", "--bitmaps", source, ours);
    Tool.require("qemu-img").ok("convert", "-O", "qcow2", "--bitmaps", source, theirs);
    sound(ours);
    same(ours, theirs);
    assertThat(information(ours).get("format-specific"))
        .isEqualTo(information(theirs).get("format-specific"));
    for (String bitmap : List.of("b0", "b1")) {
      assertThat(dirty(ours, bitmap)).isEqualTo(dirty(theirs, bitmap)).contains("false");
    }
  }

  /// Where a bitmap is dirty, as qemu-nbd serves it.
  private String dirty(Path image, String bitmap) {
    Path socket = folder.resolve("nbd.sock");
    try {
      Process server =
          Tool.require("qemu-nbd")
              .start(
                  "-r",
                  "-t",
                  "-f",
                  "qcow2",
                  "-B",
                  bitmap,
                  "-k",
                  socket,
                  "--pid-file",
                  folder.resolve("pid"),
                  image);
      try {
        Patience.await().until(() -> Files.exists(folder.resolve("pid")));
        return Tool.require("qemu-img")
            .ok(
                "map",
                "--output=json",
                "--image-opts",
                "driver=nbd,server.type=unix,server.path="
                    + socket
                    + ",x-dirty-bitmap=qemu:dirty-bitmap:"
                    + bitmap)
            .out();
      } finally {
        Tool.end(server);
        Files.deleteIfExists(folder.resolve("pid"));
      }
    } catch (IOException failure) {
      throw new java.io.UncheckedIOException(failure);
    }
  }

  @Test
  void damageIsFoundWithQemuImgsCodes() throws IOException {
    Path image = folder.resolve("d.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, "64M");
    agree("check", image);
    change(image, "qcow2", 64 * MIB, new Random(5), 20);
    agree("check", image);
    agreeInJson(image);
    byte[] sound = Files.readAllBytes(image);
    long block = longAt(sound, (int) longAt(sound, 48));
    // A cluster past the end of what is used is counted: a leak.
    byte[] leaked = sound.clone();
    int unused = sound.length / 65536 + 3;
    leaked[(int) block + 2 * unused + 1] = 1;
    Files.write(image, java.util.Arrays.copyOf(leaked, (unused + 1) * 65536));
    agree("check", image);
    agree("check", "-q", image);
    // The same past the end of the file holds no space.
    Files.write(image, java.util.Arrays.copyOf(leaked, sound.length));
    agree("check", image);
    Files.write(image, java.util.Arrays.copyOf(leaked, (unused + 1) * 65536));
    assertThat(ImageTool.tidemark("check", "--output=json", image).exit()).isEqualTo(3);
    // A used cluster is not counted: a corruption.
    byte[] corrupt = sound.clone();
    long l2 = longAt(sound, (int) longAt(sound, 40)) & 0x00fffffffffffe00L;
    corrupt[(int) (block + 2 * (l2 / 65536) + 1)] = 0;
    Files.write(image, corrupt);
    assertThat(qemuImg("check", image).exit()).isEqualTo(2);
    assertThat(ImageTool.tidemark("check", image).exit()).isEqualTo(2);
  }

  @Test
  void leaksAreGivenBack() throws IOException {
    Path image = folder.resolve("d.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, "64M");
    change(image, "qcow2", 64 * MIB, new Random(6), 20);
    byte[] bytes = Files.readAllBytes(image);
    int unused = bytes.length / 65536 + 1;
    bytes = java.util.Arrays.copyOf(bytes, (unused + 1) * 65536);
    bytes[(int) longAt(bytes, (int) longAt(bytes, 48)) + 2 * unused + 1] = 1;
    Files.write(image, bytes);
    assertThat(qemuImg("check", image).exit()).isEqualTo(3);
    String said = ok("check", "-r", "leaks", image);
    assertThat(said)
        .startsWith(
            "The following inconsistencies were found and repaired:\n\n    1 leaked clusters\n    0 corruptions\n");
    sound(image);
  }

  private static void agreeInJson(Path image) {
    JsonMapper mapper = JsonMapper.shared();
    assertThat(mapper.readTree(ok("check", "--output=json", image)))
        .isEqualTo(mapper.readTree(qemuImg("check", "--output=json", image).out()));
  }

  private static long longAt(byte[] bytes, int offset) {
    return java.nio.ByteBuffer.wrap(bytes).getLong(offset);
  }

  @Test
  void whatIsRefusedIsRefusedWithTheSameCode() {
    Path image = folder.resolve("a.qcow2");
    Path raw = folder.resolve("a.raw");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, "1M");
    Tool.require("qemu-img").ok("create", "-q", "-f", "raw", raw, "2M");
    Path target = folder.resolve("target");
    for (Object[] words :
        new Object[][] {
          {"convert", folder.resolve("missing"), target},
          {"convert", image},
          {"convert", "-O", "zork", image, target},
          {"convert", "-f", "qcow2", raw, target},
          {"convert", "-n", "-O", "qcow2", raw, image},
          {"convert", "-n", "-O", "raw", image, folder.resolve("missing")},
          {"convert", "-O", "raw", "-B", raw, "-F", "raw", image, target},
          {"convert", "-O", "qcow2", "-B", raw, image, target},
          {"convert", "-O", "raw", raw, raw},
          {"convert", "-m", "17", raw, target},
          {"convert", "-S", "100", raw, target},
          {"create", "-f", "zork", target, "1M"},
          {"create", "-f", "qcow2", target},
          {"create", "-f", "qcow2", target, "1x"},
          {"create", "-f", "qcow2", "-b", raw, target},
          {"create", "-f", "qcow2", "-b", "nope", "-F", "raw", target},
          {"create", "-f", "raw", "-b", raw, "-F", "raw", target},
          {"create", "-f", "qcow2", "-o", "foo=1", target, "1M"},
          {"create", "-f", "qcow2", folder.resolve("no/such/folder"), "1M"},
          {"create", "-f", "qcow2", "-o", "cluster_size=3", target, "1M"},
          {"compare", raw, folder.resolve("missing")},
          {"compare", raw},
          {"check", raw},
          {"check", folder.resolve("missing")},
          {"check", "-r", "zork", image},
        }) {
      Tool.Result theirs = qemuImg(words);
      Tool.Result ours = ImageTool.tidemark(words);
      assertThat(ours.exit())
          .as("%s: %s", List.of(words), ours.text())
          .isEqualTo(theirs.exit())
          .isNotZero();
      assertThat(ours.err())
          .as("%s", List.of(words))
          .startsWith("tidemark: ")
          .doesNotContain("Exception");
    }
    agree("compare", image, raw); // sizes differ, all of both is zero
    assertThat(target).as("refused calls make nothing").doesNotExist();
  }
}
