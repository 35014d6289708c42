// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.BitSet;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class DirtyBitmapTest {
  static java.util.stream.LongStream seeds() {
    return java.util.stream.LongStream.rangeClosed(1, 60);
  }

  @ParameterizedTest(name = "seed {0}")
  @MethodSource("seeds")
  void behavesAsASetOfBits(long seed) {
    var random = new Random(seed);
    int granularity = 512 << random.nextInt(4);
    long size = 1L + random.nextInt(400 * granularity);
    var bitmap = new DirtyBitmap("b", size, granularity);
    int bits = (int) ((size + granularity - 1) / granularity);
    var model = new BitSet(bits);
    assertThat(bitmap.bits()).isEqualTo(bits);
    for (int i = 0; i < 200; i++) {
      long offset = random.nextLong(size);
      long length = random.nextLong(1 + Math.min(size - offset, 40L * granularity));
      int first = (int) (offset / granularity);
      int end = length == 0 ? first : (int) ((offset + length - 1) / granularity) + 1;
      if (random.nextInt(3) > 0) {
        bitmap.set(offset, length);
        model.set(first, end);
      } else {
        bitmap.clear(offset, length);
        model.clear(first, end);
      }
      agree(bitmap, model, size, random);
    }
    var words = new DirtyBitmap("w", size, granularity);
    for (int w = 0; w < bitmap.wordCount(); w++) {
      words.orWord(w, bitmap.word(w));
    }
    agree(words, model, size, random);
    agree(bitmap.copy("c"), model, size, random);
  }

  private static void agree(DirtyBitmap bitmap, BitSet model, long size, Random random) {
    long granularity = bitmap.granularity();
    assertThat(bitmap.dirtyBits()).isEqualTo(model.cardinality());
    long bytes =
        model.stream().mapToLong(b -> Math.min(granularity, size - (long) b * granularity)).sum();
    assertThat(bitmap.dirtyBytes()).isEqualTo(bytes);
    int from = random.nextInt((int) bitmap.bits());
    assertThat(bitmap.isDirty((long) from * granularity)).isEqualTo(model.get(from));
    int set = model.nextSetBit(from);
    long most = (1 + random.nextInt(10)) * granularity;
    Optional<ByteRange> range = bitmap.nextDirty((long) from * granularity, most);
    if (set < 0) {
      assertThat(range).isEmpty();
    } else {
      int clear = Math.min(model.nextClearBit(set), set + (int) (most / granularity));
      long offset = (long) set * granularity;
      assertThat(range)
          .contains(new ByteRange(offset, Math.min((long) clear * granularity, size) - offset));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {512, 4096, 65536})
  void mergingMarksAtLeastWhatTheOtherHas(int otherGranularity) {
    var random = new Random(otherGranularity);
    long size = 3_000_001;
    for (int round = 0; round < 20; round++) {
      var into = new DirtyBitmap("into", size, 4096);
      var from = new DirtyBitmap("from", size, otherGranularity);
      for (int i = 0; i < 5; i++) {
        into.set(random.nextLong(size - 1000), 1000);
        from.set(random.nextLong(size - 1000), 1000);
      }
      DirtyBitmap before = into.copy("before");
      into.merge(from);
      for (long at = 0; at < size; at += 512) {
        boolean must = before.isDirty(at) || from.isDirty(at);
        assertThat(!must || into.isDirty(at)).as("at " + at).isTrue();
      }
      if (otherGranularity <= 4096) {
        assertThat(into.dirtyBits()).isLessThanOrEqualTo(before.dirtyBits() + from.dirtyBits());
      }
    }
  }

  @Test
  void settersOfOneWordLoseNothing() throws InterruptedException {
    var bitmap = new DirtyBitmap("b", 64 * 512, 512);
    Thread[] threads = new Thread[8];
    for (int t = 0; t < threads.length; t++) {
      int id = t;
      threads[t] =
          Thread.ofPlatform()
              .start(() -> {
                for (int round = 0; round < 8; round++) {
                  bitmap.set((id * 8L + round) * 512, 1);
                }
              });
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(bitmap.dirtyBits()).isEqualTo(64);
  }

  @Test
  void handlesNoBytesAndTheLastBit() {
    var empty = new DirtyBitmap("e", 0, 512);
    empty.setAll();
    assertThat(empty.dirtyBytes()).isZero();
    assertThat(empty.nextDirty(0, 1)).isEmpty();
    var odd = new DirtyBitmap("o", 1000, 512);
    odd.setAll();
    assertThat(odd.dirtyBytes()).isEqualTo(1000);
    assertThat(odd.nextDirty(0, Long.MAX_VALUE)).contains(new ByteRange(0, 1000));
    assertThatThrownBy(() -> odd.set(1024, 1)).isInstanceOf(IllegalArgumentException.class);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 256, 513, 65537})
  void refusesGranularitiesThatQemuDoesNotKnow(int granularity) {
    assertThatThrownBy(() -> new DirtyBitmap("b", 1000, granularity))
        .isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void anotherSizeKeepsWhatIsSetAndSetsWhatIsNew() {
    var bitmap = new DirtyBitmap("b", 1_000_000, 4096);
    bitmap.set(5000, 1);
    bitmap.setEnabled(false);
    DirtyBitmap larger = bitmap.resized(2_000_000);
    assertThat(larger.isDirty(4096)).isTrue();
    assertThat(larger.isDirty(900_000)).isFalse();
    assertThat(larger.isDirty(1_000_000)).isTrue();
    assertThat(larger.isDirty(1_999_999)).isTrue();
    assertThat(larger.enabled()).isFalse();
    DirtyBitmap smaller = larger.resized(1_100_000);
    assertThat(smaller.size()).isEqualTo(1_100_000);
    assertThat(smaller.dirtyBits()).isEqualTo(1 + smaller.bits() - 1_000_000 / 4096);
  }
}
