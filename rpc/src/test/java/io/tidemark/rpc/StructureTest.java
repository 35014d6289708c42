// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.UUID;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class StructureTest {
  static Stream<Class<? extends Record>> structures() {
    Stream<Class<? extends Record>> called =
        GoldenPacketsTest.procedures().flatMap(each -> Stream.of(each.arguments(), each.result()));
    Stream<Class<? extends Record>> sent =
        Arrays.stream(EventKind.values()).flatMap(kind -> kind.payload().stream());
    return Stream.of(called, sent, Stream.<Class<? extends Record>>of(Wire.ErrorBody.class))
        .flatMap(each -> each)
        .distinct();
  }

  @ParameterizedTest
  @MethodSource("structures")
  void whatIsWrittenIsRead(Class<? extends Record> type) throws Exception {
    for (long seed = 1; seed <= 20; seed++) {
      Random random = new Random(seed);
      Object value = random(type, random);
      ByteBuffer bytes = encode(type, value);
      assertThat(Structure.of(type).decode(new XdrReader(bytes)))
          .as("seed " + seed)
          .isEqualTo(value);
    }
  }

  @ParameterizedTest
  @MethodSource("structures")
  void everyTruncationIsRefused(Class<? extends Record> type) throws Exception {
    ByteBuffer whole = encode(type, random(type, new Random(7)));
    for (int length = 0; length < whole.limit(); length++) {
      ByteBuffer cut = whole.slice(0, length);
      assertThatThrownBy(() -> Structure.of(type).decode(new XdrReader(cut)))
          .as("cut at " + length)
          .isInstanceOf(XdrException.class);
    }
  }

  @ParameterizedTest
  @MethodSource("structures")
  void flippedBytesGiveAValueOrARefusal(Class<? extends Record> type) throws Exception {
    for (long seed = 1; seed <= 50; seed++) {
      Random random = new Random(seed);
      ByteBuffer bytes = encode(type, random(type, random));
      for (int i = 0; i < 3 && bytes.limit() > 0; i++) {
        bytes.put(random.nextInt(bytes.limit()), (byte) random.nextInt());
      }
      try {
        Structure.of(type).decode(new XdrReader(bytes));
      } catch (XdrException e) {
        assertThat(e.getMessage()).isNotEmpty();
      }
    }
  }

  @Test
  void anyWordThatIsNotZeroMeansPresent() throws Exception {
    // What go-libvirt sends in front of the name: three bytes 01 00 00 and one of padding.
    ByteBuffer bytes = ByteBuffer.allocate(16).putInt(0x01000000).putInt(1).put((byte) 'x');
    bytes.position(12).putInt(0).flip();
    Calls.Open open = Structure.of(Calls.Open.class).decode(new XdrReader(bytes));
    assertThat(open.name()).contains("x");
  }

  @Test
  void charTakesFourBytes() throws Exception {
    var info = new Replies.NodeInfo("x86_64", 1, 2, 3, 4, 5, 6, 7);
    assertThat(encode(Replies.NodeInfo.class, info).remaining()).isEqualTo(188 - 28);
    var label = new Replies.SecurityModel("none", "0");
    ByteBuffer bytes = encode(Replies.SecurityModel.class, label);
    assertThat(bytes.getInt(0)).as("the closing NUL counts").isEqualTo(5);
    assertThat(bytes.remaining()).isEqualTo(4 + 5 * 4 + 4 + 2 * 4);
  }

  @Test
  void countIsHeldAgainstTheBytesThatAreThere() {
    ByteBuffer bytes = ByteBuffer.allocate(64).putInt(0, 16_000);
    assertThatThrownBy(() -> Structure.of(Replies.Names.class).decode(new XdrReader(bytes)))
        .isInstanceOf(XdrException.class)
        .hasMessageContaining("16000 elements in 60 remaining bytes");
  }

  @Test
  void countBeyondTheLimitIsRefusedBothWays() {
    ByteBuffer bytes = ByteBuffer.allocate(1 << 20).putInt(0, 21);
    assertThatThrownBy(() -> Structure.of(Replies.AuthTypes.class).decode(new XdrReader(bytes)))
        .hasMessageContaining("limit of 20");
    List<Integer> many = java.util.Collections.nCopies(21, 0);
    assertThatThrownBy(() -> encode(Replies.AuthTypes.class, new Replies.AuthTypes(many)))
        .isInstanceOf(XdrException.class)
        .hasMessageContaining("limit of 20");
  }

  @Test
  void stringsAreUtf8WithoutNulUpToFourMebibytes() throws Exception {
    assertThat(
            Structure.of(Calls.Name.class)
                .decode(new XdrReader(encode(Calls.Name.class, new Calls.Name("zwölf")))))
        .isEqualTo(new Calls.Name("zwölf"));
    for (byte bad : new byte[] {0, (byte) 0xff}) {
      ByteBuffer bytes = ByteBuffer.allocate(8).putInt(1).put(bad);
      bytes.rewind();
      assertThatThrownBy(() -> Structure.of(Calls.Name.class).decode(new XdrReader(bytes)))
          .isInstanceOf(XdrException.class);
    }
    String long4 = "x".repeat(Limits.STRING_BYTES + 1);
    assertThatThrownBy(() -> encode(Calls.Name.class, new Calls.Name(long4)))
        .isInstanceOf(XdrException.class);
  }

  static ByteBuffer encode(Class<? extends Record> type, Object value) throws XdrException {
    XdrWriter out = new XdrWriter();
    encodeAs(type, value, out);
    return out.written().slice();
  }

  private static <T extends Record> void encodeAs(Class<T> type, Object value, XdrWriter out)
      throws XdrException {
    Structure.of(type).encode(type.cast(value), out);
  }

  private static Object random(Class<?> type, Random random) throws Exception {
    RecordComponent[] components = type.getRecordComponents();
    Object[] values = new Object[components.length];
    Class<?>[] types = new Class<?>[components.length];
    for (int i = 0; i < values.length; i++) {
      types[i] = components[i].getType();
      values[i] = value(components[i], random);
    }
    return type.getDeclaredConstructor(types).newInstance(values);
  }

  private static Object value(RecordComponent component, Random random) throws Exception {
    if (component.getType() == List.class) {
      List<Object> values = new ArrayList<>();
      for (int i = random.nextInt(4); i > 0; i--) {
        values.add(simple(argument(component), random));
      }
      return values;
    }
    if (component.getType() == Optional.class) {
      return random.nextBoolean()
          ? Optional.empty()
          : Optional.of(simple(argument(component), random));
    }
    return simple(component.getType(), random);
  }

  private static Class<?> argument(RecordComponent component) {
    return (Class<?>) ((ParameterizedType) component.getGenericType()).getActualTypeArguments()[0];
  }

  private static Object simple(Class<?> type, Random random) throws Exception {
    if (type == int.class || type == Integer.class) {
      return random.nextInt();
    }
    if (type == long.class) {
      return random.nextLong();
    }
    if (type == String.class) {
      return "abcdefghij".substring(random.nextInt(10));
    }
    if (type == ByteBuffer.class) {
      byte[] bytes = new byte[random.nextInt(9)];
      random.nextBytes(bytes);
      return ByteBuffer.wrap(bytes);
    }
    if (type == UUID.class) {
      return new UUID(random.nextLong(), random.nextLong());
    }
    if (type == TypedValue.class) {
      return switch (random.nextInt(7)) {
        case 0 -> new TypedValue.Int(random.nextInt());
        case 1 -> new TypedValue.UInt(random.nextInt());
        case 2 -> new TypedValue.LLong(random.nextLong());
        case 3 -> new TypedValue.ULLong(random.nextLong());
        case 4 -> new TypedValue.Real(random.nextDouble());
        case 5 -> new TypedValue.Bool(random.nextBoolean());
        default -> new TypedValue.Text("text");
      };
    }
    return random(type, random);
  }
}
