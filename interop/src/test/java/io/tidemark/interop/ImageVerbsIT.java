// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static io.tidemark.interop.ImageTool.agree;
import static io.tidemark.interop.ImageTool.change;
import static io.tidemark.interop.ImageTool.ok;
import static io.tidemark.interop.ImageTool.qemuImg;
import static io.tidemark.interop.ImageTool.tidemark;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// The verbs of `tidemark image` that change an image, beside qemu-img's: same words, on two copies
/// of one image; then both read the same and are sound.
@Tag("interop")
class ImageVerbsIT {
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

  private static String qemuOk(Object... words) {
    return Tool.require("qemu-img").ok(words).out();
  }

  private Path qcow2(String name, long size, Random random) {
    Path image = folder.resolve(name);
    qemuOk("create", "-q", "-f", "qcow2", image, size);
    change(image, "qcow2", size, random, 20);
    return image;
  }

  private Path overlay(String name, Path base, long size, Random random) {
    Path image = folder.resolve(name);
    qemuOk("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", image, size);
    change(image, "qcow2", size, random, 20);
    return image;
  }

  private Path copy(Path image) throws IOException {
    return Files.copy(image, folder.resolve("copy-of-" + image.getFileName()));
  }

  private static void same(Path one, Path other) {
    Tool.Result compared = qemuImg("compare", one, other);
    assertThat(compared.exit()).as(compared.text()).isZero();
  }

  private static void sound(Path image) {
    Tool.Result check = qemuImg("check", image);
    assertThat(check.exit()).as(check.text()).isZero();
  }

  @ParameterizedTest
  @Seeds(6)
  void rebaseKeepsWhatTheGuestReads(long seed) throws IOException {
    Random random = new Random(seed);
    Path base = qcow2("base.qcow2", (2 + random.nextInt(40)) * MIB, random);
    Path middle = overlay("middle.qcow2", base, (2 + random.nextInt(40)) * MIB, random);
    Path other = qcow2("other.qcow2", (2 + random.nextInt(40)) * MIB, random);
    Path top = overlay("top.qcow2", middle, (2 + random.nextInt(40)) * MIB, random);
    Path flat = folder.resolve("flat.raw");
    qemuOk("convert", "-O", "raw", top, flat);
    List<List<Object>> steps =
        List.of(
            List.of("-b", base, "-F", "qcow2"),
            List.of("-b", other, "-F", "qcow2"),
            List.of("-b", "other.qcow2", "-F", "qcow2", "-u"),
            List.of("-b", ""));
    for (List<Object> step : steps) {
      ok("rebase", step.toArray(), top);
      same(flat, top);
      sound(top);
    }
    assertThat(qemuOk("info", top)).doesNotContain("backing file");
  }

  private static void ok(String verb, Object[] words, Path image) {
    Object[] all = new Object[words.length + 2];
    all[0] = verb;
    System.arraycopy(words, 0, all, 1, words.length);
    all[all.length - 1] = image;
    ImageTool.ok(all);
  }

  @ParameterizedTest
  @Seeds(4)
  void rebaseOfVersion2HoldsZeroesOverData(long seed) {
    Random random = new Random(seed);
    Path other = qcow2("other.qcow2", 8 * MIB, random);
    Path top = folder.resolve("top.qcow2");
    qemuOk("create", "-q", "-f", "qcow2", "-o", "compat=0.10", top, 8 * MIB);
    change(top, "qcow2", 8 * MIB, random, 4);
    Path flat = folder.resolve("flat.raw");
    qemuOk("convert", "-O", "raw", top, flat);
    ImageTool.ok("rebase", "-b", other, "-F", "qcow2", top);
    same(flat, top);
    sound(top);
  }

  @ParameterizedTest
  @Seeds(6)
  void commitWritesTheOverlayIntoItsBase(long seed) throws IOException {
    Random random = new Random(seed);
    Path base = qcow2("base.qcow2", (2 + random.nextInt(40)) * MIB, random);
    Path top = overlay("top.qcow2", base, (2 + random.nextInt(40)) * MIB, random);
    Path flat = folder.resolve("flat.raw");
    qemuOk("convert", "-O", "raw", top, flat);
    assertThat(ImageTool.ok("commit", top)).isEqualTo("Image committed.\n");
    same(flat, top);
    sound(top);
    sound(base);
    assertThat(ImageTool.ok("map", "--output", "json", top))
        .doesNotContain("\"depth\": 0, \"present\": true");
  }

