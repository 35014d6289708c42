// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// JSON laid out as qemu-img lays it out: four blanks, one member a line. Written here, because a
/// library for it takes longer to load than the commands that print it take to run.
final class ImageJson {
  private static final String INDENT = "    ";

  private ImageJson() {}

  /// An object whose members keep their order.
  static final class Members {
    private final Map<String, Object> all = new LinkedHashMap<>();

    Members put(String name, String value) {
      all.put(name, value);
      return this;
    }

    Members put(String name, long value) {
      all.put(name, value);
      return this;
    }

    Members put(String name, boolean value) {
      all.put(name, value);
      return this;
    }

    Members putObject(String name) {
      Members object = new Members();
      all.put(name, object);
      return object;
    }

    Elements putArray(String name) {
      Elements array = new Elements();
      all.put(name, array);
      return array;
    }
  }

  /// An array.
  static final class Elements {
    private final List<Object> all = new ArrayList<>();

    void add(String value) {
      all.add(value);
    }

    void add(Members object) {
      all.add(object);
    }

    Members addObject() {
      Members object = new Members();
      all.add(object);
      return object;
    }
  }

  static String text(Members object) {
    StringBuilder text = new StringBuilder();
    append(text, object, "\n");
    return text.toString();
  }

  static String text(Elements array) {
    StringBuilder text = new StringBuilder();
    append(text, array, "\n");
    return text.toString();
  }

  /// @param line a line break and the blanks that the value's own line begins with
  private static void append(StringBuilder text, Object value, String line) {
    switch (value) {
      case Members object -> {
        text.append('{');
        String inner = line + INDENT;
        Iterator<Map.Entry<String, Object>> members = object.all.entrySet().iterator();
        while (members.hasNext()) {
          Map.Entry<String, Object> member = members.next();
          text.append(inner);
          quote(text, member.getKey());
          text.append(": ");
          append(text, member.getValue(), inner);
          text.append(members.hasNext() ? "," : "");
        }
        text.append(line).append('}');
      }
      case Elements array -> {
        text.append('[');
        String inner = line + INDENT;
        Iterator<Object> elements = array.all.iterator();
        while (elements.hasNext()) {
          text.append(inner);
          append(text, elements.next(), inner);
          text.append(elements.hasNext() ? "," : "");
        }
        text.append(line).append(']');
      }
      case String string -> quote(text, string);
      default -> text.append(value); // a number or a truth value
    }
  }

  private static void quote(StringBuilder text, String value) {
    text.append('"');
    for (int i = 0; i < value.length(); i++) {
      char c = value.charAt(i);
      switch (c) {
        case '"', '\\' -> text.append('\\').append(c);
        case '\b' -> text.append("\\b");
        case '\f' -> text.append("\\f");
        case '\n' -> text.append("\\n");
        case '\r' -> text.append("\\r");
        case '\t' -> text.append("\\t");
        default -> {
          // qemu: everything but printable ASCII is escaped
          if (c < ' ' || c > '~') {
            text.append("\\u").append("%04X".formatted((int) c));
          } else {
            text.append(c);
          }
        }
      }
    }
    text.append('"');
  }
}
