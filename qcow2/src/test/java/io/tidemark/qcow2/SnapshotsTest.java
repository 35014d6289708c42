// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class SnapshotsTest {
  private static final long SIZE = 400 * 1024;
  private static final Instant NOW = Instant.parse("2024-05-06T07:08:09.123456789Z");

  private static CrashingFile create(long seed, Map<String, String> options) throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(file, new CreateOptions(SIZE, Optional.empty(), options));
    return file;
  }

  private static Map<String, String> options(Random random) {
    var options = new HashMap<String, String>();
    boolean extended = random.nextInt(3) == 0;
    options.put("cluster_size", "" + (extended ? 16384 : 512 << random.nextInt(6)));
    options.put("extended_l2", extended ? "on" : "off");
    boolean v2 = !extended && random.nextInt(5) == 0;
    options.put("compat", v2 ? "0.10" : "1.1");
    if (!v2) {
      options.put("refcount_bits", "" + (4 << random.nextInt(5)));
    }
    return options;
  }

  private static Qcow2Image open(CrashingFile file) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite());
  }

  private static SnapshotStore snapshots(Qcow2Image image) {
    return image.snapshots().orElseThrow();
  }

  private static byte[] bytes(BlockNode node) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(node.virtualSize())];
    node.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  private static void sound(Qcow2Image image, boolean leaksAllowed) throws BlockException {
    CheckResult check = image.check();
    assertThat(check.sound()).as("%s", check.findings()).isTrue();
    if (!leaksAllowed) {
      assertThat(check.leaks()).as("%s", check.findings()).isZero();
    }
  }

  /// The disk and what its snapshots hold.
  private static final class Model {
    private byte[] disk = {};
    private final Map<String, byte[]> held = new HashMap<>();

    Model copy() {
      var copy = new Model();
      copy.disk = disk;
      copy.held.putAll(held);
      return copy;
    }

    boolean matches(Qcow2Image image) throws BlockException {
      List<String> ids =
          snapshots(image).list().stream().map(InternalSnapshot::id).sorted().toList();
      if (!ids.equals(held.keySet().stream().sorted().toList())
          || !java.util.Arrays.equals(bytes(image), disk)) {
        return false;
      }
      for (var entry : held.entrySet()) {
        if (!java.util.Arrays.equals(
            bytes(snapshots(image).view(entry.getKey())), entry.getValue())) {
          return false;
        }
      }
      return true;
    }

    void step(Qcow2Image image, Random random) throws BlockException {
      var ids = new ArrayList<>(held.keySet().stream().sorted().toList());
      String id = ids.isEmpty() ? "" : ids.get(random.nextInt(ids.size()));
      int choice = random.nextInt(5);
      if (ids.isEmpty() || (choice < 2 && ids.size() < 5)) {
        held.put(snapshots(image).create("name", NOW).id(), disk);
      } else if (choice < 4) {
        snapshots(image).delete(id);
        held.remove(id);
      } else {
        snapshots(image).apply(id);
        disk = held.getOrDefault(id, disk);
      }
    }

    void write(Qcow2Image image, long seed, int operations) throws BlockException {
      ModelDisk model = ModelDisk.of(image);
      Workload.random(seed).maxLength(30_000).run(image, model, operations);
      var random = new Random(seed);
      for (int i = 0; i < 3; i++) {
        int cluster = (int) image.clusterSize();
        byte[] compressible = new byte[cluster];
        java.util.Arrays.fill(compressible, 0, cluster / 2, (byte) random.nextInt());
        image.writeCompressed(
            random.nextLong(SIZE / cluster) * cluster, ByteBuffer.wrap(compressible));
      }
      disk = bytes(image);
    }
  }

  @ParameterizedTest
  @Seeds(60)
  void everySnapshotHoldsTheDiskOfItsMoment(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = create(seed, options(random));
    var model = new Model();
    var image = open(file);
    for (int i = 0; i < 14; i++) {
      model.write(image, seed * 31 + i, 1 + random.nextInt(15));
      model.step(image, random);
      assertThat(model.matches(image)).isTrue();
      sound(image, false);
      if (random.nextInt(4) == 0) {
        image.close();
        image = open(file.reopen());
      }
    }
    image.close();
    image = open(file.reopen());
    assertThat(model.matches(image)).isTrue();
    while (!model.held.isEmpty()) {
      String id = model.held.keySet().iterator().next();
      snapshots(image).delete(id);
      model.held.remove(id);
      assertThat(model.matches(image)).isTrue();
      sound(image, false);
    }
  }

  @ParameterizedTest
  @Seeds(60)
  void aPowerCutLeavesTheStateBeforeOrTheOneAfter(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = create(seed, options(random));
    var model = new Model();
    var image = open(file);
    for (int i = 0; i < 4; i++) {
      model.write(image, seed * 31 + i, 6);
      model.step(image, random);
    }
    model.write(image, seed, 6);
    image.close();
    file.reopen().flush();
    Model before = model.copy();
    long choice = random.nextLong();
    model.step(open(file.copy()), new Random(choice));
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      var attempt = open(copy);
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        before.copy().step(attempt, new Random(choice));
      } catch (BlockException e) {
        assertThat(e).hasStackTraceContaining("power is cut");
        done = false;
      }
      for (int i = 0; i < 3; i++) {
        var after = open(copy.crash(seed * 5 + cut * 3 + i));
        assertThat(before.matches(after) || model.matches(after)).isTrue();
        sound(after, true);
      }
      if (done) {
        assertThat(model.matches(open(copy.crash(1)))).isTrue();
        return;
      }
    }
  }

  @Test
  void aFailedWriteLeavesTheImageAsItWasAndUsable() throws Exception {
    CrashingFile file = create(1, Map.of("cluster_size", "512"));
    var model = new Model();
    var image = open(file);
    model.write(image, 1, 20);
    for (int write = 1; write < 60; write += 3) {
      file.failWrite(write, CrashingFile.Fault.OUT_OF_SPACE);
      try {
        model.step(image, new Random(write));
      } catch (BlockException e) {
        // A failed write of the header itself is final; every other one is not.
        if (String.valueOf(e.getMessage()).contains("reopen")) {
          image = open(file.reopen());
        }
      }
      file.failWrite(Integer.MAX_VALUE, CrashingFile.Fault.OUT_OF_SPACE);
      model.disk = bytes(image);
      sound(image, true);
      model.write(image, write, 3);
    }
    image.close();
  }

  @Test
  void recordsWhatQemuRecords() throws Exception {
    CrashingFile file = create(1, Map.of());
    var image = open(file);
    InternalSnapshot first = snapshots(image).create("first", NOW);
    assertThat(first.id()).isEqualTo("1");
    assertThat(snapshots(image).create("", NOW).id()).isEqualTo("2");
    snapshots(image).delete("1");
    assertThat(snapshots(image).create("2", NOW).id()).isEqualTo("3");
    image.close();
    image = open(file.reopen());
    List<InternalSnapshot> list = snapshots(image).list();
    assertThat(list).extracting(InternalSnapshot::id).containsExactly("2", "3");
    assertThat(list.get(1).date()).isEqualTo(NOW);
    assertThat(list.get(1).virtualSize()).isEqualTo(SIZE);
    assertThat(list.get(1).instructions()).hasValue(0);
    snapshots(image).delete("2"); // the id goes before the name
    assertThat(snapshots(image).list()).extracting(InternalSnapshot::id).containsExactly("3");
    SnapshotStore store = snapshots(image);
    assertThatThrownBy(() -> store.delete("9"))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("id or name '9'");
    assertThatThrownBy(() -> store.create("x".repeat(256), NOW))
        .hasMessageContaining("at most 255");
  }

  @Test
  void refusesMoreReferencesThanTheRefcountsHold() throws Exception {
    CrashingFile file = create(1, Map.of("refcount_bits", "2"));
    var image = open(file);
    image.write(0, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    snapshots(image).create("a", NOW);
    snapshots(image).create("b", NOW);
    SnapshotStore store = snapshots(image);
    assertThatThrownBy(() -> store.create("c", NOW))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("the most that 2 bits hold");
    assertThat(store.list()).hasSize(2);
    sound(image, false);
    image.write(0, ByteBuffer.wrap(new byte[] {4}));
    sound(image, false);
  }

  @Test
  void theDiskTakesTheSizeItHad() throws Exception {
    CrashingFile file = create(1, Map.of("cluster_size", "512"));
    var image = open(file);
    image.write(0, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    snapshots(image).create("small", NOW);
    image.resize(4 << 20);
    image.write((4 << 20) - 1, ByteBuffer.wrap(new byte[] {9}));
    snapshots(image).create("large", NOW);
    snapshots(image).apply("small");
    assertThat(image.virtualSize()).isEqualTo(SIZE);
    sound(image, false);
    snapshots(image).apply("large");
    assertThat(image.virtualSize()).isEqualTo(4 << 20);
    assertThat(bytes(image)[(4 << 20) - 1]).isEqualTo((byte) 9);
    sound(image, false);
  }

  @Test
  void claimedBitmapsStayClaimedAndUnclaimedOnesAreGivenUpByAnApply() throws Exception {
    CrashingFile file = create(1, Map.of());
    var image = open(file);
    var store = image.bitmapStore().orElseThrow();
    store.add("b", 65536);
    store.claim();
    snapshots(image).create("s", NOW);
    image.write(0, ByteBuffer.wrap(new byte[] {1}));
    var bitmap = new DirtyBitmap("b", SIZE, 65536);
    bitmap.set(0, 1);
    store.store(List.of(bitmap));
    assertThat(store.load("b").isDirty(0)).isTrue();
    snapshots(image).delete("s");
    assertThat(store.stored().getFirst().inconsistent()).isFalse();
    snapshots(image).create("s", NOW);
    snapshots(image).apply("s");
    assertThat(store.stored().getFirst().inconsistent()).isTrue();
    sound(image, false);
  }

  @Test
  void manyWindowsGiveWhatOneGives() {
    var counts = new ClusterCounts(10 * (ClusterCounts.PAGE + 128));
    var random = new Random(1);
    var model = new HashMap<Long, Integer>();
    for (int i = 0; i < 5000; i++) {
      model.merge(
          (long) random.nextInt(100 * ClusterCounts.PAGE), 1 + random.nextInt(200), Integer::sum);
    }
    var found = new HashMap<Long, Integer>();
    int windows = 0;
    do {
      windows++;
      model.forEach(counts::add);
      for (long c = counts.nextTouched(counts.firstCluster());
          c >= 0;
          c = counts.nextTouched(c + 1)) {
        if (counts.get(c) != 0) {
          assertThat(found.put(c, counts.get(c))).isNull();
        }
      }
    } while (counts.next());
    assertThat(found).isEqualTo(model);
    assertThat(windows).isGreaterThan(9);
  }
}
