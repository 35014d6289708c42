// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.util.HexFormat;

/// Names that people gave, as names of files: letters, digits and `-_+:@,=` stand for themselves, a
/// dot does except at the beginning, any other byte of their UTF-8 is `%` and two hex digits. So
/// that no name is a path, hidden, or another's file.
final class FileName {
  /// What Linux file systems take.
  static final int MAX_BYTES = 255;

  private static final String PLAIN = "-_+:@,=";

  private FileName() {}

  /// @throws IOException the name is empty, or too long for a file with this suffix
  static String of(String name, String suffix) throws IOException {
    StringBuilder file = new StringBuilder();
    for (byte each : name.getBytes(UTF_8)) {
      char letter = (char) (each & 0xff);
      boolean plain =
          letter < 0x80
              && (Character.isLetterOrDigit(letter)
                  || PLAIN.indexOf(letter) >= 0
                  || (letter == '.' && !file.isEmpty()));
      if (plain) {
        file.append(letter);
      } else {
        file.append('%').append(HexFormat.of().toHexDigits(each));
      }
    }
    file.append(suffix);
    if (name.isEmpty() || file.length() > MAX_BYTES) {
      throw new IOException(
          "name of "
              + name.length()
              + " characters needs a file name of "
              + file.length()
              + " bytes, at most "
              + MAX_BYTES
              + " are possible");
    }
    return file.toString();
  }

  /// The name that a file stands for.
  ///
  /// @throws IOException no name gives this file
  static String parse(String file, String suffix) throws IOException {
    String escaped = file.substring(0, file.length() - suffix.length());
    ByteBuffer bytes = ByteBuffer.allocate(escaped.length());
    for (int i = 0; i < escaped.length(); i++) {
      if (escaped.charAt(i) != '%') {
        bytes.put((byte) escaped.charAt(i));
      } else if (i + 2 < escaped.length()
          && HexFormat.isHexDigit(escaped.charAt(i + 1))
          && HexFormat.isHexDigit(escaped.charAt(i + 2))) {
        bytes.put((byte) HexFormat.fromHexDigits(escaped, i + 1, i + 3));
        i += 2;
      } else {
        throw new IOException(file + ": not a name that was escaped here");
      }
    }
    try {
      String name = UTF_8.newDecoder().decode(bytes.flip()).toString();
      if (of(name, suffix).equals(file)) {
        return name;
      }
    } catch (CharacterCodingException e) {
      // Said below.
    }
    throw new IOException(file + ": not a name that was escaped here");
  }
}
