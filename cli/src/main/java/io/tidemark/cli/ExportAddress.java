// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.NbdUri;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Where an NBD server is: `-k`, or `-b` and `-p`.
final class ExportAddress {
  private @Nullable Path socket; // null: TCP

  private @Nullable String bind; // null: the default

  private @Nullable Integer port; // null: the default

  void declare(DeclaredCommand command) {
    command.option(Path.class, "PATH", "A unix socket.", v -> socket = v, "-k", "--socket");
    command.option(
        String.class,
        "ADDRESS",
        "A TCP address; any but a loopback address only where TLS is required. Default:"
            + " 127.0.0.1.",
        v -> bind = v,
        "-b",
        "--bind");
    command.option(
        Integer.class,
        "PORT",
        "TCP port; 0 takes a free one. Default: 10809.",
        v -> port = v,
        "-p",
        "--port");
  }

  void check() throws CommandException {
    if (socket != null && (bind != null || port != null)) {
      throw CommandException.usage("a unix socket has neither address nor port: give -k alone");
    }
    if (port != null && (port < 0 || port > 65535)) {
      throw CommandException.usage("--port " + port + ": wanted 0 to 65535");
    }
  }

  String host() {
    return bind == null ? "127.0.0.1" : bind;
  }

  /// The place as a client names it.
  NbdUri uri(String export, Optional<NbdUri.Tls> tls) throws CommandException {
    check();
    NbdUri uri =
        socket != null
            ? NbdUri.unix(socket.toAbsolutePath(), export)
            : NbdUri.tcp(host(), port == null ? NbdUri.DEFAULT_PORT : port, export);
    return tls.map(uri::withTls).orElse(uri);
  }

  /// Listens there, and returns the URI of an export as clients reach it.
  String listen(ExportServer server, String export, ExportTls tls) throws IOException {
    NbdUri uri;
    if (socket != null) {
      Path path = socket.toAbsolutePath();
      server.listen(path);
      uri = NbdUri.unix(path, export);
    } else {
      int wanted = port == null ? NbdUri.DEFAULT_PORT : port;
      InetSocketAddress taken = server.listen(new InetSocketAddress(host(), wanted));
      uri = NbdUri.tcp(host(), taken.getPort(), export);
    }
    return (tls.required() ? uri.withTls(ExportTls.SYSTEM) : uri).toString();
  }
}
