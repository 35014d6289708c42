// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.SourceOptions;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.spi.ProtocolDriver;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;

/// QEMU's driver `nbd`: an export as the bytes of an image. Named by a URI, by QEMU's old
/// `nbd:HOST:PORT[:exportname=NAME]` and `nbd:unix:PATH[:exportname=NAME]`, or by the options
/// `server.*`, `export`, `reconnect-delay`, `open-timeout`; `host`, `port` and `path` are old words
/// for the server.
public final class NbdProtocol implements ProtocolDriver {
  private static final String OLD_UNIX = "nbd:unix:";
  private static final String OLD_TCP = "nbd:";
  private static final String EXPORT_NAME = ":exportname=";

  /// Between two attempts to reach a server that is waited for.
  private static final long PAUSE_NANOS = 100_000_000;

  @Override
  public Set<String> names() {
    return Set.of("nbd");
  }

  @Override
  public Set<String> schemes() {
    return Set.of("nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix", "nbd+vsock");
  }

  @Override
  public BlockNode open(SourceOptions options, OpenOptions how) throws BlockException {
    NbdUri uri = tls(options, server(options));
    Optional<String> timeout = options.take("open-timeout");
    ClientOptions client = ClientOptions.defaults();
    Optional<String> delay = options.take("reconnect-delay");
    if (delay.isPresent()) {
      client =
          client.withReconnectDelay(
              Duration.ofSeconds(number(options, "reconnect-delay", delay.get())));
    }
    Duration patience =
        timeout.isEmpty()
            ? Duration.ZERO
            : Duration.ofSeconds(number(options, "open-timeout", timeout.get()));
    NbdClient node = connect(uri, client, patience);
    if (node.readOnly() && !how.readOnly()) {
      node.close();
      throw new ReadOnlyNodeException(uri + ": the server's export is read-only");
    }
    return node;
  }

  /// Tries at least once, and again while the time lasts that the server may take to appear.
  private static NbdClient connect(NbdUri uri, ClientOptions client, Duration patience)
      throws BlockException {
    long deadline = System.nanoTime() + patience.toNanos();
    while (true) {
      try {
        return NbdClient.connect(uri, client);
      } catch (TransportException e) {
        if (deadline - System.nanoTime() <= PAUSE_NANOS || Thread.currentThread().isInterrupted()) {
          throw e;
        }
      }
      LockSupport.parkNanos(PAUSE_NANOS);
    }
  }

  /// Adds what the options say of TLS. `tls-creds` names an object of the command line, which puts
  /// the folder and what is verified in its place: `tls-certificates`, `tls-verify-peer`.
  private static NbdUri tls(SourceOptions options, NbdUri uri) throws UnsupportedImageException {
    Optional<String> creds = options.take("tls-creds");
    if (creds.isPresent()) {
      throw new UnsupportedImageException(
          options.source() + ": No TLS credentials with id '" + creds.get() + "'");
    }
    Optional<String> folder = options.take("tls-certificates");
    Optional<String> host = options.take("tls-hostname");
    boolean verifyPeer = options.takeFlag("tls-verify-peer", true);
    if (folder.isEmpty()) {
      if (host.isPresent() && uri.tls().isEmpty()) {
        throw new UnsupportedImageException(
            options.source() + ": 'tls-hostname' given, and no TLS to use it: wanted 'tls-creds'");
      }
      return uri;
    }
    return uri.withTls(
        new NbdUri.Tls(Optional.of(path(options.source(), folder.get())), verifyPeer, host));
  }

  private static NbdUri server(SourceOptions options) throws UnsupportedImageException {
    Optional<String> name = options.take("filename");
    if (name.isPresent()) {
      return parse(name.get());
    }
    String export = options.take("export").orElse("");
    SourceOptions server = options.takeUnder("server");
    String type = server.take("type").orElse("");
    Optional<String> path = server.take("path").or(() -> options.take("path"));
    Optional<String> host = server.take("host").or(() -> options.take("host"));
    Optional<String> port = server.take("port").or(() -> options.take("port"));
    if (path.isPresent() && host.isEmpty() && !type.equals("inet")) {
      return NbdUri.unix(path(options.source(), path.get()), export);
    }
    if (host.isPresent() && path.isEmpty() && !type.equals("unix")) {
      int number = port.isPresent() ? number(options, "port", port.get()) : NbdUri.DEFAULT_PORT;
      return NbdUri.tcp(host.get(), number, export);
    }
    throw new UnsupportedImageException(
        options.source()
            + ": NBD server address missing; wanted server.type=unix and server.path, or"
            + " server.type=inet, server.host and server.port");
  }

  private static NbdUri parse(String name) throws UnsupportedImageException {
    if (NbdUri.matches(name) || !name.startsWith(OLD_TCP)) {
      return NbdUri.parse(name);
    }
    int at = name.indexOf(EXPORT_NAME);
    String export = at < 0 ? "" : name.substring(at + EXPORT_NAME.length());
    String address = at < 0 ? name : name.substring(0, at);
    if (address.startsWith(OLD_UNIX)) {
      return NbdUri.unix(path(name, address.substring(OLD_UNIX.length())), export);
    }
    String place = address.substring(OLD_TCP.length());
    int colon = place.lastIndexOf(':');
    String digits = place.substring(colon + 1);
    if (colon <= 0 || !digits.matches("[0-9]{1,5}") || Integer.parseInt(digits) > 65535) {
      throw new UnsupportedImageException(
          name + ": wanted nbd:HOST:PORT, nbd:unix:PATH, or a URI nbd://HOST:PORT/EXPORT");
    }
    String host = place.substring(0, colon);
    if (host.startsWith("[") && host.endsWith("]")) {
      host = host.substring(1, host.length() - 1);
    }
    return NbdUri.tcp(host, Integer.parseInt(digits), export);
  }

  private static Path path(String source, String text) throws UnsupportedImageException {
    try {
      if (!text.isEmpty()) {
        return Path.of(text);
      }
    } catch (InvalidPathException _) {
      // refused below
    }
    throw new UnsupportedImageException(source + ": '" + text + "' is not a socket's path");
  }

  private static int number(SourceOptions options, String key, String text)
      throws UnsupportedImageException {
    if (text.matches("[0-9]{1,5}") && Integer.parseInt(text) <= 65535) {
      return Integer.parseInt(text);
    }
    throw new UnsupportedImageException(
        options.source()
            + ": Parameter '"
            + key
            + "' expects a number up to 65535, not '"
            + text
            + "'");
  }
}
