// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class BitmapOperationsTest {
  private static final long SIZE = 3_000_000 / 512 * 512;

  private static CrashingFile image(long seed, int clusterSize) throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(
        file, new CreateOptions(SIZE, Optional.empty(), Map.of("cluster_size", "" + clusterSize)));
    return file;
  }

  private static Qcow2Image open(CrashingFile file) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite());
  }

  private static BitmapStore store(Qcow2Image image) {
    return image.bitmapStore().orElseThrow();
  }

  /// What a set of bitmaps is to hold.
  private static final class Model {
    private final TreeMap<String, DirtyBitmap> bitmaps = new TreeMap<>();

    Model copy() {
      var copy = new Model();
      bitmaps.forEach((name, bitmap) -> copy.bitmaps.put(name, bitmap.copy(name)));
      return copy;
    }

    boolean matches(BitmapStore store) throws BlockException {
      var names = new ArrayList<String>();
      for (BitmapStore.Stored found : store.stored()) {
        names.add(found.name());
        DirtyBitmap wanted = bitmaps.get(found.name());
        if (wanted == null
            || found.inconsistent()
            || found.enabled() != wanted.enabled()
            || found.granularity() != wanted.granularity()) {
          return false;
        }
        DirtyBitmap loaded = store.load(found.name());
        for (int w = 0; w < wanted.wordCount(); w++) {
          if (loaded.word(w) != wanted.word(w)) {
            return false;
          }
        }
      }
      return names.stream().sorted().toList().equals(List.copyOf(bitmaps.keySet()));
    }

    /// One operation, on both.
    void step(BitmapStore store, Random random) throws BlockException {
      String name = "bitmap-" + random.nextInt(4);
      DirtyBitmap known = bitmaps.get(name);
      if (known == null) {
        long granularity = 512L << random.nextInt(12);
        store.add(name, granularity);
        bitmaps.put(name, new DirtyBitmap(name, SIZE, granularity));
        return;
      }
      switch (random.nextInt(6)) {
        case 0 -> {
          store.clear(name);
          known.clear(0, SIZE);
        }
        case 1 -> {
          store.disable(name);
          known.setEnabled(false);
        }
        case 2 -> {
          store.enable(name);
          known.setEnabled(true);
        }
        case 3 -> {
          store.remove(name);
          bitmaps.remove(name);
        }
        default -> {
          var source = new DirtyBitmap("source", SIZE, 512L << random.nextInt(9));
          for (int i = 0; i < 3; i++) {
            source.set(random.nextInt((int) SIZE - 40_000), 1 + random.nextInt(40_000));
          }
          store.merge(name, source);
          known.merge(source);
        }
      }
    }
  }

  @ParameterizedTest
  @Seeds(60)
  void everyOperationIsDoneOrNotAfterAPowerCut(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = image(seed, 512 << random.nextInt(8));
    var model = new Model();
    var image = open(file);
    for (int i = 0; i < 12; i++) {
      model.step(store(image), random);
    }
    assertThat(model.matches(store(image))).isTrue();
    image.close();
    file.reopen();
    assertThat(model.matches(store(open(file)))).isTrue();
    file.flush();
    Model before = model.copy();
    long choice = random.nextLong();
    model.step(store(open(file.copy())), new Random(choice)); // the model after it
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      var attempt = open(copy);
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        before.copy().step(store(attempt), new Random(choice));
      } catch (BlockException e) {
        assertThat(e).hasMessageContaining("power");
        done = false;
      }
      for (int i = 0; i < 4; i++) {
        CrashingFile left = copy.crash(seed * 5 + cut * 3 + i);
        var after = open(left);
        assertThat(before.matches(store(after)) || model.matches(store(after))).isTrue();
        CheckResult check = after.check();
        assertThat(check.sound()).as("%s", check.findings()).isTrue();
      }
      if (done) {
        assertThat(model.matches(store(open(copy.crash(1))))).isTrue();
        return;
      }
    }
  }

  @Test
  void anInconsistentBitmapCanOnlyBeRemoved() throws Exception {
    CrashingFile file = image(1, 65536);
    var image = open(file);
    store(image).add("b", 65536);
    image.write(0, ByteBuffer.wrap(new byte[512])); // nobody claimed it
    BitmapStore store = store(image);
    assertThatThrownBy(() -> store.clear("b"))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("bitmap b is inconsistent");
    assertThatThrownBy(() -> store.enable("b")).hasMessageContaining("inconsistent");
    assertThatThrownBy(() -> store.merge("b", new DirtyBitmap("s", SIZE, 65536)))
        .hasMessageContaining("inconsistent");
    assertThatThrownBy(() -> store.load("b")).hasMessageContaining("inconsistent");
    store.remove("b");
    assertThat(store.stored()).isEmpty();
  }

  @Test
  void refusesNamesAndGranularitiesOutsideTheFormat() throws Exception {
    BitmapStore store = store(open(image(1, 65536)));
    store.add("x".repeat(1023), 512);
    store.add("coarse", 1L << 31);
    assertThat(store.load("coarse").granularity()).isEqualTo(1L << 31);
    assertThatThrownBy(() -> store.add("x".repeat(1024), 65536))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("1 to 1023");
    assertThatThrownBy(() -> store.add("", 65536)).hasMessageContaining("1 to 1023");
    for (long granularity : new long[] {0, 256, 65537, 1L << 32, -512}) {
      assertThatThrownBy(() -> store.add("g", granularity)).hasMessageContaining("power of two");
    }
    assertThatThrownBy(() -> store.add("coarse", 512)).hasMessageContaining("already");
    assertThatThrownBy(() -> store.clear("missing")).hasMessageContaining("no bitmap is named");
    assertThatThrownBy(() -> store.merge("coarse", new DirtyBitmap("s", SIZE + 512, 65536)))
        .hasMessageContaining("cannot be merged");
  }

  @Test
  void refusesABitmapOfMoreThan512MiB() throws Exception {
    var file = new CrashingFile(1);
    Qcow2Image.create(
        file, new CreateOptions(1L << 50, Optional.empty(), Map.of("cluster_size", "2097152")));
    BitmapStore store = store(open(file));
    assertThatThrownBy(() -> store.add("fine", 65536)).hasMessageContaining("larger granularity");
    store.add("coarse", 1 << 20); // 128 MiB, all zero: a table of 64 entries
    store.clear("coarse");
    assertThat(store.stored().getFirst().granularity()).isEqualTo(1 << 20);
  }

  @Test
  void nothingIsChangedInTheFileWhileAnEngineHoldsTheBitmaps() throws Exception {
    BitmapStore store = store(open(image(1, 65536)));
    store.add("b", 65536);
    store.claim();
    assertThatThrownBy(() -> store.clear("b")).isInstanceOf(ImageBusyException.class);
    assertThatThrownBy(() -> store.add("c", 65536)).isInstanceOf(ImageBusyException.class);
    store.store(List.of(new DirtyBitmap("b", SIZE, 65536)));
    store.clear("b");
  }

  @Test
  void aWriteAfterAnOperationGivesTheBitmapUp() throws Exception {
    var image = open(image(1, 65536));
    image.write(0, ByteBuffer.wrap(new byte[512]));
    store(image).add("b", 65536);
    store(image).add("resting", 65536);
    store(image).disable("resting");
    image.write(0, ByteBuffer.wrap(new byte[512]));
    assertThat(store(image).stored())
        .containsExactly(
            new BitmapStore.Stored("b", 65536, true, true),
            new BitmapStore.Stored("resting", 65536, false, false));
  }

  @Test
  void bitmapsFollowTheDiskToAnotherSizeOrAreInconsistentAfterAPowerCut() throws Exception {
    CrashingFile file = image(1, 4096);
    var image = open(file);
    store(image).add("b", 4096);
    var source = new DirtyBitmap("s", SIZE, 4096);
    source.set(100_000, 5000);
    store(image).merge("b", source);
    image.close();
    file.reopen().flush();
    long larger = SIZE + (50 << 20);
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      var attempt = open(copy);
      copy.cutPowerAt(cut);
      boolean done = true;
      try {
        attempt.resize(larger);
      } catch (BlockException e) {
        assertThat(e).hasMessageContaining("power");
        done = false;
      }
      for (int i = 0; i < 3; i++) {
        var after = open(copy.crash(cut * 3 + i));
        BitmapStore.Stored stored = store(after).stored().getFirst();
        if (!stored.inconsistent()) {
          DirtyBitmap bitmap = store(after).load("b");
          assertThat(bitmap.isDirty(104_999)).isTrue();
          assertThat(bitmap.isDirty(50_000)).isFalse();
          if (after.virtualSize() == larger) {
            assertThat(bitmap.isDirty(SIZE)).isTrue();
          }
        }
        CheckResult check = after.check();
        assertThat(check.sound()).as("%s", check.findings()).isTrue();
      }
      if (done) {
        assertThat(store(open(copy.crash(7))).load("b").size()).isEqualTo(larger);
        return;
      }
    }
  }
}
