// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ImageFormat;
import io.tidemark.block.spi.ProtocolDriver;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.ServiceLoader;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/// The formats and protocols that this program knows. Protocols other than local files are looked
/// for when one is first named.
final class Drivers {
  private static final class Formats {
    static final List<ImageFormat> ALL = load(ImageFormat.class);
    static final ImageFormat RAW =
        ALL.stream().filter(format -> format.name().equals("raw")).findFirst().orElseThrow();
  }

  private static final class Protocols {
    static final List<ProtocolDriver> ALL = load(ProtocolDriver.class);
  }

  private Drivers() {}

  private static <T> List<T> load(Class<T> kind) {
    return ServiceLoader.load(kind, Drivers.class.getClassLoader()).stream()
        .map(ServiceLoader.Provider::get)
        .toList();
  }

  static boolean isFormat(String name) {
    return Formats.ALL.stream().anyMatch(format -> format.name().equals(name));
  }

  static ImageFormat format(String source, String name) throws UnsupportedImageException {
    for (ImageFormat format : Formats.ALL) {
      if (format.name().equals(name)) {
        return format;
      }
    }
    throw unknown(source, name);
  }

  static UnsupportedImageException unknown(String source, String name) {
    return new UnsupportedImageException(
        source
            + ": Unknown driver '"
            + name
            + "'; known are "
            + Stream.of(
                    Formats.ALL.stream().map(ImageFormat::name),
                    FileProtocol.NAMES.stream(),
                    Protocols.ALL.stream().flatMap(protocol -> protocol.names().stream()))
                .flatMap(names -> names)
                .sorted()
                .collect(Collectors.joining(", ")));
  }

  static Optional<ProtocolDriver> protocolNamed(String name) {
    // Loaded only for a name that is neither of the common ones.
    return isFormat(name) || FileProtocol.NAMES.contains(name)
        ? Optional.empty()
        : Protocols.ALL.stream().filter(protocol -> protocol.names().contains(name)).findFirst();
  }

  static Optional<ProtocolDriver> protocolOfScheme(String scheme) {
    String lower = scheme.toLowerCase(Locale.ROOT);
    return Protocols.ALL.stream()
        .filter(protocol -> protocol.schemes().contains(lower))
        .findFirst();
  }

  /// The format that the first bytes show, raw when none matches.
  static ImageFormat probe(ByteBuffer head) {
    for (ImageFormat format : Formats.ALL) {
      if (format.probe(head.duplicate())) {
        return format;
      }
    }
    return Formats.RAW;
  }

  static ImageFormat probe(BlockNode file) throws BlockException {
    var head = ByteBuffer.allocate((int) Math.min(ImageOpener.PROBE_BYTES, file.virtualSize()));
    file.read(0, head);
    return probe(head.flip());
  }
}
