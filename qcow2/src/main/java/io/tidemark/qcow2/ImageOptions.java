// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.UnsupportedImageException;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// What a new image is asked to be, by QEMU's option names, checked one by one and together.
///
/// Spec: qemu `docs/system/images.rst`, "qcow2"; what QEMU 7.2 refuses is refused here.
///
/// @param refcountOrder log2 bits of a refcount
/// @param dataFile name of the external data file, as it is recorded
record ImageOptions(
    int version,
    int clusterBits,
    int refcountOrder,
    boolean lazyRefcounts,
    int compressionType,
    boolean extendedL2,
    Preallocation preallocation,
    Optional<String> dataFile,
    boolean dataFileRaw) {
  private static final Set<String> ON_OFF =
      Set.of("lazy_refcounts", "extended_l2", "data_file_raw");

  /// @param name what messages call the image
  static ImageOptions of(String name, CreateOptions options) throws BlockException {
    var parsed = new Parser(name, options.options()).parse();
    parsed.check(name, options.backing().isPresent());
    return parsed;
  }

  private void check(String name, boolean backed) throws BlockException {
    if (version < 3) {
      needsVersion3(name, "lazy_refcounts=on", lazyRefcounts);
      needsVersion3(name, "refcount_bits other than 16", refcountOrder != 4);
      needsVersion3(name, "extended_l2=on", extendedL2);
      needsVersion3(name, "compression_type other than zlib", compressionType != Codec.ZLIB);
      needsVersion3(name, "data_file", dataFile.isPresent());
    }
    if (extendedL2 && clusterBits < Geometry.MIN_EXTENDED_CLUSTER_BITS) {
      throw refuse(
          name,
          "extended_l2=on needs clusters of at least "
              + (1 << Geometry.MIN_EXTENDED_CLUSTER_BITS)
              + " bytes, not "
              + (1 << clusterBits));
    }
    if (dataFileRaw && dataFile.isEmpty()) {
      throw refuse(name, "data_file_raw=on requires data_file");
    }
    if (dataFileRaw && backed) {
      throw refuse(name, "data_file_raw=on cannot be used together with a backing file");
    }
    if (preallocation != Preallocation.OFF && backed && !extendedL2) {
      throw refuse(
          name,
          "preallocation="
              + preallocation.word()
              + " can be used together with a backing file only if extended_l2=on");
    }
  }

  private static void needsVersion3(String name, String what, boolean wanted)
      throws BlockException {
    if (wanted) {
      throw refuse(name, what + " needs compat=1.1 or later");
    }
  }

  private static UnsupportedImageException refuse(String name, String what) {
    return new UnsupportedImageException(name + ": " + what);
  }

  /// What of an image is to change, by the same names.
  ///
  /// @param size of the disk, bytes
  record Amended(
      Optional<Integer> version,
      Optional<Integer> refcountOrder,
      Optional<Boolean> lazyRefcounts,
      Optional<String> dataFile,
      Optional<Boolean> dataFileRaw,
      Optional<Long> size) {
    private static final Set<String> KNOWN =
        Set.of("compat", "refcount_bits", "lazy_refcounts", "data_file", "data_file_raw", "size");

    /// @param name what messages call the image
    static Amended of(String name, Map<String, String> options) throws BlockException {
      for (String option : options.keySet()) {
        if (option.startsWith("backing_")) {
          throw refuse(name, "option " + option + " cannot be amended; rebase the image instead");
        }
        if (option.startsWith("encrypt.")) {
          throw refuse(name, "option " + option + ": encrypted images are not supported");
        }
        if (!KNOWN.contains(option)) {
          throw refuse(
              name,
              Parser.KNOWN.contains(option)
                  ? "option " + option + " is only supported for image creation"
                  : "option " + option + " is not supported for qcow2");
        }
      }
      var parser = new Parser(name, options);
      return new Amended(
          options.containsKey("compat") ? Optional.of(parser.version()) : Optional.empty(),
          options.containsKey("refcount_bits")
              ? Optional.of(parser.power("refcount_bits", 16, 0, 6))
              : Optional.empty(),
          parser.given("lazy_refcounts"),
          parser.dataFile(),
          parser.given("data_file_raw"),
          options.containsKey("size") ? Optional.of(parser.size()) : Optional.empty());
    }
  }

  private record Parser(String name, Map<String, String> options) {
    private static final Set<String> KNOWN =
        Set.of(
            "compat",
            "cluster_size",
            "refcount_bits",
            "lazy_refcounts",
            "compression_type",
            "extended_l2",
            "preallocation",
            "data_file",
            "data_file_raw",
            "encryption");

    ImageOptions parse() throws BlockException {
      for (String option : options.keySet()) {
        if (option.startsWith("encrypt.")) {
          throw refuse(name, "option " + option + ": encrypted images are not supported");
        }
        if (!KNOWN.contains(option)) {
          throw refuse(name, "option " + option + " is not supported for qcow2");
        }
      }
      for (String option : ON_OFF) {
        onOff(option);
      }
      if (onOff("encryption")) {
        throw refuse(name, "option encryption=on: encrypted images are not supported");
      }
      boolean extended = onOff("extended_l2");
      return new ImageOptions(
          version(),
          power("cluster_size", 65536, Geometry.MIN_CLUSTER_BITS, Geometry.MAX_CLUSTER_BITS),
          power("refcount_bits", 16, 0, 6),
          onOff("lazy_refcounts"),
          compressionType(),
          extended,
          preallocation(onOff("data_file_raw")),
          dataFile(),
          onOff("data_file_raw"));
    }

    private String value(String option, String otherwise) {
      return options.getOrDefault(option, otherwise).toLowerCase(Locale.ROOT);
    }

    private UnsupportedImageException bad(String option, String wanted) {
      return refuse(name, "option " + option + " is " + options.get(option) + ", wanted " + wanted);
    }

    private int version() throws BlockException {
      return switch (value("compat", "1.1")) {
        case "0.10", "v2" -> 2;
        case "1.1", "v3" -> 3;
        default -> throw bad("compat", "0.10, v2, 1.1 or v3");
      };
    }

    private boolean onOff(String option) throws BlockException {
      return switch (value(option, "off")) {
        case "on", "yes", "true", "y" -> true;
        case "off", "no", "false", "n" -> false;
        default -> throw bad(option, "on or off");
      };
    }

    Optional<Boolean> given(String option) throws BlockException {
      return options.containsKey(option) ? Optional.of(onOff(option)) : Optional.empty();
    }

    /// Bytes, rounded up to whole sectors as QEMU does.
    long size() throws BlockException {
      try {
        long size = Long.parseLong(value("size", ""));
        if (size >= 0 && size <= Long.MAX_VALUE - 511) {
          return (size + 511) & ~511L;
        }
      } catch (NumberFormatException _) {
        // Said below.
      }
      throw bad("size", "a number of bytes");
    }

    private int compressionType() throws BlockException {
      return switch (value("compression_type", "zlib")) {
        case "zlib" -> Codec.ZLIB;
        case "zstd" -> Codec.ZSTD;
        default -> throw bad("compression_type", "zlib or zstd");
      };
    }

    /// qemu: 7.2 makes the tables of an image whose data file is raw, because who reads the tables
    /// must find what who reads the data file finds.
    private Preallocation preallocation(boolean dataFileRaw) throws BlockException {
      Preallocation asked =
          Preallocation.of(value("preallocation", "off"))
              .orElseThrow(() -> bad("preallocation", "off, metadata, falloc or full"));
      return dataFileRaw && asked == Preallocation.OFF ? Preallocation.METADATA : asked;
    }

    private Optional<String> dataFile() throws BlockException {
      Optional<String> file = Optional.ofNullable(options.get("data_file"));
      if (file.isPresent() && file.get().isEmpty()) {
        throw bad("data_file", "the name of a file");
      }
      return file;
    }

    /// log2 of a power of two, given as a number with or without a suffix.
    private int power(String option, int otherwise, int least, int most) throws BlockException {
      String value = value(option, "" + otherwise);
      long number;
      try {
        int shift =
            switch (value.isEmpty() ? ' ' : value.charAt(value.length() - 1)) {
              case 'k' -> 10;
              case 'm' -> 20;
              default -> 0;
            };
        String digits = shift == 0 ? value : value.substring(0, value.length() - 1);
        number = Math.multiplyExact(Long.parseLong(digits), 1L << shift);
      } catch (NumberFormatException | ArithmeticException _) {
        number = -1;
      }
      if (number < 1L << least || number > 1L << most || Long.bitCount(number) != 1) {
        throw bad(option, "a power of two from " + (1L << least) + " to " + (1L << most));
      }
      return Long.numberOfTrailingZeros(number);
    }
  }
}