  @Test
  void commitIntoADeeperImageLeavesTheTopAlone() {
    Random random = new Random(7);
    Path base = qcow2("base.qcow2", 8 * MIB, random);
    Path middle = overlay("middle.qcow2", base, 8 * MIB, random);
    Path top = overlay("top.qcow2", middle, 8 * MIB, random);
    Path flat = folder.resolve("flat.raw");
    qemuOk("convert", "-O", "raw", top, flat);
    assertThat(tidemark("commit", "-b", folder.resolve("nowhere.qcow2"), top).exit()).isEqualTo(1);
    ImageTool.ok("commit", "-b", base, top);
    same(flat, base);
    same(flat, top);
    sound(base);
  }

  @Test
  void resizeAgrees() throws IOException {
    Random random = new Random(3);
    Path theirs = qcow2("disk.qcow2", 8 * MIB, random);
    Path ours = copy(theirs);
    for (List<String> words :
        List.of(List.of("+3M"), List.of("12M"), List.of("-2M"), List.of("0"), List.of("+1x"))) {
      Object size = words.getLast();
      Tool.Result theirResult = qemuImg("resize", theirs, size);
      Tool.Result ourResult = tidemark("resize", ours, size);
      assertThat(ourResult.out()).as("%s: %s", size, ourResult.text()).isEqualTo(theirResult.out());
      assertThat(ourResult.exit()).as("%s", size).isEqualTo(theirResult.exit());
    }
    same(theirs, ours);
    sound(ours);
  }

  /// The same amendments by both: the same outcome, and images that QEMU finds sound and alike.
  @Test
  void amendAgrees() throws IOException {
    Random random = new Random(4);
    Path theirs = qcow2("disk.qcow2", 8 * MIB, random);
    qemuOk("snapshot", "-c", "s", theirs);
    change(theirs, "qcow2", 8 * MIB, random, 10);
    Path before = copy(theirs);
    Path ours = folder.resolve("ours.qcow2");
    Files.copy(theirs, ours);
    for (String options :
        List.of(
            "compat=0.10",
            "refcount_bits=32",
            "lazy_refcounts=on",
            "compat=1.1,lazy_refcounts=on,refcount_bits=2",
            "refcount_bits=1",
            "compat=0.10",
            "data_file=x",
            "cluster_size=4096",
            "nonsense=1",
            "refcount_bits=64",
            "size=12M",
            "compat=0.10",
            "size=8M",
            "compat=0.10,refcount_bits=16")) {
      Tool.Result theirResult = qemuImg("amend", "-f", "qcow2", "-o", options, theirs);
      Tool.Result ourResult = tidemark("amend", "-f", "qcow2", "-o", options, ours);
      assertThat(ourResult.exit())
          .as("%s: %s; theirs: %s", options, ourResult.text(), theirResult.text())
          .isEqualTo(theirResult.exit());
      sound(ours);
      same(before, ours);
      assertThat(specific(ours)).as(options).isEqualTo(specific(theirs));
    }
    Path snapshot = folder.resolve("snapshot.raw");
    Path snapshotBefore = folder.resolve("before.raw");
    qemuOk("convert", "-l", "s", "-O", "raw", ours, snapshot);
    qemuOk("convert", "-l", "s", "-O", "raw", before, snapshotBefore);
    same(snapshot, snapshotBefore);
  }

  /// What `qemu-img info` says of size and format.
  private static String specific(Path image) {
    return qemuOk("info", image)
        .lines()
        .filter(line -> line.startsWith("virtual size") || line.startsWith("    "))
        .toList()
        .toString();
  }

  @Test
  void snapshotsAreMadeListedAppliedAndConverted() throws IOException {
    Random random = new Random(5);
    Path disk = qcow2("disk.qcow2", 8 * MIB, random);
    Path then = folder.resolve("then.raw");
    qemuOk("convert", "-O", "raw", disk, then);
    ImageTool.ok("snapshot", "-c", "one", disk);
    change(disk, "qcow2", 8 * MIB, random, 10);
    agree("snapshot", "-l", disk);
    Path fromSnapshot = folder.resolve("snapshot.raw");
    ImageTool.ok("convert", "-l", "snapshot.name=one", "-O", "raw", disk, fromSnapshot);
    same(then, fromSnapshot);
    ImageTool.ok("snapshot", "-a", "one", disk);
    same(then, disk);
    ImageTool.ok("snapshot", "-d", "one", disk);
    assertThat(qemuOk("snapshot", "-l", disk)).isEmpty();
    sound(disk);
  }

