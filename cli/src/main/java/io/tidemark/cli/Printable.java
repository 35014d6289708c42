// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

/// Text of a server on a terminal.
final class Printable {
  private Printable() {}

  /// Control characters escaped, so that a server cannot steer a terminal.
  static String plain(String text) {
    var plain = new StringBuilder();
    text.codePoints()
        .forEach(c -> {
          if (Character.isISOControl(c) || Character.getType(c) == Character.FORMAT) {
            plain.append(String.format("\\u%04x", c));
          } else {
            plain.appendCodePoint(c);
          }
        });
    return plain.toString();
  }

  static String quoted(String text) {
    return '"' + plain(text).replace("\"", "\\\"") + '"';
  }
}
