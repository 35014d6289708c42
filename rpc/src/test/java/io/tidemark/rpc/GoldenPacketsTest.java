// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Objects;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// Packets that libvirt's own client and daemon exchanged: read, taken apart, put together again.
class GoldenPacketsTest {
  record Golden(String procedure, String kind, String hex) {
    byte[] bytes() {
      return HexFormat.of().parseHex(hex);
    }

    Packet packet() throws IOException {
      return Packet.read(
              Channels.newChannel(new ByteArrayInputStream(bytes())), Limits.PACKET_BYTES)
          .orElseThrow();
    }

    @Override
    public String toString() {
      return procedure + " " + kind + " of " + hex.length() / 2 + " bytes";
    }
  }

  static Stream<Golden> packets() {
    try (InputStream in =
        GoldenPacketsTest.class.getResourceAsStream("/golden/libvirt-9.0.0/packets.txt")) {
      return new String(Objects.requireNonNull(in).readAllBytes(), StandardCharsets.US_ASCII)
          .lines()
          .filter(line -> !line.startsWith("#"))
          .map(line -> line.split(" "))
          .map(word -> new Golden(word[0], word[1], word[2]));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @ParameterizedTest
  @MethodSource("packets")
  void comesBackByteForByte(Golden golden) throws IOException {
    Packet packet = golden.packet();
    Packet again =
        new Packet(
            packet.program(),
            packet.version(),
            packet.procedure(),
            packet.type(),
            packet.serial(),
            packet.status(),
            recoded(golden, packet));
    var out = new ByteArrayOutputStream();
    again.write(Channels.newChannel(out));
    assertThat(out.toByteArray()).isEqualTo(golden.bytes());
  }

  private static ByteBuffer recoded(Golden golden, Packet packet) throws IOException {
    XdrReader in = new XdrReader(packet.payload());
    XdrWriter out = new XdrWriter();
    Optional<Class<? extends Record>> structure = structure(golden, packet, in, out);
    if (structure.isEmpty()) {
      return packet.payload();
    }
    recode(structure.get(), in, out);
    assertThat(in.remaining()).as("bytes left over").isZero();
    return out.written();
  }

  private static <T extends Record> void recode(Class<T> type, XdrReader in, XdrWriter out)
      throws XdrException {
    Structure.of(type).encode(Structure.of(type).decode(in), out);
  }

  private static Optional<Class<? extends Record>> structure(
      Golden golden, Packet packet, XdrReader in, XdrWriter out) throws IOException {
    if (golden.kind().equals("error")) {
      return Optional.of(Wire.ErrorBody.class);
    }
    if (packet.program() == Program.KEEPALIVE.number()) {
      return Optional.empty();
    }
    if (golden.kind().equals("message")) {
      out.writeInt(in.readInt());
      return EventKind.ofMessage(packet.procedure()).orElseThrow().payload();
    }
    Optional<Procedure<?, ?>> procedure = procedure(packet);
    if (procedure.isEmpty()) {
      // Not served: its structure is nobody's business here.
      assertThat(golden.procedure()).isEqualTo("DOMAIN_MONITOR_COMMAND");
      return Optional.empty();
    }
    assertThat(procedure.get().row().name()).isEqualTo(golden.procedure());
    return Optional.of(
        golden.kind().equals("call") ? procedure.get().arguments() : procedure.get().result());
  }

  private static Optional<Procedure<?, ?>> procedure(Packet packet) {
    return procedures()
        .filter(each ->
            each.row().program().number() == packet.program()
                && each.row().number() == packet.procedure())
        .findFirst();
  }

  static Stream<Procedure<?, ?>> procedures() {
    return Arrays.stream(Remote.class.getDeclaredFields())
        .filter(field -> Modifier.isPublic(field.getModifiers()))
        .map(field -> {
          try {
            return (Procedure<?, ?>) Objects.requireNonNull(field.get(null));
          } catch (IllegalAccessException e) {
            throw new AssertionError(e);
          }
        });
  }

  @Test
  void listOfDomainsHoldsWhatVirshSaw() throws IOException {
    Golden golden =
        packets()
            .filter(each -> each.procedure().equals("CONNECT_LIST_ALL_DOMAINS"))
            .filter(each -> each.kind().equals("reply"))
            .findFirst()
            .orElseThrow();
    Replies.Domains reply =
        Structure.of(Replies.Domains.class).decode(new XdrReader(golden.packet().payload()));
    assertThat(reply.count()).isEqualTo(1);
    assertThat(reply.domains().getFirst().name()).isEqualTo("gold");
    assertThat(reply.domains().getFirst().uuid())
        .hasToString("11111111-2222-3333-4444-555555555555");
    assertThat(reply.domains().getFirst().id()).isEqualTo(1);
  }
}
