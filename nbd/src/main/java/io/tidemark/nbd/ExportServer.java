// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.List;

/// Offers block nodes over NBD, on any number of sockets; exports come and go while it serves.
///
/// Every method may be called from any thread.
public final class ExportServer implements AutoCloseable {
  public ExportServer() {
    this(ServerLimits.defaults());
  }

  public ExportServer(ServerLimits limits) {
    throw new UnsupportedOperationException();
  }

  /// Listens on a unix socket, made with mode 0600. A socket that nobody serves any more is
  /// replaced; one that answers, or a file that is no socket, is an error.
  public void listen(Path socket) throws IOException {
    throw new UnsupportedOperationException();
  }

  /// Listens on a TCP loopback address (others are refused: there is no TLS yet); port 0 takes a
  /// free one. Returns the address taken.
  public InetSocketAddress listen(InetSocketAddress address) throws IOException {
    throw new UnsupportedOperationException();
  }

  /// Offers an export from now on.
  ///
  /// @throws IllegalArgumentException when the name is taken
  public void addExport(Export export) {
    throw new UnsupportedOperationException();
  }

  /// Stops offering an export: its clients are disconnected after the request that runs. Returns
  /// whether, within [ServerLimits#closeTime], all of them ended: then nothing uses the node any
  /// more. A request that waits in a drained drive does not end, so resume first. True also when
  /// there is no such export.
  public boolean removeExport(String name) {
    throw new UnsupportedOperationException();
  }

  /// What is offered now, in order of adding.
  public List<Export> exports() {
    throw new UnsupportedOperationException();
  }

  /// Connections now, those in their handshake included.
  public int connections() {
    throw new UnsupportedOperationException();
  }

  /// Waits until a client that had opened an export has left and none is connected, or the server
  /// is closed.
  public void awaitLastClient() throws InterruptedException {
    throw new UnsupportedOperationException();
  }

  /// Stops accepting, lets requests already received end within [ServerLimits#closeTime], closes
  /// the sockets and removes the socket files. Exported nodes stay open. Closing twice is harmless.
  @Override
  public void close() {
    throw new UnsupportedOperationException();
  }
}
