// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SocketChannel;
import java.util.Optional;
import javax.net.ssl.SSLException;
import org.jspecify.annotations.Nullable;

/// One client, on one platform thread at a time: on none while the client is silent and the
/// connection rests, and then on another.
final class ServerConnection implements RestingConnections.Resting {
  private static final Logger LOG = System.getLogger(ServerConnection.class.getName());

  /// What the server does for its connections.
  interface Owner extends RestingConnections.Threads {
    /// Exports as seen by a connection; opening one registers the connection with it.
    ServerHandshake.Exports exportsFor(ServerConnection connection);

    /// Whether a connection may [#rest]: there are so many that their threads weigh.
    boolean crowded();

    /// Has [#wake] or [#goOn] called when the client says something, and returns true; false when
    /// that is not possible now.
    boolean rest(ServerConnection connection);

    /// The connection is done, and its socket is closed.
    void left(ServerConnection connection);
  }

  private final Owner owner;
  private final Optional<ServerTls> tls;
  private final SocketChannel channel;
  private final PeerStream stream;
  private final String name;
  private final long deadline;
  private final Object closing = new Object();
  private boolean resting; // under `closing`: the channel must stay open
  private @Nullable ServerTransmission transmission; // null until an export is open

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
  public SocketChannel channel() {
    return channel;
  }

  /// Goes on a thread, at first and after each rest; without one it is dropped. False then.
  boolean start() {
    try {
      owner.start(name, this::run);
      return true;
    } catch (OutOfMemoryError e) { // no more threads
      drop("no thread for it: " + e.getMessage());
      end();
      return false;
    }
  }

  @Override
  public void wake() {
    rests(false);
    start();
  }

  @Override
  public void goOn() {
    rests(false);
    Thread.currentThread().setName(name);
    run();
  }

  private void run() {
    boolean rests = false;
    try {
      if (transmission == null) {
        transmission = shakeHands();
      }
      while (!rests && transmission != null && transmission.run()) {
        rests(true);
        rests = owner.rest(this); // from here on another thread may serve it
        if (!rests) {
          rests(false);
        }
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
      if (!rests) {
        end();
      }
    }
  }

  /// Null when the client opened no export.
  private @Nullable ServerTransmission shakeHands() throws IOException {
    Optional<ServerHandshake.Opened> opened =
        new ServerHandshake(stream, owner.exportsFor(this), tls).run();
    if (opened.isEmpty()) {
      return null;
    }
    LOG.log(
        Level.DEBUG,
        "{0}: opened export {1}",
        name,
        ServerHandshake.quote(opened.get().export().name()));
    return new ServerTransmission(stream, opened.get(), name, owner::crowded);
  }

  private void end() {
    rests(false);
    closeChannel();
    stream.close();
    owner.left(this);
  }

  private void rests(boolean now) {
    synchronized (closing) {
      resting = now;
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
    synchronized (closing) {
      if (resting) {
        return; // its input ended: it is woken, and closes
      }
      try {
        channel.close();
      } catch (IOException e) {
        LOG.log(Level.DEBUG, "{0}: closing: {1}", name, e.getMessage());
      }
    }
  }
}
