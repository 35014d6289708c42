// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Seeds;
import java.util.Random;
import java.util.zip.Inflater;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class NarrowDeflateTest {
  private final NarrowDeflate deflate = new NarrowDeflate();

  private byte[] pack(byte[] plain, int limit) {
    byte[] packed = new byte[limit + 16];
    int length = deflate.pack(plain, plain.length, packed, limit);
    return length < 0 ? new byte[0] : java.util.Arrays.copyOf(packed, length);
  }

  private static byte[] unpack(byte[] packed, int length) throws Exception {
    byte[] plain = new byte[length];
    try (var inflater = new Inflater(true)) {
      inflater.setInput(packed);
      int done = 0;
      while (done < length && !inflater.finished()) {
        done += inflater.inflate(plain, done, length - done);
      }
      assertThat(done).isEqualTo(length);
      assertThat(inflater.inflate(new byte[1])).isZero();
      assertThat(inflater.finished()).isTrue();
    }
    return plain;
  }

  /// Words, repeats from near and far, counters, noise and runs, mixed.
  private static byte[] content(Random random, int length) {
    byte[] bytes = new byte[length];
    for (int at = 0; at < length; ) {
      int run = Math.min(length - at, 1 + random.nextInt(3000));
      int kind = random.nextInt(6);
      for (int i = 0; i < run; i++) {
        bytes[at + i] =
            switch (kind) {
              case 0 -> (byte) random.nextInt(256);
              case 1 -> (byte) kind;
              case 2 ->
                  (byte) ("the quick brown fox " + random.nextInt(3)).charAt(random.nextInt(20));
              case 3 -> at > 5000 ? bytes[at + i - 4097] : (byte) i;
              case 4 -> at > 4096 ? bytes[at + i - 4096] : (byte) (i >> 3);
              default -> (byte) (i & 3);
            };
      }
      at += run;
    }
    return bytes;
  }

  @ParameterizedTest
  @Seeds(200)
  void whatItPacksUnpacksToTheSame(long seed) throws Exception {
    var random = new Random(seed);
    for (int i = 0; i < 5; i++) { // one after the other with the same tables
      int length = 1 + random.nextInt(1 << (6 + random.nextInt(13)));
      byte[] plain = content(random, length);
      byte[] packed = pack(plain, 2 * length + 100);
      assertThat(packed).isNotEmpty();
      assertThat(unpack(packed, length)).isEqualTo(plain);
    }
  }

  @Test
  void aMatchReachesBack4096BytesAndNoFurther() {
    byte[] unit = new byte[4097];
    new Random(1).nextBytes(unit);
    byte[] near = new byte[5 * 4096];
    byte[] far = new byte[5 * 4097];
    for (int i = 0; i < 5; i++) {
      System.arraycopy(unit, 0, near, i * 4096, 4096);
      System.arraycopy(unit, 0, far, i * 4097, 4097);
    }
    assertThat(pack(near, 100_000).length).isLessThan(4096 + 400);
    assertThat(pack(far, 100_000).length).isGreaterThan(5 * 4096);
  }

  @Test
  void saysNoWhenTheResultPassesTheLimit() throws Exception {
    byte[] noise = new byte[65536];
    new Random(2).nextBytes(noise);
    assertThat(pack(noise, 65535)).isEmpty();
    byte[] text = content(new Random(3), 65536);
    int exact = pack(text, 65535).length;
    assertThat(pack(text, exact)).hasSize(exact);
    assertThat(pack(text, exact - 1)).isEmpty();
    assertThat(unpack(pack(text, exact), 65536)).isEqualTo(text);
  }

  @Test
  void handlesTheShortestInputsAndSingleValues() throws Exception {
    for (int length = 1; length < 600; length++) {
      byte[] same = new byte[length];
      java.util.Arrays.fill(same, (byte) 0xee);
      assertThat(unpack(pack(same, 1000), length)).isEqualTo(same);
      byte[] counting = new byte[length];
      for (int i = 0; i < length; i++) {
        counting[i] = (byte) i;
      }
      assertThat(unpack(pack(counting, 1000), length)).isEqualTo(counting);
    }
    byte[] zeroes = new byte[2 << 20];
    assertThat(pack(zeroes, 65536).length).isLessThan(3000);
    assertThat(unpack(pack(zeroes, 65536), zeroes.length)).isEqualTo(zeroes);
  }

  /// Frequencies that grow as Fibonacci's numbers ask for codes far longer than 15 bits.
  @Test
  void cutsCodesThatWouldBeTooLong() throws Exception {
    byte[] plain = new byte[16_000];
    int at = 0;
    long a = 1;
    long b = 1;
    var random = new Random(5);
    for (int value = 0; at < plain.length; value++) {
      for (long i = 0; i < a && at < plain.length; i++) {
        plain[at++] = (byte) value;
      }
      long next = a + b;
      a = b;
      b = next;
    }
    for (int i = plain.length - 1; i > 0; i--) {
      int j = random.nextInt(i + 1);
      byte swap = plain[i];
      plain[i] = plain[j];
      plain[j] = swap;
    }
    assertThat(unpack(pack(plain, 20_000), plain.length)).isEqualTo(plain);
  }
}
