// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// Sizes as qemu-img reads and writes them.
final class ImageSize {
  private static final Pattern DECIMAL =
      Pattern.compile(
          "\\s*\\+?(?<whole>\\d{1,20})(\\.(?<part>\\d{0,20}))?(?<unit>[bBkKmMgGtTpPeE])?");
  private static final Pattern HEXADECIMAL =
      Pattern.compile("\\s*0[xX](?<digits>[0-9a-fA-F]{1,16})");
  private static final String UNITS = "bkmgtpe";
  private static final String[] PREFIXES = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};

  private ImageSize() {}

  /// Bytes that `text` names: `65536`, `64k`, `1.5G`, `0x10000`.
  ///
  /// @param what names the value in the error
  /// @throws CommandException with code 1 when it is not a size, or is past 2^63 - 1
  static long parse(String what, String text) throws CommandException {
    Matcher hexadecimal = HEXADECIMAL.matcher(text);
    if (hexadecimal.matches()) {
      return inRange(
          what, text, new BigDecimal(new java.math.BigInteger(hexadecimal.group("digits"), 16)));
    }
    Matcher decimal = DECIMAL.matcher(text);
    if (!decimal.matches()) {
      throw malformed(what, text);
    }
    String unit = decimal.group("unit");
    int power = unit == null ? 0 : UNITS.indexOf(unit.toLowerCase(Locale.ROOT));
    String part = decimal.group("part") == null ? "" : decimal.group("part");
    BigDecimal number = new BigDecimal(decimal.group("whole") + "." + part + "0");
    if (power == 0 && number.stripTrailingZeros().scale() > 0) {
      throw malformed(what, text); // a part of a byte
    }
    BigDecimal bytes = number.multiply(BigDecimal.TWO.pow(10 * power));
    return inRange(what, text, bytes.setScale(0, RoundingMode.DOWN));
  }

  private static CommandException malformed(String what, String text) {
    return new CommandException(
        what + " '" + text + "' is not a size: use bytes, or k, M, G, T, P or E after a number");
  }

  private static long inRange(String what, String text, BigDecimal bytes) throws CommandException {
    if (bytes.compareTo(BigDecimal.valueOf(Long.MAX_VALUE)) > 0) {
      throw new CommandException(what + " '" + text + "' is not between 0 and " + Long.MAX_VALUE);
    }
    return bytes.longValueExact();
  }

  /// `bytes` for people, in three significant digits and the unit in which it is below 1000.
  static String human(long bytes) {
    int power = 0;
    // qemu: size_to_str goes to the next unit from 1000 of the smaller one on.
    while (power < PREFIXES.length - 1 && (bytes >> (10 * power)) >= 1000) {
      power++;
    }
    BigDecimal value =
        BigDecimal.valueOf(bytes)
            .divide(BigDecimal.TWO.pow(10 * power))
            .round(new MathContext(3, RoundingMode.HALF_EVEN))
            .stripTrailingZeros();
    String digits =
        value.compareTo(BigDecimal.valueOf(1000)) >= 0 ? "1e+03" : value.toPlainString();
    return digits + " " + PREFIXES[power] + "B";
  }
}
