// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PacketTest {
  private static byte[] bytes(int payload) throws IOException {
    byte[] body = new byte[payload];
    new Random(payload).nextBytes(body);
    var out = new ByteArrayOutputStream();
    new Packet(Program.REMOTE.number(), 1, 23, Packet.CALL, 5, Packet.OK, ByteBuffer.wrap(body))
        .write(Channels.newChannel(out));
    return out.toByteArray();
  }

  private static Optional<Packet> read(byte[] bytes) throws IOException {
    return Packet.read(Channels.newChannel(new ByteArrayInputStream(bytes)), Limits.PACKET_BYTES);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 4, 65_507, 65_508, 65_509, 131_072, 200_001})
  void payloadOfAnySizeComesBack(int size) throws IOException {
    byte[] bytes = bytes(size);
    assertThat(bytes).hasSize(28 + size);
    Packet packet = read(bytes).orElseThrow();
    assertThat(packet.procedure()).isEqualTo(23);
    assertThat(packet.serial()).isEqualTo(5);
    byte[] body = new byte[size];
    new Random(size).nextBytes(body);
    assertThat(packet.payload()).isEqualTo(ByteBuffer.wrap(body));
  }

  @Test
  void endBetweenPacketsIsNoError() throws IOException {
    assertThat(read(new byte[0])).isEmpty();
  }

  @Test
  void everyTruncationIsAnEndWithinAPacket() throws IOException {
    byte[] whole = bytes(12);
    for (int length = 1; length < whole.length; length++) {
      byte[] cut = java.util.Arrays.copyOf(whole, length);
      assertThatThrownBy(() -> read(cut)).as("cut at " + length).isInstanceOf(EOFException.class);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 4, 27, 33_554_437, Integer.MAX_VALUE, -1, Integer.MIN_VALUE})
  void impossibleLengthsAreRefusedBeforeAnythingIsAllocated(int length) throws IOException {
    byte[] bytes = bytes(12);
    ByteBuffer.wrap(bytes).putInt(length);
    assertThatThrownBy(() -> read(bytes))
        .isInstanceOf(XdrException.class)
        .hasMessageContaining("wanted 28 to 33554436");
  }

  @Test
  void largestLengthWithoutItsBytesCostsLittle() throws IOException {
    byte[] bytes = bytes(12);
    ByteBuffer.wrap(bytes).putInt(33_554_436);
    assertThatThrownBy(() -> read(bytes)).isInstanceOf(EOFException.class);
  }
}
