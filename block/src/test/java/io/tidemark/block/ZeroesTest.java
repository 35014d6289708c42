// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ZeroesTest {
  @ParameterizedTest
  @ValueSource(ints = {1, 7, 8, 9, 512, 262143, 262144, 262145, 600000})
  void findsAnySingleByteThatIsNotZero(int length) {
    for (ByteBuffer bytes :
        new ByteBuffer[] {
          ByteBuffer.allocate(length + 10), ByteBuffer.allocateDirect(length + 10)
        }) {
      bytes.position(5).limit(5 + length);
      bytes.put(4, (byte) 1).put(4, (byte) 1);
      assertThat(Zeroes.isZero(bytes)).isTrue();
      for (int at : new int[] {0, length / 2, length - 1}) {
        bytes.put(5 + at, (byte) -1);
        assertThat(Zeroes.isZero(bytes)).as("byte " + at).isFalse();
        bytes.put(5 + at, (byte) 0);
      }
      assertThat(bytes.position()).isEqualTo(5);
      assertThat(bytes.remaining()).isEqualTo(length);
    }
  }
}
