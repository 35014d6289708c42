// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class HeaderRewriteTest {
  private static final long SIZE = 1 << 20;

  private static CrashingFile image(
      long seed, int clusterSize, boolean v2, Optional<BackingReference> backing)
      throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            backing,
            Map.of("cluster_size", "" + clusterSize, "compat", v2 ? "0.10" : "1.1")));
    return file;
  }

  private static Optional<BackingReference> reference(Random random) {
    if (random.nextInt(5) == 0) {
      return Optional.empty();
    }
    int length = 1 + random.nextInt(random.nextInt(4) == 0 ? 700 : 60);
    var format =
        List.of(
                Optional.of("raw"),
                Optional.of("qcow2"),
                Optional.of("a-long-format"),
                Optional.<String>empty())
            .get(random.nextInt(4));
    return Optional.of(
        new BackingReference(
            String.valueOf((char) ('a' + random.nextInt(26))).repeat(length), format));
  }

  private static List<Integer> otherTypes(CrashingFile file) throws BlockException {
    return Header.parse(new HostFile(file)).extensions().stream()
        .map(Header.Extension::type)
        .filter(t -> t != Header.Extension.BACKING_FORMAT && t != HeaderRewrite.FILLER)
        .toList();
  }

  @ParameterizedTest
  @Seeds(200)
  void aPowerCutLeavesTheOldReferenceOrTheNew(long seed) throws Exception {
    var random = new Random(seed);
    int clusterSize = 4096 << random.nextInt(3);
    boolean v2 = random.nextInt(5) == 0;
    CrashingFile file = image(seed, clusterSize, v2, Optional.empty());
    if (!v2 && seed % 4 == 0) {
      lengthenHeader(file, 1 + (int) (seed / 4 % 15));
    }
    for (int i = 0; i < 4; i++) {
      change(file, reference(random));
      if (random.nextInt(3) == 0) {
        addBitmap(file, "b" + i);
      }
    }
    Optional<BackingReference> before = recorded(file);
    Optional<BackingReference> after = reference(random);
    List<Integer> others = otherTypes(file);
    Set<Optional<BackingReference>> seen = new HashSet<>();
    for (long cut = 1; ; cut++) {
      CrashingFile copy = file.copy();
      copy.cutPowerAt(cut);
      boolean done;
      try {
        change(copy, after);
        done = true;
      } catch (BlockException e) {
        assertThat(e).hasMessageContaining("power");
        done = false;
      }
      for (int i = 0; i < 6; i++) {
        CrashingFile left = copy.crash(seed * 17 + cut * 7 + i);
        Optional<BackingReference> found = recorded(left);
        assertThat(found).isIn(before, after);
        assertThat(otherTypes(left)).isEqualTo(others);
        seen.add(found);
        // A rewrite that was cut is no hindrance to the next.
        change(left, before);
        assertThat(recorded(left)).isEqualTo(before);
        assertThat(otherTypes(left)).isEqualTo(others);
      }
      if (done) {
        assertThat(recorded(copy.crash(1))).isEqualTo(after);
        break;
      }
    }
    assertThat(seen).contains(before, after);
  }

  /// Moves the extensions back by `by` bytes. QEMU 7.2 reads lengths that are no multiple of 8.
  private static void lengthenHeader(CrashingFile file, int by) throws BlockException {
    Header header = Header.parse(new HostFile(file));
    ByteBuffer length = ByteBuffer.allocate(4);
    file.read(Header.At.HEADER_LENGTH, length);
    int start = length.getInt(0);
    ByteBuffer moved = ByteBuffer.allocate(by + header.extensionsEnd() + 8 - start);
    file.read(start, moved.position(by));
    file.write(start, moved.rewind());
    file.write(Header.At.HEADER_LENGTH, length.putInt(0, start + by).rewind());
    file.flush();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 4, 7, 15})
  void readsAHeaderWhoseLengthIsNoMultipleOf8(int more) throws Exception {
    var backing = Optional.of(new BackingReference("b.raw", Optional.of("raw")));
    CrashingFile file = image(1, 65536, false, Optional.empty());
    List<Integer> types = otherTypes(file);
    lengthenHeader(file, more);
    assertThat(recorded(file)).isEmpty();
    assertThat(otherTypes(file)).isEqualTo(types);
    change(file, backing);
    assertThat(recorded(file)).isEqualTo(backing);
    assertThat(otherTypes(file)).isEqualTo(types);
  }

  private static Optional<BackingReference> recorded(CrashingFile file) throws BlockException {
    return Header.parse(new HostFile(file)).backing();
  }

  private static void change(CrashingFile file, Optional<BackingReference> to)
      throws BlockException {
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.changeBacking(to);
    assertThat(image.backingReference()).isEqualTo(to);
  }

  private static void addBitmap(CrashingFile file, String name) throws BlockException {
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    if (image.bitmapStore().isPresent()) {
      image.bitmapStore().get().add(new DirtyBitmap(name, SIZE, 65536));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {512, 1024, 2048, 65536})
  void changesItBackAndForthWithoutEnd(int clusterSize) throws Exception {
    CrashingFile file = image(1, clusterSize, false, Optional.empty());
    for (int i = 0; i < 200; i++) {
      var to =
          i % 3 == 2
              ? Optional.<BackingReference>empty()
              : Optional.of(
                  new BackingReference(
                      "b".repeat(1 + i % 20),
                      i % 2 == 0 ? Optional.of("qcow2") : Optional.empty()));
      change(file, to);
      assertThat(recorded(file)).isEqualTo(to);
    }
  }

  /// qemu: 7.2 makes all of these changes.
  @ParameterizedTest
  @ValueSource(ints = {20, 300, 370})
  void findsRoomForNamesInASmallHeader(int length) throws Exception {
    CrashingFile file = image(1, 1024, false, Optional.empty());
    for (String letter : List.of("a", "b", "c")) {
      var to = Optional.of(new BackingReference(letter.repeat(length), Optional.of("qcow2")));
      change(file, to);
      assertThat(recorded(file)).isEqualTo(to);
    }
  }

  @Test
  void refusesWhatTheHeaderCannotRecord() throws Exception {
    CrashingFile file = image(1, 65536, false, Optional.empty());
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    assertThatThrownBy(() ->
            image.changeBacking(
                Optional.of(new BackingReference("x".repeat(1024), Optional.empty()))))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("1024 bytes, wanted 1 to 1023");
    assertThatThrownBy(() ->
            image.changeBacking(
                Optional.of(new BackingReference("x", Optional.of("f".repeat(16))))))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("at most 15");
    assertThat(image.backingReference()).isEmpty();
  }
}
