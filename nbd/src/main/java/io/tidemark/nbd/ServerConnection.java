// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import javax.net.ssl.SSLException;

/// One client, on one platform thread from its first byte to its last.
final class ServerConnection implements Runnable {
  private static final Logger LOG = System.getLogger(ServerConnection.class.getName());

  /// What the server does for its connections.
  interface Owner {
    /// Exports as seen by a connection; opening one registers the connection with it.
    ServerHandshake.Exports exportsFor(ServerConnection connection);

    /// The connection's thread is done, and its socket is closed.
    void left(ServerConnection connection);
  }

  private final Owner owner;
  private final Optional<ServerTls> tls;
  private final SocketChannel channel;
  private final PeerStream stream;
  private final String name;
  private final long deadline;

  /// @param name for the log
  /// @param deadline `System.nanoTime()` by which an export must be open
  ServerConnection(
      Owner owner,
      Optional<ServerTls> tls,
      SocketChannel channel,
      BufferPool pool,
      String name,
      long deadline) {
    this.owner = owner;
    this.tls = tls;
    this.channel = channel;
    this.stream = new PeerStream(channel, pool);
    this.name = name;
    this.deadline = deadline;
  }

  long deadline() {
    return deadline;
  }

  @Override
  public void run() {
    try {
      Optional<ServerHandshake.Opened> opened =
          new ServerHandshake(stream, owner.exportsFor(this), tls).run();
      if (opened.isPresent()) {
        LOG.log(
            Level.DEBUG,
            "{0}: opened export {1}",
            name,
            ServerHandshake.quote(opened.get().export().name()));
        new ServerTransmission(stream, opened.get(), name).run();
      }
    } catch (NbdProtocolException e) {
      LOG.log(Level.INFO, "{0}: dropped: {1}", name, e.getMessage());
    } catch (SSLException e) {
      LOG.log(Level.INFO, "{0}: dropped: TLS: {1}", name, e.getMessage());
    } catch (ClosedChannelException _) {
      LOG.log(Level.DEBUG, "{0}: closed here", name);
    } catch (IOException e) {
      LOG.log(Level.DEBUG, "{0}: lost: {1}", name, e.getMessage());
    } catch (RuntimeException | Error e) {
      LOG.log(Level.ERROR, name + ": dropped by a fault of our own", e);
    } finally {
      closeChannel();
      stream.close();
      owner.left(this);
    }
  }

  /// From any thread: requests already received are still served, then the connection ends.
  void stop() {
    try {
      stream.stopReading();
    } catch (IOException _) {
      closeChannel(); // not connected any more
    }
  }

  /// From any thread: ends the connection now; a request that runs in the node still ends by
  /// itself.
  void drop(String why) {
    LOG.log(Level.INFO, "{0}: dropped: {1}", name, why);
    closeChannel();
  }

  void closeChannel() {
    // Shut down first: a pipeline has a descriptor of its own, and would not notice a close.
    try {
      channel.shutdownInput();
      channel.shutdownOutput();
    } catch (IOException _) {
      // Safe because it is closed next.
    }
    try {
      channel.close();
    } catch (IOException e) {
      LOG.log(Level.DEBUG, "{0}: closing: {1}", name, e.getMessage());
    }
  }
}
