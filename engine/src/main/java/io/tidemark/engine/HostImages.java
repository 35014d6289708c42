// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.ImageSource;
import io.tidemark.domain.spi.Storage;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.Map;

/// What to open for an image of the domain room.
final class HostImages {
  private HostImages() {}

  static ImageSource of(Storage storage) throws BlockException {
    return switch (storage) {
      case Storage.LocalFile(Path file) -> of(file);
      case Storage.Device(Path device) -> device(device);
      case Storage.Nbd nbd -> of(nbd);
    };
  }

  private static ImageSource of(Storage.Nbd nbd) throws BlockException {
    ImageSource source = ImageSource.parse(nbd.location());
    if (nbd.reconnectSeconds() == 0) {
      return source;
    }
    Map<String, String> options = new HashMap<>(source.options());
    options.put("file.reconnect-delay", String.valueOf(nbd.reconnectSeconds()));
    return new ImageSource(source.text(), options);
  }

  /// A path whose kind the caller has looked at, or does not care for: a header may name a device.
  static ImageSource of(Path path) {
    return Files.exists(path) && !Files.isRegularFile(path) ? device(path) : ImageSource.of(path);
  }

  /// Makes durable what the page cache holds of a file that is only read.
  static void sync(Path path) throws IOException {
    try (var file = FileChannel.open(path, StandardOpenOption.READ)) {
      file.force(false);
    }
  }

  private static ImageSource device(Path path) {
    return new ImageSource(
        path.toString(), Map.of("file.driver", "host_device", "file.filename", path.toString()));
  }
}
