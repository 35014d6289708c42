// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// The options of a new image, as `-o name=value,…` gives them: checked names, sizes in bytes.
///
/// A comma within a value is doubled. A name without a value is `on`.
final class FormatOptions {
  private static final String SIZE = "size";
  private static final String BACKING_FILE = "backing_file";
  private static final String BACKING_FORMAT = "backing_fmt";

  private static final String NOCOW = "nocow";
  private static final String EXTENT_SIZE_HINT = "extent_size_hint";

  /// Options of the file beneath, wishes to file systems that know of such: checked, and left
  /// alone.
  private static final Set<String> OF_THE_FILE = Set.of(NOCOW, EXTENT_SIZE_HINT);

  /// Options by format, in the order in which they are shown. `null` as default: shown only when
  /// given.
  private static final Map<String, List<Known>> KNOWN =
      Map.of(
          "raw",
          List.of(
              new Known(SIZE, "", "Virtual disk size"),
              new Known("preallocation", "", "off, falloc or full"),
              new Known(NOCOW, "", "Accepted, means nothing"),
              new Known(EXTENT_SIZE_HINT, "", "Accepted, means nothing")),
          "qcow2",
          List.of(
              new Known("cluster_size", "65536", "qcow2 cluster size"),
              new Known("extended_l2", "off", "Extended L2 tables"),
              new Known("preallocation", "", "off, metadata, falloc or full"),
              new Known("compression_type", "zlib", "Compression method of compressed clusters"),
              new Known(SIZE, "", "Virtual disk size"),
              new Known("compat", "", "Compatibility level: v2 (0.10) or v3 (1.1)"),
              new Known(BACKING_FILE, "", "File name of a base image"),
              new Known(BACKING_FORMAT, "", "Image format of the base image"),
              new Known("data_file", "", "File name of an external data file"),
              new Known(
                  "data_file_raw", "", "The external data file must stay valid as a raw image"),
              new Known("lazy_refcounts", "off", "Postpone refcount updates"),
              new Known("refcount_bits", "16", "Width of a reference count entry in bits"),
              new Known(NOCOW, "", "Accepted, means nothing"),
              new Known(EXTENT_SIZE_HINT, "", "Accepted, means nothing")));

  /// @param preset what is shown when the option is not given; empty: nothing
  private record Known(String name, String preset, String meaning) {}

  /// Those of qcow2 that can be changed later.
  private static final Set<String> AMENDABLE =
      Set.of(SIZE, "compat", "data_file", "data_file_raw", "lazy_refcounts", "refcount_bits");

  private static final Set<String> SIZES = Set.of(SIZE, "cluster_size", EXTENT_SIZE_HINT);

  private final String format;
  private final Map<String, String> given = new LinkedHashMap<>();

  /// @throws CommandException when the format is not known
  FormatOptions(String file, String format) throws CommandException {
    if (!KNOWN.containsKey(format)) {
      throw new CommandException(file + ": format '" + format + "' is not known: use raw or qcow2");
    }
    this.format = format;
  }

  /// Whether one of the `-o` arguments asks for the list of options.
  static boolean helpAsked(List<String> arguments) {
    return arguments.stream()
        .flatMap(a -> split(a).stream())
        .anyMatch(o -> o.equals("help") || o.equals("?"));
  }

  /// The list of options for people.
  String help() {
    return list(
        "Supported " + format + " options:\n", KNOWN.getOrDefault(format, List.of()).stream());
  }

  /// The list of options that can be changed later.
  String amendHelp() throws CommandException {
    if (!format.equals("qcow2")) {
      throw new CommandException("format '" + format + "' has no options that can be amended");
    }
    return list(
        "Amend options for '" + format + "':\n",
        KNOWN.getOrDefault(format, List.of()).stream().filter(k -> AMENDABLE.contains(k.name)));
  }

  private static String list(String title, Stream<Known> options) {
    return options
        .map(known -> "  %-22s - %s%n".formatted(known.name + "=<…>", known.meaning))
        .collect(Collectors.joining("", title, ""));
  }

  void addAll(String file, List<String> arguments) throws CommandException {
    for (String argument : arguments) {
      for (String option : split(argument)) {
        int equals = option.indexOf('=');
        String name = equals < 0 ? option : option.substring(0, equals);
        String value = equals < 0 ? "on" : option.substring(equals + 1);
        put(file, name, value);
      }
    }
  }

  void put(String file, String name, String value) throws CommandException {
    if (KNOWN.getOrDefault(format, List.of()).stream().noneMatch(k -> k.name.equals(name))) {
      if (name.equals(BACKING_FILE) || name.equals(BACKING_FORMAT)) {
        throw new CommandException(
            file + ": backing file not supported for format '" + format + "'");
      }
      if (format.equals("qcow2") && name.equals("encryption") && value.equals("off")) {
        return;
      }
      if (format.equals("qcow2") && (name.equals("encryption") || name.startsWith("encrypt."))) {
        throw new CommandException(
            file + ": option '" + name + "': encrypted images are not supported");
      }
      throw new CommandException(file + ": format '" + format + "' has no option '" + name + "'");
    }
    if (name.equals(NOCOW) && !value.equals("on") && !value.equals("off")) {
      throw new CommandException(file + ": option nocow is '" + value + "', wanted on or off");
    }
    given.put(
        name,
        SIZES.contains(name) ? Long.toString(ImageSize.parse(file + ": " + name, value)) : value);
  }

  Optional<Long> size() {
    return Optional.ofNullable(given.get(SIZE)).map(Long::valueOf);
  }

  Optional<String> backingFile() {
    return Optional.ofNullable(given.get(BACKING_FILE)).filter(name -> !name.isEmpty());
  }

  Optional<String> backingFormat() {
    return Optional.ofNullable(given.get(BACKING_FORMAT));
  }

  /// Whether space is taken ahead.
  boolean preallocates() {
    return !given.getOrDefault("preallocation", "off").equals("off");
  }

  /// What the format itself is to look at.
  Map<String, String> forFormat() {
    Map<String, String> rest = new LinkedHashMap<>(given);
    rest.keySet().removeAll(Set.of(SIZE, BACKING_FILE, BACKING_FORMAT));
    rest.keySet().removeAll(OF_THE_FILE);
    return rest;
  }

  /// All that was given.
  Map<String, String> all() {
    return Map.copyOf(given);
  }

  /// `cluster_size=65536 … size=1024`: all options with the defaults of those not given.
  String shown() {
    List<String> parts = new ArrayList<>();
    for (Known known : KNOWN.getOrDefault(format, List.of())) {
      String value = given.getOrDefault(known.name, known.preset);
      if (!value.isEmpty()) {
        parts.add(known.name + "=" + value);
      }
    }
    return String.join(" ", parts);
  }

  private static List<String> split(String argument) {
    List<String> options = new ArrayList<>();
    StringBuilder option = new StringBuilder();
    for (int i = 0; i < argument.length(); i++) {
      char c = argument.charAt(i);
      if (c != ',') {
        option.append(c);
      } else if (i + 1 < argument.length() && argument.charAt(i + 1) == ',') {
        option.append(',');
        i++;
      } else {
        options.add(option.toString());
        option.setLength(0);
      }
    }
    options.add(option.toString());
    options.removeIf(String::isEmpty);
    return options;
  }
}
