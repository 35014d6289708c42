// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.ThrottleSpec;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The limits of a disk's requests, by libvirt's names of the values.
///
/// Spec: libvirt `virDomainSetBlockIoTune`, `<iotune>`; rules and words as measured on 9.0.0.
final class IoTune {
  /// Largest value. Spec: QEMU `THROTTLE_VALUE_MAX`.
  static final long MAX_VALUE = 1_000_000_000_000_000L;

  private static final String GROUP = "group_name";
  private static final String SIZE = "size_iops_sec";
  private static final List<String> BYTES =
      List.of("total_bytes_sec", "read_bytes_sec", "write_bytes_sec");
  private static final List<String> IOPS =
      List.of("total_iops_sec", "read_iops_sec", "write_iops_sec");

  /// All, in the order of libvirt's list and of `<iotune>`.
  private static final List<String> NAMES = names();

  private static List<String> names() {
    List<String> names = new ArrayList<>(BYTES);
    names.addAll(IOPS);
    BYTES.forEach(name -> names.add(name + "_max"));
    IOPS.forEach(name -> names.add(name + "_max"));
    names.add(SIZE);
    names.add(GROUP);
    BYTES.forEach(name -> names.add(name + "_max_length"));
    IOPS.forEach(name -> names.add(name + "_max_length"));
    return List.copyOf(names);
  }

  private final Map<String, Long> values;
  private final String group;

  private IoTune(Map<String, Long> values, String group) {
    this.values = values;
    this.group = group;
  }

  static IoTune of(DiskElement disk) {
    Map<String, Long> values = new LinkedHashMap<>();
    Optional<XmlElement> element = disk.element().child("iotune");
    for (XmlElement child : element.map(XmlElement::children).orElse(List.of())) {
      String text = child.text().strip();
      if (NAMES.contains(child.name()) && text.matches("[0-9]{1,15}")) {
        values.put(child.name(), Long.valueOf(text));
      }
    }
    return new IoTune(values, element.map(found -> found.childText(GROUP)).orElse(""));
  }

  String group() {
    return group;
  }

  private long value(String name) {
    return values.getOrDefault(name, 0L);
  }

  private boolean isEmpty() {
    return values.values().stream().allMatch(value -> value == 0);
  }

  /// As the client's typed parameters.
  List<TypedParam> params() {
    List<TypedParam> params = new ArrayList<>();
    for (String name : NAMES) {
      params.add(
          name.equals(GROUP)
              ? new TypedParam.Str(name, group)
              : new TypedParam.ULLong(name, value(name)));
    }
    return params;
  }

  /// Puts them into a disk's document.
  void writeTo(DiskElement disk) {
    disk.element().removeChildren("iotune");
    XmlElement element = new XmlElement("iotune");
    for (String name : NAMES) {
      if (name.equals(GROUP)) {
        if (!group.isEmpty()) {
          element.add(name, group);
        }
      } else if (value(name) != 0) {
        element.add(name, value(name));
      }
    }
    if (!element.children().isEmpty()) {
      disk.element().add(element);
    }
    disk.order();
  }

  /// For a driver; empty: no limits.
  Optional<ThrottleSpec> spec() {
    if (isEmpty() && group.isEmpty()) {
      return Optional.empty();
    }
    Map<ThrottleSpec.Kind, ThrottleSpec.Limit> limits = new EnumMap<>(ThrottleSpec.Kind.class);
    for (ThrottleSpec.Kind kind : ThrottleSpec.Kind.values()) {
      String name = average(kind);
      if (value(name) != 0) {
        limits.put(
            kind,
            new ThrottleSpec.Limit(
                value(name), value(name + "_max"), Math.max(1, value(name + "_max_length"))));
      }
    }
    return Optional.of(new ThrottleSpec(group, limits, value(SIZE)));
  }

  private static String average(ThrottleSpec.Kind kind) {
    return switch (kind) {
      case TOTAL_BYTES -> "total_bytes_sec";
      case READ_BYTES -> "read_bytes_sec";
      case WRITE_BYTES -> "write_bytes_sec";
      case TOTAL_OPERATIONS -> "total_iops_sec";
      case READ_OPERATIONS -> "read_iops_sec";
      case WRITE_OPERATIONS -> "write_iops_sec";
    };
  }

