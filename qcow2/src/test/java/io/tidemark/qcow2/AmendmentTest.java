// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

/// Whatever is amended, disk and snapshots read as before; also when the power goes meanwhile.
class AmendmentTest {
  private static final int SIZE = 160 * 1024;

  /// The images of one test: one that is amended, and what lies beneath it, if anything.
  private record Images(CrashingFile file, Optional<byte[]> backing) {
    Qcow2Image open(CrashingFile which) throws BlockException {
      Qcow2Image image = Qcow2Image.open(which, OpenOptions.readWrite());
      if (backing.isPresent()) {
        CrashingFile beneath = CrashingFile.ofSize(1, backing.get().length);
        beneath.write(0, ByteBuffer.wrap(backing.get()));
        image.attachBacking(beneath);
      }
      return image;
    }
  }

  private static byte[] bytes(BlockNode node) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(node.virtualSize())];
    node.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  /// The disk, then each snapshot's.
  private static List<byte[]> contents(Qcow2Image image) throws BlockException {
    var contents = new ArrayList<byte[]>();
    contents.add(bytes(image));
    for (InternalSnapshot snapshot : image.snapshots().orElseThrow().list()) {
      contents.add(bytes(image.snapshots().orElseThrow().view(snapshot.id())));
    }
    return contents;
  }

  private static void assertHolds(Qcow2Image image, List<byte[]> wanted) throws BlockException {
    List<byte[]> found = contents(image);
    assertThat(found).hasSameSizeAs(wanted);
    for (int i = 0; i < found.size(); i++) {
      byte[] bytes = wanted.get(i);
      assertThat(Arrays.equals(Arrays.copyOf(found.get(i), bytes.length), bytes))
          .as("disk or snapshot %d", i)
          .isTrue();
    }
  }

  /// An image with every kind of cluster that it can have, and snapshots of some moments.
  private static Images random(long seed, Random random) throws BlockException {
    var options = new HashMap<String, String>();
    options.put("cluster_size", "" + (512 << random.nextInt(5)));
    boolean v2 = random.nextInt(3) == 0;
    options.put("compat", v2 ? "0.10" : "1.1");
    if (!v2) {
      options.put("refcount_bits", "" + (4 << random.nextInt(5)));
    }
    Optional<BackingReference> reference = Optional.empty();
    Optional<byte[]> backing = Optional.empty();
    if (random.nextBoolean()) {
      String name = "b".repeat(1 + random.nextInt(120));
      reference = Optional.of(new BackingReference(name, Optional.of("raw")));
      byte[] beneath = new byte[SIZE / 512 * 512 - 512 * random.nextInt(100)];
      random.nextBytes(beneath);
      backing = Optional.of(beneath);
    }
    var file = new CrashingFile(seed);
    Qcow2Image.create(file, new CreateOptions(SIZE, reference, options));
    var images = new Images(file, backing);
    Qcow2Image image = images.open(file);
    for (int i = 0; i < 30; i++) {
      int at = random.nextInt(SIZE - 12_000);
      int length = 1 + random.nextInt(12_000);
      switch (random.nextInt(6)) {
        case 0, 1, 2 -> {
          byte[] data = new byte[length];
          random.nextBytes(data);
          image.write(at, ByteBuffer.wrap(data));
        }
        case 3 -> image.writeZeroes(at, length, ZeroMode.NO_UNMAP);
        case 4 -> image.writeZeroes(at, length, ZeroMode.MAY_UNMAP);
        default -> {
          if (image.snapshots().orElseThrow().list().size() < 3) {
            image.snapshots().orElseThrow().create("s", Instant.EPOCH);
          }
        }
      }
    }
    image.close();
    file.reopen();
    return images;
  }

  private static Map<String, String> change(Random random) {
    var options = new HashMap<String, String>();
    if (random.nextBoolean()) {
      options.put("compat", random.nextBoolean() ? "0.10" : "1.1");
    }
    if (random.nextBoolean()) {
      options.put("refcount_bits", "" + (1 << random.nextInt(7)));
    } else if (options.containsKey("compat")) {
      options.put("refcount_bits", "16");
    }
    if (random.nextInt(4) == 0) {
      options.put("lazy_refcounts", random.nextBoolean() ? "on" : "off");
    }
    return options;
  }

  @ParameterizedTest
  @Seeds(60)
  void keepsWhatIsReadAndLeaksNothing(long seed) throws BlockException {
    var random = new Random(seed);
    Images images = random(seed, random);
    Qcow2Image image = images.open(images.file());
    List<byte[]> wanted = contents(image);
    int done = 0;
    for (int i = 0; i < 6; i++) {
      Map<String, String> options = change(random);
      try {
        image.amend(options);
        done++;
        ImageInformation now = image.information();
        options.forEach((name, value) -> {
          switch (name) {
            case "compat" -> assertThat(now.compat()).isEqualTo(value);
            case "refcount_bits" -> assertThat("" + now.refcountBits()).isEqualTo(value);
            default ->
                assertThat(now.compat().equals("1.1") && now.lazyRefcounts())
                    .isEqualTo(now.compat().equals("1.1") && value.equals("on"));
          }
        });
      } catch (UnsupportedImageException e) {
        assertThat(e).hasMessageMatching(".*: (refcount|compat=0.10 requires|lazy).*");
      }
      assertHolds(image, wanted);
      CheckResult check = image.check();
      assertThat(check.findings()).isEmpty();
      assertThat(check.leaks()).isZero();
    }
    assertThat(done).isPositive();
    image.close();
    assertHolds(images.open(images.file().reopen()), wanted);
  }

  @ParameterizedTest
  @Seeds(12)
  void aPowerCutLeavesWhatIsReadAsItWas(long seed) throws BlockException {
    var random = new Random(seed);
    Images images = random(seed, random);
    List<byte[]> wanted = contents(images.open(images.file().copy()));
    Map<String, String> options =
        random.nextBoolean()
            ? Map.of("compat", "0.10", "refcount_bits", "16")
            : Map.of("compat", "1.1", "refcount_bits", "" + (8 << random.nextInt(4)));
    for (long cut = 1; ; cut++) {
      CrashingFile copy = images.file().copy();
      Qcow2Image image = images.open(copy);
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        image.amend(options);
      } catch (BlockException e) {
        assertThat(e).hasStackTraceContaining("power is cut");
        done = false;
      }
      for (int i = 0; i < 2; i++) {
        Qcow2Image left = images.open(copy.crash(seed * 7 + cut * 2 + i));
        assertHolds(left, wanted);
        CheckResult check = left.check();
        assertThat(check.sound()).as("%s", check.findings()).isTrue();
        left.amend(options);
        assertHolds(left, wanted);
      }
      if (done) {
        return;
      }
    }
  }

  @Test
  void refusesWhatCannotBeAndChangesNothing() throws BlockException {
    var file = new CrashingFile(1);
    Qcow2Image.create(
        file, new CreateOptions(SIZE, Optional.empty(), Map.of("cluster_size", "4096")));
    Qcow2Image image = Qcow2Image.open(file, OpenOptions.readWrite());
    long steps = file.steps();
    for (var refused :
        Map.of(
                "cluster_size", "8192",
                "backing_file", "b",
                "data_file", "d",
                "data_file_raw", "on",
                "nonsense", "1",
                "compat", "0.9",
                "refcount_bits", "3",
                "size", "many")
            .entrySet()) {
      assertThatThrownBy(() -> image.amend(Map.of(refused.getKey(), refused.getValue())))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining(refused.getKey());
    }
    assertThat(file.steps()).isEqualTo(steps);
    image.bitmapStore().orElseThrow().add("b", 65536);
    assertThatThrownBy(() -> image.amend(Map.of("compat", "0.10"))).hasMessageContaining("bitmaps");
  }
}