  @Test
  void bitmapsAreWhatQemuImgMakes() throws IOException {
    Path theirs = qcow2("disk.qcow2", 8 * MIB, new Random(6));
    Path ours = copy(theirs);
    for (List<String> words :
        List.of(
            List.of("--add", "a"),
            List.of("--add", "-g", "4k", "--disable", "b"),
            List.of("--clear", "--merge", "a", "b"),
            List.of("--disable", "a"),
            List.of("--add", "c"),
            List.of("--remove", "c"),
            List.of("--enable", "b"))) {
      for (Path image : List.of(theirs, ours)) {
        Object[] all = new Object[words.size() + 2];
        all[0] = "bitmap";
        for (int i = 0; i < words.size() - 1; i++) {
          all[i + 1] = words.get(i);
        }
        all[all.length - 2] = image;
        all[all.length - 1] = words.getLast();
        if (image.equals(ours)) {
          ImageTool.ok(all);
        } else {
          qemuOk(all);
        }
      }
    }
    assertThat(bitmaps(ours)).isEqualTo(bitmaps(theirs)).contains("granularity: 4096");
    sound(ours);
    assertThat(tidemark("bitmap", ours, "a").exit()).isEqualTo(1);
    assertThat(tidemark("bitmap", "--add", ours, "a").exit()).isEqualTo(1);
  }

  private static String bitmaps(Path image) {
    String info = qemuOk("info", image);
    return info.substring(info.indexOf("    bitmaps:"));
  }

  @ParameterizedTest
  @Seeds(4)
  void compressedImagesReadTheSame(long seed) {
    Random random = new Random(seed);
    Path base = qcow2("base.qcow2", 30 * MIB, random);
    Path top = overlay("top.qcow2", base, 31 * MIB + 512, random);
    Path small = folder.resolve("small.qcow2");
    String type = random.nextBoolean() ? "zlib" : "zstd";
    String clusters = List.of("512", "4k", "64k", "2M").get(random.nextInt(4));
    ImageTool.ok(
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "compression_type=" + type + ",cluster_size=" + clusters,
        top,
        small);
    same(top, small);
    sound(small);
    Path plain = folder.resolve("plain.raw");
    ImageTool.ok("convert", "-W", "-m", "4", "-O", "raw", small, plain);
    same(top, plain);
  }

  @Test
  void ddCopiesAPart() {
    Path disk = qcow2("disk.qcow2", 8 * MIB, new Random(8));
    for (String format : List.of("raw", "qcow2")) {
      Path theirs = folder.resolve("theirs." + format);
      Path ours = folder.resolve("ours." + format);
      // qemu: 7.2 takes what is skipped from the count; a later one, and dd, do not.
      for (String part : List.of("skip=5", "count=700")) {
        qemuOk("dd", "-O", format, "bs=3k", part, "if=" + disk, "of=" + theirs);
        ImageTool.ok("dd", "-O", format, "bs=3k", part, "if=" + disk, "of=" + ours);
        same(theirs, ours);
      }
    }
  }

  @Test
  void measureAgrees() {
    Path disk = qcow2("disk.qcow2", 8 * MIB, new Random(9));
    agree("measure", "-O", "qcow2", disk);
    agree("measure", "-O", "raw", "--output", "json", disk);
    agree("measure", "-O", "qcow2", "--size", "10G");
    agree("measure", disk, "--size", "10G");
  }

  @Test
  void imagesAreNamedByJsonAndByOptions() {
    Path disk = qcow2("disk.qcow2", 8 * MIB, new Random(10));
    agree("info", "--image-opts", "driver=qcow2,file.filename=" + disk);
    agree(
        "map",
        "--output",
        "json",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"" + disk + "\"}}");
    agree(
        "compare",
        "--image-opts",
        "driver=raw,file.filename=" + disk,
        "driver=raw,file.filename=" + disk);
    assertThat(tidemark("info", "-f", "qcow2", "--image-opts", "file.filename=" + disk).exit())
        .isEqualTo(1);
  }

  @Test
  void newImagesHaveTheModeOfQemuImg() throws IOException {
    Path theirs = folder.resolve("theirs.qcow2");
    Path ours = folder.resolve("ours.qcow2");
    qemuOk("create", "-q", "-f", "qcow2", theirs, "1M");
    ImageTool.ok("create", "-q", "-f", "qcow2", ours, "1M");
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(ours)))
        .isEqualTo(PosixFilePermissions.toString(Files.getPosixFilePermissions(theirs)));
  }
}
