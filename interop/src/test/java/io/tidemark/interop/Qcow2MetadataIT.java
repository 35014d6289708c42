// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FileNode;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Tool;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;

/// Internal snapshots, bitmaps and backing references: ours and QEMU take turns on one image, and
/// each finds what the other left.
@Tag("interop")
class Qcow2MetadataIT {
  private final ScratchFolder scratch = new ScratchFolder();
  private final Tool qemuImg = Tool.require("qemu-img");

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static Qcow2Image open(Path path) throws BlockException {
    OpenOptions options = OpenOptions.readWrite();
    return Qcow2Image.open(FileNode.open(path, options), options);
  }

  private static byte[] bytes(BlockNode node) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(node.virtualSize())];
    node.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  private static String options(Random random) {
    boolean v2 = random.nextInt(5) == 0;
    return "cluster_size="
        + (512 << random.nextInt(9))
        + (v2 ? ",compat=0.10" : ",compat=1.1,refcount_bits=" + (4 << random.nextInt(5)));
  }

  @ParameterizedTest
  @Seeds(6)
  void snapshotsByTurns(long seed) throws Exception {
    var random = new Random(seed);
    long size = (1 << 20) + random.nextInt(1000) * 512L;
    Path path = scratch.resolve("s.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options(random), path, size);
    Map<String, byte[]> held = new HashMap<>(); // by name
    for (int round = 0; round < 10; round++) {
      boolean ours = random.nextBoolean();
      try (Qcow2Image image = open(path)) {
        if (ours) {
          ModelDisk model = ModelDisk.of(image);
          Workload.random(seed * 100 + round).maxLength(60_000).run(image, model, 15);
        }
      }
      if (!ours) {
        ImageTool.change(path, "qcow2", size, random, 6);
      }
      step(path, held, "round" + round, random);
      assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
      agreeOnSnapshots(path, held);
    }
  }

  private void step(Path path, Map<String, byte[]> held, String fresh, Random random)
      throws Exception {
    byte[] disk;
    try (Qcow2Image image = open(path)) {
      disk = bytes(image);
    }
    boolean ours = random.nextBoolean();
    int choice = random.nextInt(4);
    List<String> names = held.keySet().stream().sorted().toList();
    String one = names.isEmpty() ? "" : names.get(random.nextInt(names.size()));
    if (names.isEmpty() || choice < 2) {
      held.put(fresh, disk);
      one = fresh;
      choice = 0;
    } else if (choice == 2) {
      held.remove(one);
    }
    String flag = choice < 2 ? "-c" : choice == 2 ? "-d" : "-a";
    if (!ours) {
      qemuImg.ok("snapshot", flag, choice < 2 ? fresh : one, path);
      return;
    }
    try (Qcow2Image image = open(path)) {
      SnapshotStore store = image.snapshots().orElseThrow();
      switch (flag) {
        case "-c" -> store.create(fresh, Instant.parse("2024-05-06T07:08:09.5Z"));
        case "-d" -> store.delete(one);
        default -> store.apply(one);
      }
    }
  }

  private void agreeOnSnapshots(Path path, Map<String, byte[]> held) throws Exception {
    Path raw = scratch.resolve("raw");
    try (Qcow2Image image = open(path)) {
      assertThat(image.check().leaks()).isZero();
      SnapshotStore store = image.snapshots().orElseThrow();
      assertThat(store.list())
          .extracting(InternalSnapshot::name)
          .containsExactlyInAnyOrderElementsOf(held.keySet());
      for (var entry : held.entrySet()) {
        assertThat(bytes(store.view(entry.getKey()))).isEqualTo(entry.getValue());
      }
    }
    for (var entry : held.entrySet()) {
      qemuImg.ok("convert", "-l", entry.getKey(), "-f", "qcow2", "-O", "raw", path, raw);
      assertThat(Files.readAllBytes(raw)).isEqualTo(entry.getValue());
    }
  }

  @ParameterizedTest
  @Seeds(4)
  void bitmapsByTurns(long seed) throws Exception {
    var random = new Random(seed);
    long size = (1 << 20) + random.nextInt(1000) * 512L;
    Path path = scratch.resolve("b.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, size);
    Map<String, DirtyBitmap> model = new HashMap<>();
    for (int round = 0; round < 14; round++) {
      String name = "bitmap" + random.nextInt(3);
      String source = "bitmap" + random.nextInt(3);
      if (model.containsKey(name)) {
        change(path, model, name, source, random);
      } else {
        long granularity = 512L << random.nextInt(9);
        model.put(name, new DirtyBitmap(name, size, granularity));
        if (random.nextBoolean()) {
          qemuImg.ok("bitmap", "--add", "-g", granularity, path, name);
        } else {
          try (Qcow2Image image = open(path)) {
            image.bitmapStore().orElseThrow().add(name, granularity);
          }
        }
      }
      // QEMU records what it writes into the enabled ones.
      long at = random.nextLong(size / 512 - 8) * 512;
      Tool.require("qemu-io").ok("-f", "qcow2", "-c", "write -P 7 " + at + " 4096", path);
      model.values().stream().filter(DirtyBitmap::enabled).forEach(b -> b.set(at, 4096));
      assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
      try (Qcow2Image image = open(path)) {
        BitmapStore store = image.bitmapStore().orElseThrow();
        assertThat(store.stored())
            .extracting(BitmapStore.Stored::name)
            .containsExactlyInAnyOrderElementsOf(model.keySet());
        for (BitmapStore.Stored stored : store.stored()) {
          DirtyBitmap wanted = known(model, stored.name());
          assertThat(stored.enabled()).isEqualTo(wanted.enabled());
          DirtyBitmap found = store.load(stored.name());
          for (int w = 0; w < wanted.wordCount(); w++) {
            assertThat(found.word(w)).isEqualTo(wanted.word(w));
          }
        }
      }
    }
  }

  private static DirtyBitmap known(Map<String, DirtyBitmap> model, String name) {
    return Optional.ofNullable(model.get(name)).orElseThrow();
  }

  private void change(
      Path path, Map<String, DirtyBitmap> model, String name, String source, Random random)
      throws Exception {
    String[] flags = {"--clear", "--enable", "--disable", "--remove", "--merge", "--merge"};
    String flag = flags[random.nextInt(flags.length)];
    if (flag.equals("--merge") && !model.containsKey(source)) {
      return;
    }
    DirtyBitmap bitmap = known(model, name);
    switch (flag) {
      case "--clear" -> bitmap.clear(0, bitmap.size());
      case "--enable" -> bitmap.setEnabled(true);
      case "--disable" -> bitmap.setEnabled(false);
      case "--remove" -> model.remove(name);
      default -> bitmap.merge(known(model, source));
    }
    if (random.nextBoolean()) {
      if (flag.equals("--merge")) {
        qemuImg.ok("bitmap", flag, source, path, name);
      } else {
        qemuImg.ok("bitmap", flag, path, name);
      }
      return;
    }
    try (Qcow2Image image = open(path)) {
      BitmapStore store = image.bitmapStore().orElseThrow();
      switch (flag) {
        case "--clear" -> store.clear(name);
        case "--enable" -> store.enable(name);
        case "--disable" -> store.disable(name);
        case "--remove" -> store.remove(name);
        default -> store.merge(name, store.load(source));
      }
    }
  }

  @ParameterizedTest
  @Seeds(3)
  void backingReferencesByTurns(long seed) throws Exception {
    var random = new Random(seed);
    Path path = scratch.resolve("r.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options(random), path, 1 << 20);
    for (int round = 0; round < 12; round++) {
      String name = "b".repeat(1 + random.nextInt(40)) + ".img";
      String format = random.nextBoolean() ? "raw" : "qcow2";
      boolean none = random.nextInt(4) == 0;
      if (random.nextInt(3) == 0) {
        qemuImg.ok(
            none
                ? new Object[] {"rebase", "-u", "-b", "", path}
                : new Object[] {"rebase", "-u", "-b", name, "-F", format, path});
      } else {
        try (Qcow2Image image = open(path)) {
          image.changeBacking(
              none
                  ? Optional.empty()
                  : Optional.of(new BackingReference(name, Optional.of(format))));
        }
      }
      String info = qemuImg.ok("info", "--output=json", path).out();
      try (Qcow2Image image = open(path)) {
        if (none) {
          assertThat(info).doesNotContain("backing-filename");
          assertThat(image.backingReference()).isEmpty();
        } else {
          assertThat(info).contains("\"" + name + "\"", "-format\": \"" + format + "\"");
          assertThat(image.backingReference())
              .contains(new BackingReference(name, Optional.of(format)));
        }
      }
    }
    try (Qcow2Image image = open(path)) {
      image.changeBacking(Optional.empty());
    }
    assertThat(qemuImg.ok("check", path).out()).contains("No errors were found");
  }
}