  /// What a client wants changed, checked by itself.
  static Map<String, TypedParam> request(List<TypedParam> params) throws LibvirtException {
    Map<String, TypedParam> wanted = new LinkedHashMap<>();
    for (TypedParam param : params) {
      String name = param.name();
      if (!NAMES.contains(name)) {
        throw ErrorCode.ARGUMENT_UNSUPPORTED.in(
            ErrorDomain.NONE, "parameter '%s' not supported".formatted(name));
      }
      boolean fits =
          name.equals(GROUP) ? param instanceof TypedParam.Str : param instanceof TypedParam.ULLong;
      if (!fits) {
        throw ErrorCode.INVALID_ARG.in(
            ErrorDomain.NONE,
            "invalid type for parameter '%s', expected '%s'"
                .formatted(name, name.equals(GROUP) ? "string" : "ullong"));
      }
      if (param instanceof TypedParam.ULLong(_, long value) && (value < 0 || value > MAX_VALUE)) {
        throw ErrorCode.ARGUMENT_UNSUPPORTED.because(
            "block I/O throttle limit value must be no more than " + MAX_VALUE);
      }
      wanted.put(name, param);
    }
    for (String suffix : List.of("", "_max")) {
      requireTotalOrParts(wanted, BYTES, suffix);
      requireTotalOrParts(wanted, IOPS, suffix);
    }
    return wanted;
  }

  private static long given(Map<String, TypedParam> wanted, String name) {
    return wanted.get(name) instanceof TypedParam.ULLong(_, long value) ? value : 0;
  }

  private static void requireTotalOrParts(
      Map<String, TypedParam> wanted, List<String> family, String suffix) throws LibvirtException {
    boolean total = given(wanted, family.get(0) + suffix) != 0;
    boolean parts =
        given(wanted, family.get(1) + suffix) != 0 || given(wanted, family.get(2) + suffix) != 0;
    if (total && parts) {
      throw ErrorCode.INVALID_ARG.because(
          "total and read/write of %s%s cannot be set at the same time"
              .formatted(family.get(0).substring("total_".length()), suffix));
    }
  }

  /// These with the wanted changes. Total, read and write of one kind go together: when one is
  /// given, the others are what the request says, or none.
  IoTune with(Map<String, TypedParam> wanted) throws LibvirtException {
    Map<String, Long> next = new LinkedHashMap<>();
    for (String suffix : List.of("", "_max")) {
      for (List<String> family : List.of(BYTES, IOPS)) {
        boolean changed = family.stream().anyMatch(name -> wanted.containsKey(name + suffix));
        for (String name : family) {
          next.put(name + suffix, changed ? given(wanted, name + suffix) : value(name + suffix));
        }
      }
    }
    next.put(SIZE, wanted.containsKey(SIZE) ? given(wanted, SIZE) : value(SIZE));
    for (List<String> family : List.of(BYTES, IOPS)) {
      for (String name : family) {
        String length = name + "_max_length";
        boolean bursts = next.getOrDefault(name + "_max", 0L) != 0;
        next.put(
            length,
            wanted.containsKey(length) ? given(wanted, length) : bursts ? value(length) : 0);
      }
    }
    String nextGroup = wanted.get(GROUP) instanceof TypedParam.Str(_, String name) ? name : group;
    IoTune tune = new IoTune(next, nextGroup);
    tune.check();
    return tune;
  }

  private void check() throws LibvirtException {
    List<String> averages = new ArrayList<>(BYTES);
    averages.addAll(IOPS);
    for (String name : averages) {
      long max = value(name + "_max");
      if (max != 0 && value(name) == 0) {
        throw ErrorCode.CONFIG_UNSUPPORTED.because(
            "cannot reset '%s' when '%s_max' is set".formatted(name, name));
      }
      if (max != 0 && max < value(name)) {
        throw ErrorCode.CONFIG_UNSUPPORTED.because(
            "value '%s_max' cannot be smaller than '%s'".formatted(name, name));
      }
      if (max == 0 && value(name + "_max_length") != 0) {
        throw ErrorCode.INTERNAL_ERROR.because(
            "'%s_max_length' is set without '%s_max'".formatted(name, name));
      }
    }
  }
}
