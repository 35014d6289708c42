// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.SnapshotTable.At;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Tables of internal snapshots that go past their limits, or lack what version 3 wants.
class SnapshotTableRepairTest {
  private static final long SIZE = 200 * 1024;

  /// An image with three snapshots between its writes.
  private static CrashingFile image(long seed, Map<String, String> options) throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(file, new CreateOptions(SIZE, Optional.empty(), options));
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      for (int i = 0; i < 3; i++) {
        Workload.random(seed + i).maxLength(20_000).run(image, ModelDisk.of(image), 8);
        image.snapshots().orElseThrow().create("s" + i, Instant.EPOCH);
      }
      Workload.random(seed + 3).maxLength(20_000).run(image, ModelDisk.of(image), 8);
    }
    return file.reopen();
  }

  /// The entry with `length` bytes of extra data.
  private static ByteBuffer withExtra(SnapshotTable.Entry entry, int length) {
    ByteBuffer raw = entry.raw();
    int had = raw.getInt(At.EXTRA_LENGTH);
    int texts = raw.getShort(At.ID_LENGTH) + raw.getShort(At.NAME_LENGTH);
    ByteBuffer fresh = Header.bigEndian((int) SnapshotTable.padded(At.EXTRA + length + texts));
    fresh.put(0, raw, 0, At.EXTRA + Math.min(had, length));
    for (int i = had; i < length; i++) {
      fresh.put(At.EXTRA + i, (byte) i);
    }
    fresh.put(At.EXTRA + length, raw, At.EXTRA + had, texts);
    return fresh.putInt(At.EXTRA_LENGTH, length);
  }

  private static List<SnapshotTable.Entry> entries(CrashingFile file) throws BlockException {
    var host = new HostFile(file);
    return SnapshotTable.read(host, Header.parse(host)).entries();
  }

  /// Gives the image a table of these entries, where nothing is.
  ///
  /// @param counted whether the refcounts know of it
  private static void lead(CrashingFile file, List<ByteBuffer> entries, boolean counted)
      throws BlockException {
    var host = new HostFile(file);
    var fields = new HeaderFields(host, Header.parse(host));
    Geometry geometry = fields.now().geometry();
    int bytes = entries.stream().mapToInt(ByteBuffer::limit).sum();
    long at = geometry.clusters(host.length()) << geometry.clusterBits();
    if (counted) {
      var counts = new Refcounts(host, fields.now(), MetadataClusters.NONE);
      at =
          new Allocator(host, fields, counts, MetadataClusters.NONE)
              .takeTable(geometry.clusters(bytes));
    }
    ByteBuffer table = Header.bigEndian(bytes);
    entries.forEach(e -> table.put(e.duplicate().rewind()));
    host.write(at, table.flip());
    fields.writeSnapshots(entries.size(), at);
    file.flush();
    file.reopen();
  }

  private static byte[] bytes(BlockNode node) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(node.virtualSize())];
    node.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  /// The disk, then each snapshot's.
  private static List<byte[]> contents(CrashingFile file) throws BlockException {
    var all = new ArrayList<byte[]>();
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      all.add(bytes(image));
      SnapshotStore store = image.snapshots().orElseThrow();
      for (InternalSnapshot snapshot : store.list()) {
        all.add(bytes(store.view(snapshot.id())));
      }
    }
    file.reopen();
    return all;
  }

  private static void holds(CrashingFile file, List<byte[]> wanted) throws BlockException {
    List<byte[]> found = contents(file);
    assertThat(found).hasSameSizeAs(wanted);
    for (int i = 0; i < found.size(); i++) {
      assertThat(Arrays.equals(found.get(i), wanted.get(i))).as("disk or snapshot %d", i).isTrue();
    }
  }

  private static RepairResult repair(CrashingFile file, Repair what) throws BlockException {
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      return image.repair(what);
    } finally {
      file.reopen();
    }
  }

  private static Map<String, String> options(Random random) {
    return Map.of(
        "cluster_size", "" + (512 << random.nextInt(4)),
        "refcount_bits", "" + (4 << random.nextInt(5)));
  }

  /// Entries of random lengths of extra data: too short, right, too long.
  private static List<ByteBuffer> botched(CrashingFile file, Random random) throws BlockException {
    var raws = new ArrayList<ByteBuffer>();
    for (SnapshotTable.Entry entry : entries(file)) {
      int length =
          switch (random.nextInt(3)) {
            case 0 -> 8 * random.nextInt(2);
            case 1 -> 16 + random.nextInt(1009);
            default -> 1025 + random.nextInt(3000);
          };
      raws.add(withExtra(entry, length));
    }
    return raws;
  }

  @ParameterizedTest
  @Seeds(60)
  void entriesAreCompletedAndCutAndNothingElseChanges(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = image(seed, options(random));
    List<byte[]> wanted = contents(file);
    List<InternalSnapshot> snapshots =
        entries(file).stream().map(SnapshotTable.Entry::snapshot).toList();
    List<ByteBuffer> raws = botched(file, random);
    lead(file, raws, random.nextBoolean());
    RepairResult result = repair(file, Repair.ALL);
    assertThat(result.after().findings()).isEmpty();
    long wrong =
        raws.stream()
            .filter(r -> r.getInt(At.EXTRA_LENGTH) < 16 || r.getInt(At.EXTRA_LENGTH) > 1024)
            .count();
    assertThat(result.corruptionsFixed()).isGreaterThanOrEqualTo(wrong);
    holds(file, wanted);
    List<SnapshotTable.Entry> now = entries(file);
    for (int i = 0; i < raws.size(); i++) {
      int before = raws.get(i).getInt(At.EXTRA_LENGTH);
      int after = now.get(i).raw().getInt(At.EXTRA_LENGTH);
      assertThat(after).isEqualTo(before < 16 ? 24 : Math.min(before, 1024));
      assertThat(now.get(i).snapshot().id()).isEqualTo(snapshots.get(i).id());
      assertThat(now.get(i).snapshot().name()).isEqualTo(snapshots.get(i).name());
      assertThat(now.get(i).snapshot().virtualSize()).isEqualTo(SIZE);
      if (before > 24) {
        byte[] kept = new byte[after - 24];
        now.get(i).raw().get(At.EXTRA + 24, kept);
        byte[] had = new byte[after - 24];
        raws.get(i).get(At.EXTRA + 24, had);
        assertThat(kept).isEqualTo(had);
      }
    }
  }

  @ParameterizedTest
  @Seeds(15)
  void aPowerCutLosesNothingAndTheNextRepairEndsIt(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = image(seed, options(random));
    List<byte[]> wanted = contents(file);
    lead(file, botched(file, random), random.nextBoolean());
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      var attempt = Qcow2Image.open(copy, OpenOptions.reading());
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        attempt.repair(Repair.ALL);
      } catch (BlockException e) {
        assertThat(e).hasStackTraceContaining("power is cut");
        done = false;
      }
      for (int i = 0; i < 3; i++) {
        CrashingFile left = copy.crash(seed * 5 + cut * 3 + i);
        assertThat(repair(left, Repair.ALL).after().findings()).isEmpty();
        holds(left, wanted);
      }
      if (done) {
        return;
      }
    }
  }

  @Test
  void snapshotsPastTheLargestNumberGoWithWhatOnlyTheyHold() throws Exception {
    CrashingFile file = image(3, Map.of("compat", "0.10"));
    List<byte[]> wanted = contents(file);
    List<SnapshotTable.Entry> three = entries(file);
    var raws = new ArrayList<ByteBuffer>();
    raws.add(three.get(0).raw());
    raws.add(three.get(1).raw());
    for (int i = 2; i < SnapshotTable.MAX_ENTRIES; i++) {
      raws.add(Header.bigEndian(At.EXTRA));
    }
    raws.add(three.get(2).raw());
    raws.add(Header.bigEndian(At.EXTRA));
    lead(file, raws, true);
    assertThatThrownBy(() -> Qcow2Image.open(file, OpenOptions.readWrite()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("65538 internal snapshots, at most 65536");
    assertThatThrownBy(() -> repair(file, Repair.LEAKS))
        .hasMessageContaining("nothing is repaired");
    RepairResult result = repair(file, Repair.ALL);
    assertThat(result.findings()).startsWith("Discarding 2 overhanging snapshots");
    assertThat(result.corruptionsFixed()).isEqualTo(2);
    assertThat(result.leaksFixed()).isPositive();
    assertThat(result.after().findings()).isEmpty();
    assertThat(entries(file)).hasSize(SnapshotTable.MAX_ENTRIES);
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      SnapshotStore store = image.snapshots().orElseThrow();
      assertThat(bytes(image)).isEqualTo(wanted.get(0));
      assertThat(bytes(store.view("s0"))).isEqualTo(wanted.get(1));
      assertThat(bytes(store.view("s1"))).isEqualTo(wanted.get(2));
    }
  }

  @Test
  void extraDataThatClaimsToSpanGuestDataCostsNoData() throws Exception {
    CrashingFile file = image(4, Map.of("cluster_size", "512"));
    List<byte[]> wanted = contents(file);
    var host = new HostFile(file);
    Header header = Header.parse(host);
    SnapshotTable table = SnapshotTable.read(host, header);
    ByteBuffer last = table.entries().getLast().raw();
    int texts = last.getShort(At.ID_LENGTH) + last.getShort(At.NAME_LENGTH);
    long entryAt = header.snapshotsOffset() + table.bytes() - last.limit();
    // To the file's end, where no cluster of the snapshot's own begins.
    long length = host.length() - entryAt - At.EXTRA - texts;
    assertThat(length).isGreaterThan(10_000);
    host.write(entryAt + At.EXTRA_LENGTH, Header.bigEndian(4).putInt(0, (int) length));
    file.flush();
    file.reopen();
    RepairResult result = repair(file, Repair.ALL);
    assertThat(result.after().findings()).isEmpty();
    holds(file, wanted);
  }

  @Test
  void aCheckNamesEntriesThatLackSomethingAndLeavesThem() throws Exception {
    CrashingFile file = image(5, Map.of());
    List<SnapshotTable.Entry> three = entries(file);
    lead(
        file,
        List.of(withExtra(three.get(0), 0), three.get(1).raw(), withExtra(three.get(2), 8)),
        true);
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      CheckResult found = image.check();
      assertThat(found.corruptions()).isEqualTo(2);
      assertThat(found.findings())
          .startsWith(
              "ERROR snapshot table entry 0 is incomplete",
              "ERROR snapshot table entry 2 is incomplete");
    }
    RepairResult leaks = repair(file.reopen(), Repair.LEAKS);
    assertThat(leaks.corruptionsFixed()).isZero();
    assertThat(leaks.after().corruptions()).isEqualTo(2);
    RepairResult all = repair(file, Repair.ALL);
    assertThat(all.findings())
        .startsWith(
            "Repairing snapshot table entry 0 is incomplete",
            "Repairing snapshot table entry 2 is incomplete");
    assertThat(all.corruptionsFixed()).isEqualTo(2);
  }

  @Test
  void nothingIsRepairedWhereAnL1TableIsOutOfPlace() throws Exception {
    CrashingFile file = image(6, Map.of());
    List<SnapshotTable.Entry> three = entries(file);
    ByteBuffer moved = withExtra(three.get(0), 24);
    moved.putLong(At.L1_OFFSET, three.get(0).l1Offset() + 512);
    lead(file, List.of(moved, withExtra(three.get(1), 0)), true);
    try (var image = Qcow2Image.open(file, OpenOptions.reading())) {
      assertThat(image.check().findings())
          .contains(
              "ERROR snapshot 1 (s0) l1_offset=0x"
                  + Long.toHexString(three.get(0).l1Offset() + 512)
                  + ": L1 table is not cluster aligned; snapshot table entry corrupted");
      assertThatThrownBy(() -> image.repair(Repair.ALL))
          .isInstanceOf(CorruptImageException.class)
          .hasMessageContaining("nothing is repaired");
    }
  }

  /// Opening for writing puts a dirty image right; snapshots go only when somebody asks for it.
  @Test
  void anImageThatWasNotClosedLosesNoSnapshotByBeingOpened() throws Exception {
    CrashingFile file = image(7, Map.of());
    lead(file, List.of(withExtra(entries(file).getFirst(), 2000)), true);
    file.write(79, ByteBuffer.wrap(new byte[] {1})); // the dirty bit
    assertThatThrownBy(() -> Qcow2Image.open(file, OpenOptions.readWrite()))
        .hasMessageContaining("extra data of 2000 bytes, at most 1024 are handled");
  }
}
