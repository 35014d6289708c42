// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.qcow2.CheckResult;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.qcow2.Repair;
import io.tidemark.qcow2.RepairResult;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import java.io.ByteArrayOutputStream;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;

/// Images of QEMU with broken metadata: a check here finds what `qemu-img check` finds, to the
/// line, and a repair leaves what it calls sound.
@Tag("interop")
class Qcow2CheckIT {
  private final ScratchFolder scratch = new ScratchFolder();
  private final Tool qemuImg = Tool.require("qemu-img");

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static Qcow2Image open(Path path, OpenOptions options) throws BlockException {
    return Qcow2Image.open(FileNode.open(path, options), options);
  }

  /// A small image with a bit of everything.
  private Path base(Random random) {
    Path path = scratch.resolve("base.qcow2");
    boolean extended = random.nextInt(4) == 0;
    boolean v2 = !extended && random.nextInt(5) == 0;
    int clusterSize = extended ? 16384 : 512 << random.nextInt(6);
    String options =
        "cluster_size="
            + clusterSize
            + (extended ? ",extended_l2=on" : "")
            + (v2 ? ",compat=0.10" : ",compat=1.1,refcount_bits=" + (2 << random.nextInt(6)));
    long size = clusterSize * 90L;
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options, path, size);
    if (random.nextBoolean()) {
      Tool.require("qemu-io")
          .ok("-f", "qcow2", "-c", "write -c -P 5 " + 40L * clusterSize + " " + clusterSize, path);
    }
    ImageTool.change(path, "qcow2", size, random, 6);
    if (random.nextBoolean()) {
      qemuImg.ok("snapshot", "-c", "one", path);
      ImageTool.change(path, "qcow2", size, random, 3);
    }
    if (!v2 && random.nextInt(3) == 0) {
      qemuImg.ok("bitmap", "--add", "-g", "512", path, "b");
      ImageTool.change(path, "qcow2", size, random, 1);
    }
    return path;
  }

  /// Breaks entries of tables and refcounts, never the header.
  private static void breakTables(Path path, Random random) throws Exception {
    try (var file = new RandomAccessFile(path.toFile(), "rw")) {
      byte[] header = new byte[104];
      file.readFully(header);
      ByteBuffer fields = ByteBuffer.wrap(header);
      int clusterBits = fields.getInt(20);
      long l1 = fields.getLong(40);
      int l1Entries = fields.getInt(36);
      long refcounts = fields.getLong(48);
      int faults = 1 + random.nextInt(3);
      for (int i = 0; i < faults; i++) {
        long l1At = l1 + 8L * random.nextInt(l1Entries);
        file.seek(l1At);
        long l2 = file.readLong() & 0x00ff_ffff_ffff_fe00L;
        file.seek(refcounts);
        long block = file.readLong();
        if (block == 0) {
          return; // an earlier fault took it away
        }
        int clusters = (int) (file.length() >> clusterBits);
        switch (random.nextInt(9)) {
          case 0, 1 -> { // a refcount
            int bits = fields.getInt(4) == 2 ? 16 : 1 << headerOrder(fields);
            file.seek(block + (long) random.nextInt(clusters) * bits / 8);
            file.write(random.nextInt(4));
          }
          case 2 -> flip(file, l1At, 1L << 63);
          case 3 -> flip(file, l2Entry(l2, l1At, clusterBits, random), 1L << 63);
          case 4 ->
              flip(file, l2Entry(l2, l1At, clusterBits, random), 1L << (1 + random.nextInt(7)));
          case 5 -> { // somewhere else in the file, or behind it
            file.seek(l2Entry(l2, l1At, clusterBits, random));
            long at = (long) random.nextInt(clusters + 3) << clusterBits;
            file.writeLong(at | (random.nextBoolean() ? 1L << 63 : 0));
          }
          case 6 -> { // not aligned
            file.seek(l2Entry(l2, l1At, clusterBits, random));
            long at = ((long) random.nextInt(clusters) << clusterBits) + 512;
            file.writeLong(at | (1L << 63) | random.nextInt(2));
          }
          case 7 -> { // nothing any more
            file.seek(l2Entry(l2, l1At, clusterBits, random));
            file.writeLong(0);
          }
          default -> flip(file, refcounts, random.nextBoolean() ? 1 : 512L << random.nextInt(20));
        }
      }
    }
  }

  private static int headerOrder(ByteBuffer fields) {
    return fields.getInt(96);
  }

  private static long l2Entry(long l2, long l1At, int clusterBits, Random random) {
    return l2 == 0 ? l1At : l2 + 8L * random.nextInt(1 << (clusterBits - 3));
  }

  private static void flip(RandomAccessFile file, long at, long bits) throws Exception {
    file.seek(at);
    long value = file.readLong();
    file.seek(at);
    file.writeLong(value ^ bits);
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

  private static void agree(String json, CheckResult ours) {
    assertThat(
            Arrays.asList(
                ours.corruptions(),
                ours.leaks(),
                ours.checkErrors(),
                ours.allocatedClusters(),
                ours.totalClusters(),
                ours.fragmentedClusters(),
                ours.compressedClusters(),
                ours.imageEndOffset()))
        .as("%s %s", json, ours.findings())
        .isEqualTo(
            Arrays.asList(
                number(json, "corruptions"),
                number(json, "leaks"),
                number(json, "check-errors"),
                number(json, "allocated-clusters"),
                number(json, "total-clusters"),
                number(json, "fragmented-clusters"),
                number(json, "compressed-clusters"),
                number(json, "image-end-offset")));
  }

  @ParameterizedTest
  @Seeds(40)
  void findsWhatQemuFinds(long seed) throws Exception {
    var random = new Random(seed);
    Path path = base(random);
    breakTables(path, random);
    Tool.Result theirs = qemuImg.run("check", "--output=json", path);
    if (!theirs.out().contains("image-end-offset")) {
      assertThat(theirs.exit()).isEqualTo(1); // it cannot be opened
      return;
    }
    byte[] before = Files.readAllBytes(path);
    try (Qcow2Image image = open(path, OpenOptions.reading())) {
      CheckResult ours = image.check();
      agree(theirs.out(), ours);
      assertThat(ours.findings()).isEqualTo(lines(theirs.err()));
    }
    assertThat(Files.readAllBytes(path)).isEqualTo(before);
  }

  private static List<String> lines(String err) {
    return err.lines()
        .filter(line -> !line.isEmpty() && !line.startsWith("qcow2: "))
        .filter(line -> !line.startsWith("qemu-img: "))
        .toList();
  }

  @ParameterizedTest
  @Seeds(40)
  void leavesWhatQemuCallsSound(long seed) throws Exception {
    var random = new Random(seed + 1000);
    Path path = base(random);
    breakTables(path, random);
    Path twin = scratch.resolve("twin.qcow2");
    Files.copy(path, twin, StandardCopyOption.REPLACE_EXISTING);
    byte[] before = Files.readAllBytes(path);
    String look = qemuImg.run("check", path).err();
    byte[] guest;
    Repair what = random.nextInt(3) == 0 ? Repair.LEAKS : Repair.ALL;
    RepairResult ours;
    try (Qcow2Image image = open(path, OpenOptions.reading())) {
      guest = bytes(image);
      ours = image.repair(what);
      // A guest cluster that lies on a table changes with the table.
      if (!look.contains("reference=2") && !look.contains("refcount block")) {
        assertThat(Arrays.equals(bytes(image), guest)).isTrue();
      }
    } catch (BlockException e) {
      // What QEMU reads, ours reads.
      assertThat(qemuImg.run("convert", "-O", "raw", twin, scratch.resolve("raw")).exit())
          .as("%s", e)
          .isNotZero();
      return;
    }
    Tool.Result theirs =
        qemuImg.run("check", "--output=json", "-r", what == Repair.ALL ? "all" : "leaks", twin);
    if (ours.findings().contains("ERROR need to rebuild refcount structures")) {
      assertThat(look).containsPattern("refcount=0 ref|refcount block|reserved bits set");
      assertThat(Files.readAllBytes(path)).isEqualTo(before);
      return;
    }
    Tool.Result after = qemuImg.run("check", "--output=json", path);
    agree(after.out(), ours.after());
    if (theirs.out().contains("image-end-offset")) {
      // Where QEMU leaves an image sound, so does this.
      if (number(theirs.out(), "corruptions") == 0) {
        assertThat(ours.after().corruptions())
            .as("%s\n%s\n%s", theirs.text(), ours.findings(), ours.after().findings())
            .isZero();
      }
      if (number(theirs.out(), "leaks") == 0) {
        assertThat(ours.after().leaks())
            .as("%s\n%s\n%s", theirs.text(), ours.findings(), ours.after().findings())
            .isZero();
      }
    }
  }

  /// Gives the image a table of the same snapshots behind the end of its file, with other lengths
  /// of extra data.
  private static void botchSnapshots(Path path, Random random) throws Exception {
    try (var file = new RandomAccessFile(path.toFile(), "rw")) {
      file.seek(20);
      final int clusterBits = file.readInt();
      file.seek(60);
      final int count = file.readInt();
      long from = file.readLong();
      var table = new ByteArrayOutputStream();
      for (int i = 0; i < count; i++) {
        byte[] fixed = new byte[40];
        file.seek(from);
        file.readFully(fixed);
        ByteBuffer fields = ByteBuffer.wrap(fixed);
        byte[] extra = new byte[fields.getInt(36)];
        file.readFully(extra);
        byte[] texts = new byte[fields.getShort(12) + fields.getShort(14)];
        file.readFully(texts);
        from = (from + 40 + extra.length + texts.length + 7) & ~7L;
        int length = random.nextBoolean() ? 8 * random.nextInt(4) : 1000 + 16 * random.nextInt(200);
        fields.putInt(36, length);
        table.writeBytes(fixed);
        table.writeBytes(Arrays.copyOf(extra, length));
        table.writeBytes(Arrays.copyOf(texts, ((length + texts.length + 7) & ~7) - length));
      }
      long at = (file.length() + (1L << clusterBits) - 1) >> clusterBits << clusterBits;
      file.seek(at);
      file.write(table.toByteArray());
      file.seek(64);
      file.writeLong(at);
    }
  }

  @ParameterizedTest
  @Seeds(20)
  void putsSnapshotTablesRightAsQemuDoes(long seed) throws Exception {
    var random = new Random(seed + 2000);
    Path path = scratch.resolve("base.qcow2");
    int clusterSize = 512 << random.nextInt(8);
    long size = 90L * clusterSize;
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", "cluster_size=" + clusterSize, path, size);
    for (int i = 0; i < 3; i++) {
      ImageTool.change(path, "qcow2", size, random, 2);
      qemuImg.ok("snapshot", "-c", "s" + i, path);
    }
    botchSnapshots(path, random);
    Path twin = scratch.resolve("twin.qcow2");
    Files.copy(path, twin, StandardCopyOption.REPLACE_EXISTING);
    Tool.Result look = qemuImg.run("check", path);
    Tool.Result theirs = qemuImg.run("check", "-r", "all", twin);
    try (Qcow2Image image = open(path, OpenOptions.reading())) {
      if (look.exit() == 1) {
        assertThatThrownBy(image::check).hasMessageContaining("extra data of");
      } else {
        assertThat(image.check().findings()).isEqualTo(lines(look.err()));
      }
      RepairResult ours = image.repair(Repair.ALL);
      assertThat(ours.findings()).isEqualTo(lines(theirs.err()));
      assertThat(theirs.out())
          .contains("    " + ours.leaksFixed() + " leaked clusters\n")
          .contains("    " + ours.corruptionsFixed() + " corruptions\n");
    }
    assertThat(qemuImg.run("check", path).out()).contains("No errors were found");
    assertThat(qemuImg.ok("snapshot", "-l", path).out())
        .contains("s0", "s1", "s2")
        .isEqualTo(qemuImg.ok("snapshot", "-l", twin).out());
    for (int i = 0; i < 3; i++) {
      Path ours = scratch.resolve("ours.raw");
      Path qemus = scratch.resolve("qemus.raw");
      qemuImg.ok("convert", "-l", "s" + i, "-O", "raw", path, ours);
      qemuImg.ok("convert", "-l", "s" + i, "-O", "raw", twin, qemus);
      assertThat(Files.mismatch(ours, qemus)).isEqualTo(-1);
    }
  }

  private static byte[] bytes(Qcow2Image image) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(image.virtualSize())];
    image.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }
}
