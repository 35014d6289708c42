// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.UUID;

/// The XDR form of a record: its components in their order. The record is the specification, so a
/// structure is written down once.
///
/// | component | on the wire |
/// |---|---|
/// | `int` | int, unsigned int, char, short, enum: one word |
/// | `boolean` | int 0 or 1; any non-zero is true |
/// | `long` | hyper, unsigned hyper |
/// | `double`, `String`, `UUID` | double, string, opaque\[16] |
/// | `Optional<X>` | word, then X if it is not zero |
/// | `List<X>` with [Max] | count, then the elements |
/// | `String` with [FixedChars] | `char[n]`: four bytes each, filled with zeroes |
/// | `String` with [MaxChars] | `char<n>`: count, then four bytes each, the last a NUL |
/// | a record | its components |
/// | [TypedValue] | union of libvirt's typed parameters |
final class Structure<T> {
  /// The most elements of an array.
  @Retention(RetentionPolicy.RUNTIME)
  @Target(ElementType.RECORD_COMPONENT)
  @interface Max {
    int value();
  }

  /// `char[n]`: XDR gives each char four bytes.
  @Retention(RetentionPolicy.RUNTIME)
  @Target(ElementType.RECORD_COMPONENT)
  @interface FixedChars {
    int value();
  }

  /// `char<n>` of a text that counts its closing NUL.
  @Retention(RetentionPolicy.RUNTIME)
  @Target(ElementType.RECORD_COMPONENT)
  @interface MaxChars {
    int value();
  }

  private interface Codec {
    void encode(Object value, XdrWriter out) throws XdrException;

    Object decode(XdrReader in) throws XdrException;

    /// Fewest bytes of a value.
    int least();
  }

  private static final ClassValue<RecordCodec> CODECS =
      new ClassValue<>() {
        @Override
        protected RecordCodec computeValue(Class<?> type) {
          return new RecordCodec(type);
        }
      };

  private final Class<T> type;

  private Structure(Class<T> type) {
    this.type = type;
  }

  static <T extends Record> Structure<T> of(Class<T> type) {
    CODECS.get(type);
    return new Structure<>(type);
  }

  void encode(T value, XdrWriter out) throws XdrException {
    CODECS.get(type).encode(value, out);
  }

  /// Reads one value. Bytes that follow are left: libvirt ignores them too.
  T decode(XdrReader in) throws XdrException {
    return type.cast(CODECS.get(type).decode(in));
  }

  private static final class RecordCodec implements Codec {
    private final Constructor<?> constructor;
    private final List<Method> accessors = new ArrayList<>();
    private final List<Codec> codecs = new ArrayList<>();
    private final int least;

    RecordCodec(Class<?> type) {
      RecordComponent[] components = type.getRecordComponents();
      Class<?>[] types = new Class<?>[components.length];
      int sum = 0;
      for (int i = 0; i < components.length; i++) {
        types[i] = components[i].getType();
        accessors.add(components[i].getAccessor());
        Codec codec = codecOf(components[i]);
        codecs.add(codec);
        sum += codec.least();
      }
      least = sum;
      try {
        constructor = type.getDeclaredConstructor(types);
      } catch (NoSuchMethodException e) {
        throw new AssertionError("record without canonical constructor: " + type, e);
      }
    }

    @Override
    public void encode(Object value, XdrWriter out) throws XdrException {
      for (int i = 0; i < codecs.size(); i++) {
        codecs.get(i).encode(component(value, accessors.get(i)), out);
      }
    }

    private static Object component(Object value, Method accessor) {
      try {
        Object component = accessor.invoke(value);
        if (component == null) {
          throw new NullPointerException(accessor.toString());
        }
        return component;
      } catch (IllegalAccessException | InvocationTargetException e) {
        throw new LinkageError(accessor.toString(), e);
      }
    }

    @Override
    public Object decode(XdrReader in) throws XdrException {
      Object[] values = new Object[codecs.size()];
      for (int i = 0; i < values.length; i++) {
        values[i] = codecs.get(i).decode(in);
      }
      try {
        return constructor.newInstance(values);
      } catch (InstantiationException | IllegalAccessException | InvocationTargetException e) {
        throw new LinkageError(constructor.toString(), e);
      }
    }

    @Override
    public int least() {
      return least;
    }
  }

  private static Codec codecOf(RecordComponent component) {
    FixedChars chars = component.getAnnotation(FixedChars.class);
    if (chars != null) {
      return fixedChars(chars.value());
    }
    MaxChars maxChars = component.getAnnotation(MaxChars.class);
    if (maxChars != null) {
      return variableChars(maxChars.value());
    }
    Type type = component.getGenericType();
    if (component.getType() == List.class) {
      Max max = component.getAnnotation(Max.class);
      if (max == null) {
        throw new AssertionError("array without a limit: " + component);
      }
      return array(codecOf(argumentOf(type)), max.value());
    }
    if (component.getType() == ByteBuffer.class) {
      Max max = component.getAnnotation(Max.class);
      if (max == null) {
        throw new AssertionError("opaque without a limit: " + component);
      }
      return opaque(max.value());
    }
    if (component.getType() == Optional.class) {
      return optional(codecOf(argumentOf(type)));
    }
    return codecOf(component.getType());
  }

  private static Class<?> argumentOf(Type type) {
    return (Class<?>) ((ParameterizedType) type).getActualTypeArguments()[0];
  }

