// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Map;
import java.util.Optional;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;

/// The options of one layer of an [ImageSource], by QEMU's names, flat: what belongs to the file
/// beneath begins with `file.`. Whoever opens the layer takes those it knows; the rest is refused.
///
/// For one thread.
public final class SourceOptions {
  private final String source;
  private final TreeMap<String, String> left;

  /// @param source what messages call the whole
  SourceOptions(String source, Map<String, String> options) {
    this.source = source;
    this.left = new TreeMap<>(options);
  }

  /// What messages call the whole that these are a part of.
  public String source() {
    return source;
  }

  /// Takes an option.
  public Optional<String> take(String key) {
    return Optional.ofNullable(left.remove(key));
  }

  /// Takes a switch.
  public boolean takeFlag(String key, boolean otherwise) throws UnsupportedImageException {
    Optional<String> value = take(key);
    if (value.isEmpty()) {
      return otherwise;
    }
    return switch (value.get()) {
      case "on", "yes", "true", "y" -> true;
      case "off", "no", "false", "n" -> false;
      default ->
          throw new UnsupportedImageException(
              source
                  + ": Parameter '"
                  + key
                  + "' expects 'on' or 'off', not '"
                  + value.get()
                  + "'");
    };
  }

  /// Takes a number of bytes: digits, and perhaps one of `bkKMGTPE`.
  public Optional<Long> takeSize(String key) throws UnsupportedImageException {
    Optional<String> value = take(key);
    if (value.isEmpty()) {
      return Optional.empty();
    }
    String text = value.get();
    int last = text.length() - 1;
    int unit = last < 0 ? -1 : "BKMGTPE".indexOf(Character.toUpperCase(text.charAt(last)));
    String digits = unit < 0 ? text : text.substring(0, last);
    if (digits.matches("[0-9]{1,19}")) {
      try {
        long count = Long.parseLong(digits);
        int shift = 10 * Math.max(unit, 0);
        if (count <= Long.MAX_VALUE >> shift) {
          return Optional.of(count << shift);
        }
      } catch (NumberFormatException _) {
        // nineteen digits may be too many: refused below
      }
    }
    throw new UnsupportedImageException(
        source + ": Parameter '" + key + "' expects a size, not '" + text + "'");
  }

  /// Takes every option that begins with `prefix` and a dot, without these.
  public SourceOptions takeUnder(String prefix) {
    var beneath = new TreeMap<String, String>();
    Map<String, String> range = left.subMap(prefix + ".", prefix + "/"); // '/' follows '.'
    range.forEach((key, value) -> beneath.put(key.substring(prefix.length() + 1), value));
    range.clear();
    return new SourceOptions(source, beneath);
  }

  /// Takes options that make no difference here.
  void drop(Iterable<String> keys) {
    keys.forEach(left::remove);
  }

  boolean isEmpty() {
    return left.isEmpty();
  }

  /// The names that nobody took.
  SortedSet<String> rest() {
    return new TreeSet<>(left.keySet());
  }

  /// All that is left, without taking it.
  Map<String, String> all() {
    return Map.copyOf(left);
  }
}
