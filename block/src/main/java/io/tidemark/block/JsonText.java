// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Map;
import java.util.TreeMap;

/// Reads the object of a `json:` name into flat options, as QEMU flattens them: members of a member
/// have its name and a dot before theirs, elements of an array their number.
///
/// The text may come from an image's header: it is untrusted. Its length and nesting are bounded,
/// and nothing is kept but what it says.
///
/// Spec: RFC 8259.
final class JsonText {
  /// Objects and arrays within each other.
  static final int MAX_NESTING = 64;

  private final String source;
  private final String text;
  private final Map<String, String> options = new TreeMap<>();
  private int at;

  private JsonText(String source, String text) {
    this.source = source;
    this.text = text;
  }

  /// @param source what messages call it
  static Map<String, String> options(String source, String text) throws UnsupportedImageException {
    var reader = new JsonText(source, text);
    if (reader.next() != '{') {
      throw reader.malformed("wanted an object");
    }
    reader.object("", 1);
    if (reader.next() != END) {
      throw reader.malformed("wanted nothing after the object");
    }
    return reader.options;
  }

  private static final char END = '\uffff';

  /// The next character that is not space, not consumed.
  private char next() {
    while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
      at++;
    }
    return at < text.length() ? text.charAt(at) : END;
  }

  private void object(String prefix, int depth) throws UnsupportedImageException {
    at++;
    if (next() == '}') {
      at++;
      return;
    }
    while (true) {
      if (next() != '"' && next() != '\'') {
        throw malformed("wanted a name in quotes");
      }
      String key = prefix + string();
      if (next() != ':') {
        throw malformed("wanted a colon");
      }
      at++;
      value(key, depth);
      if (ends('}')) {
        return;
      }
    }
  }

  private void array(String prefix, int depth) throws UnsupportedImageException {
    at++;
    if (next() == ']') {
      at++;
      return;
    }
    for (int i = 0; ; i++) {
      value(prefix + i, depth);
      if (ends(']')) {
        return;
      }
    }
  }

  private boolean ends(char bracket) throws UnsupportedImageException {
    char c = next();
    if (c != bracket && c != ',') {
      throw malformed("wanted a comma or " + bracket);
    }
    at++;
    return c == bracket;
  }

  private void value(String key, int depth) throws UnsupportedImageException {
    char c = next();
    if (c == '{' || c == '[') {
      if (depth == MAX_NESTING) {
        throw malformed("nested deeper than " + MAX_NESTING);
      }
      if (c == '{') {
        object(key + ".", depth + 1);
      } else {
        array(key + ".", depth + 1);
      }
      return;
    }
    String value = c == '"' || c == '\'' ? string() : word(key);
    if (options.putIfAbsent(key, value) != null) {
      throw malformed("'" + key + "' is there twice");
    }
  }

  /// A number, or true, false, null. A `null` is the empty text, which only `backing` may be.
  private String word(String key) throws UnsupportedImageException {
    int start = at;
    while (at < text.length() && " \t\r\n,]}:\"".indexOf(text.charAt(at)) < 0) {
      at++;
    }
    String word = text.substring(start, at);
    if (word.equals("true")) {
      return "on";
    }
    if (word.equals("false")) {
      return "off";
    }
    if (word.equals("null") && (key.equals("backing") || key.endsWith(".backing"))) {
      return "";
    }
    if (!word.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?")) {
      at = start;
      throw malformed("'" + key + "' has no value that is known");
    }
    return word;
  }

  /// qemu: a string may stand between single quotes too.
  private String string() throws UnsupportedImageException {
    var value = new StringBuilder();
    char quote = text.charAt(at++);
    while (at < text.length()) {
      char c = text.charAt(at++);
      if (c == quote) {
        return value.toString();
      }
      if (c < ' ') {
        throw malformed("control character in a string");
      }
      value.append(c == '\\' ? escaped() : c);
    }
    throw malformed("string without an end");
  }

  private char escaped() throws UnsupportedImageException {
    char c = at < text.length() ? text.charAt(at++) : END;
    return switch (c) {
      case '"', '\'', '\\', '/' -> c;
      case 'b' -> '\b';
      case 'f' -> '\f';
      case 'n' -> '\n';
      case 'r' -> '\r';
      case 't' -> '\t';
      case 'u' -> {
        if (at + 4 > text.length() || !text.substring(at, at + 4).matches("[0-9a-fA-F]{4}")) {
          throw malformed("escape without four hexadecimal digits");
        }
        at += 4;
        yield (char) Integer.parseInt(text.substring(at - 4, at), 16);
      }
      default -> throw malformed("unknown escape");
    };
  }

  private UnsupportedImageException malformed(String why) {
    return new UnsupportedImageException(
        source + ": Could not parse the JSON options: " + why + " at character " + at);
  }
}
