// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Optional;

/// Where the bytes of an image lie.
public sealed interface Storage {
  /// What messages and records call it: an absolute path, or a URI.
  String location();

  /// Its path on this host; empty for what is reached over the network.
  Optional<Path> path();

  /// A regular file.
  record LocalFile(Path file) implements Storage {
    @Override
    public String location() {
      return file.toString();
    }

    @Override
    public Optional<Path> path() {
      return Optional.of(file);
    }
  }

  /// A block device of this host.
  record Device(Path file) implements Storage {
    @Override
    public String location() {
      return file.toString();
    }

    @Override
    public Optional<Path> path() {
      return Optional.of(file);
    }
  }

  /// An export of an NBD server.
  ///
  /// @param socket of a server on this host; absent: by host and port
  /// @param export may be empty
  /// @param reconnectSeconds how long requests wait for a server that went away; 0: not at all
  record Nbd(Optional<Path> socket, String host, int port, String export, int reconnectSeconds)
      implements Storage {
    /// The protocol's registered port.
    public static final int DEFAULT_PORT = 10809;

    /// Whose requests fail when the server goes away.
    public Nbd(Optional<Path> socket, String host, int port, String export) {
      this(socket, host, port, export, 0);
    }

    /// Spec: NBD URI specification.
    @Override
    public String location() {
      if (socket.isPresent()) {
        return "nbd+unix:///%s?socket=%s"
            .formatted(escaped(export), escaped(socket.get().toString()));
      }
      String server = host.contains(":") ? "[" + host + "]" : host;
      return "nbd://%s:%d/%s".formatted(server, port, escaped(export));
    }

    @Override
    public Optional<Path> path() {
      return Optional.empty();
    }

    private static String escaped(String text) {
      return URLEncoder.encode(text, StandardCharsets.UTF_8)
          .replace("+", "%20")
          .replace("%2F", "/");
    }
  }
}