  private static Codec codecOf(Class<?> type) {
    if (type == int.class || type == Integer.class) {
      return scalar(4, XdrReader::readInt, (value, out) -> out.writeInt((Integer) value));
    }
    if (type == boolean.class) {
      return scalar(4, XdrReader::readPresent, (value, out) -> out.writePresent((Boolean) value));
    }
    if (type == long.class || type == Long.class) {
      return scalar(8, XdrReader::readHyper, (value, out) -> out.writeHyper((Long) value));
    }
    if (type == double.class) {
      return scalar(8, XdrReader::readDouble, (value, out) -> out.writeDouble((Double) value));
    }
    if (type == String.class) {
      return scalar(4, XdrReader::readString, (value, out) -> out.writeString((String) value));
    }
    if (type == UUID.class) {
      return scalar(16, XdrReader::readUuid, (value, out) -> out.writeUuid((UUID) value));
    }
    if (type == TypedValue.class) {
      return scalar(8, Structure::readTyped, (value, out) -> writeTyped((TypedValue) value, out));
    }
    if (type.isRecord()) {
      return CODECS.get(type);
    }
    throw new AssertionError("no XDR form for " + type);
  }

  private interface Decoder {
    Object decode(XdrReader in) throws XdrException;
  }

  private interface Encoder {
    void encode(Object value, XdrWriter out) throws XdrException;
  }

  private static Codec scalar(int least, Decoder decoder, Encoder encoder) {
    return new Codec() {
      @Override
      public void encode(Object value, XdrWriter out) throws XdrException {
        encoder.encode(value, out);
      }

      @Override
      public Object decode(XdrReader in) throws XdrException {
        return decoder.decode(in);
      }

      @Override
      public int least() {
        return least;
      }
    };
  }

  private static Codec array(Codec element, int limit) {
    return scalar(
        4,
        in -> {
          int count = in.readCount(limit, element.least());
          List<Object> values = new ArrayList<>(count);
          for (int i = 0; i < count; i++) {
            values.add(element.decode(in));
          }
          return List.copyOf(values);
        },
        (value, out) -> {
          List<?> values = (List<?>) value;
          out.writeCount(values.size(), limit);
          for (Object each : values) {
            element.encode(each, out);
          }
        });
  }

  private static Codec opaque(int limit) {
    return scalar(
        4,
        in -> ByteBuffer.wrap(in.readOpaque(limit)).asReadOnlyBuffer(),
        (value, out) -> {
          ByteBuffer bytes = ((ByteBuffer) value).duplicate();
          byte[] copy = new byte[bytes.remaining()];
          bytes.get(copy);
          out.writeOpaque(copy, limit);
        });
  }

  private static Codec optional(Codec element) {
    return scalar(
        4,
        in -> in.readPresent() ? Optional.of(element.decode(in)) : Optional.empty(),
        (value, out) -> {
          Optional<?> some = (Optional<?>) value;
          out.writePresent(some.isPresent());
          if (some.isPresent()) {
            element.encode(some.get(), out);
          }
        });
  }

  private static Codec fixedChars(int length) {
    return scalar(
        4 * length,
        in -> readChars(in, length),
        (value, out) -> writeChars((String) value, length, out));
  }

  private static Codec variableChars(int limit) {
    return scalar(
        4,
        in -> readChars(in, in.readCount(limit, 4)),
        (value, out) -> {
          int length = ((String) value).length() + 1;
          out.writeCount(length, limit);
          writeChars((String) value, length, out);
        });
  }

  private static String readChars(XdrReader in, int length) throws XdrException {
    byte[] text = new byte[length];
    int end = length;
    for (int i = 0; i < length; i++) {
      text[i] = (byte) in.readInt();
      if (text[i] == 0 && end == length) {
        end = i;
      }
    }
    return new String(text, 0, end, ISO_8859_1);
  }

  private static void writeChars(String value, int length, XdrWriter out) throws XdrException {
    byte[] text = value.getBytes(ISO_8859_1);
    if (text.length >= length) {
      throw new XdrException("text of " + text.length + " chars in char[" + length + "]");
    }
    for (int i = 0; i < length; i++) {
      out.writeInt(i < text.length ? text[i] : 0);
    }
  }

  private static TypedValue readTyped(XdrReader in) throws XdrException {
    int tag = in.readInt();
    return switch (tag) {
      case 1 -> new TypedValue.Int(in.readInt());
      case 2 -> new TypedValue.UInt(in.readInt());
      case 3 -> new TypedValue.LLong(in.readHyper());
      case 4 -> new TypedValue.ULLong(in.readHyper());
      case 5 -> new TypedValue.Real(in.readDouble());
      case 6 -> new TypedValue.Bool(in.readInt() != 0);
      case 7 -> new TypedValue.Text(in.readString());
      default -> throw new XdrException("typed parameter of unknown type " + tag);
    };
  }

  private static void writeTyped(TypedValue typed, XdrWriter out) throws XdrException {
    switch (typed) {
      case TypedValue.Int(int value) -> tagged(1, out).writeInt(value);
      case TypedValue.UInt(int value) -> tagged(2, out).writeInt(value);
      case TypedValue.LLong(long value) -> tagged(3, out).writeHyper(value);
      case TypedValue.ULLong(long value) -> tagged(4, out).writeHyper(value);
      case TypedValue.Real(double value) -> tagged(5, out).writeDouble(value);
      case TypedValue.Bool(boolean value) -> tagged(6, out).writeInt(value ? 1 : 0);
      case TypedValue.Text(String value) -> tagged(7, out).writeString(value);
    }
  }

  private static XdrWriter tagged(int tag, XdrWriter out) throws XdrException {
    out.writeInt(tag);
    return out;
  }
}
