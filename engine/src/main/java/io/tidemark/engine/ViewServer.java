// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.DirtyBitmap;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.domain.spi.ViewServerSpec.Address;
import io.tidemark.job.ViewJob;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.ServerLimits;
import io.tidemark.nbd.ServerTls;
import io.tidemark.nbd.TlsCredentials;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// The NBD server of a domain's pull backup: frozen views, read-only.
///
/// A client that does not read holds up nothing but itself: what it asked for is in its
/// connection's buffer, and neither guest nor view waits for it.
///
/// Not thread-safe: guarded by the domain's lock.
final class ViewServer {
  /// How long requests of clients may take to end when the backup does.
  static final Duration END_LIMIT = Duration.ofSeconds(2);

  private final ExportServer server;

  private ViewServer(ExportServer server) {
    this.server = server;
  }

  static ViewServer start(EngineConfig config, ViewServerSpec spec) throws DriverException {
    Optional<ServerTls> tls = spec.tls() ? Optional.of(tls(config)) : Optional.empty();
    var server = new ExportServer(ServerLimits.defaults(), tls);
    boolean listening = false;
    try {
      switch (spec.address()) {
        case Address.Unix(Path socket) -> {
          clearEmptyFile(socket);
          server.listen(socket);
        }
        case Address.Tcp(String host, int port) -> {
          InetSocketAddress _ = server.listen(new InetSocketAddress(host, port));
        }
      }
      listening = true;
    } catch (IOException e) {
      throw DriverErrors.of("the backup's server cannot listen", e);
    } finally {
      if (!listening) {
        server.close();
      }
    }
    return new ViewServer(server);
  }

  /// QEMU takes any file's place; here only one that holds nothing gives way.
  private static void clearEmptyFile(Path socket) throws IOException {
    if (Files.isRegularFile(socket, LinkOption.NOFOLLOW_LINKS) && Files.size(socket) == 0) {
      Files.delete(socket);
    }
  }

  private static ServerTls tls(EngineConfig config) throws DriverException {
    Path folder = config.backupTls().folder();
    try {
      return new ServerTls(TlsCredentials.server(folder, config.backupTls().verifyPeer()), true);
    } catch (IOException e) {
      throw DriverErrors.of("the backup's credentials in " + folder + " cannot be used", e);
    }
  }

  void export(ViewJob job, ViewExportSpec spec) throws DriverException {
    if (server.exports().stream().anyMatch(export -> export.name().equals(spec.name()))) {
      throw DriverErrors.generic("NBD server already has export named '" + spec.name() + "'");
    }
    List<DirtyBitmap> bitmaps = spec.bitmap().flatMap(job::changes).stream().toList();
    try {
      server.addExport(new Export(spec.name(), job.node(), "", true, bitmaps));
    } catch (IllegalArgumentException e) { // a name that is too long
      throw new DriverException(DriverException.Kind.UNSUPPORTED, DriverErrors.textOf(e), e);
    }
  }

  /// Nobody connects any more when it returns, and a view that is given up answers nothing: no use
  /// in waiting for clients that do not read.
  void stop() {
    server.closeAside(END_LIMIT);
  }

  /// As [#stop], and waits for what is under way: before the images are closed.
  void end() {
    server.close(END_LIMIT);
  }
}
