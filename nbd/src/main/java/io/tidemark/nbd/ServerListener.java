// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// A listening socket of a server, and the file that stands for it.
final class ServerListener {
  private static final Logger LOG = System.getLogger(ServerListener.class.getName());

  /// Pause after an accept that failed (no descriptors left): whoever leaves frees some.
  private static final long PAUSE_MILLIS = 100;

  /// A connection just made.
  record Accepted(SocketChannel channel, String listener) {
    void close() {
      try {
        channel.close();
      } catch (IOException e) {
        LOG.log(Level.DEBUG, "{0}: closing a connection: {1}", listener, e.getMessage());
      }
    }
  }

  /// Replies that the kernel takes from a connection of a unix socket ahead of its peer, as far as
  /// the system's `net.core.wmem_max` allows: so the reply to a large read is sent in one go, and
  /// the next one is read while the peer takes it. For TCP the kernel finds a size itself.
  static final int SEND_BYTES = 2 << 20;

  private final ServerSocketChannel channel;
  private final Optional<Path> path;
  private final @Nullable Object fileKey; // of `path`; null where the file system has none
  private final String name;
  private final CountDownLatch closed = new CountDownLatch(1);

  ServerListener(ServerSocketChannel channel, Optional<Path> path, String name) throws IOException {
    this.channel = channel;
    this.path = path;
    this.name = name;
    this.fileKey = path.isPresent() ? UnixSocket.key(path.get()) : null;
  }

  String name() {
    return name;
  }

  /// Accepts until closed: `admit` waits for a free place and says whether to go on.
  void run(BooleanSupplier admit, Consumer<Accepted> accepted) {
    while (admit.getAsBoolean()) {
      SocketChannel client;
      try {
        client = channel.accept();
      } catch (ClosedChannelException _) {
        return;
      } catch (IOException e) {
        LOG.log(Level.WARNING, "{0}: cannot accept: {1}", name, e.getMessage());
        if (pause()) {
          return;
        }
        continue;
      }
      try {
        if (client.getLocalAddress() instanceof InetSocketAddress) {
          client.setOption(StandardSocketOptions.TCP_NODELAY, true);
          // A peer whose host is gone says nothing any more; else it would hold its place for ever.
          client.setOption(StandardSocketOptions.SO_KEEPALIVE, true);
        } else {
          client.setOption(StandardSocketOptions.SO_SNDBUF, SEND_BYTES);
        }
      } catch (IOException e) {
        LOG.log(Level.DEBUG, "{0}: gone when accepted: {1}", name, e.getMessage());
      }
      accepted.accept(new Accepted(client, name));
    }
  }

  /// Returns whether the listener was closed meanwhile.
  private boolean pause() {
    try {
      return closed.await(PAUSE_MILLIS, TimeUnit.MILLISECONDS);
    } catch (InterruptedException e) {
      throw new IllegalStateException("an accepting thread was interrupted", e);
    }
  }

  /// Stops accepting, and removes the socket's file unless another one has taken its place.
  void close() {
    closed.countDown();
    try {
      if (path.isPresent()
          && Files.exists(path.get())
          && Objects.equals(UnixSocket.key(path.get()), fileKey)) {
        Files.deleteIfExists(path.get());
      }
      channel.close();
    } catch (IOException e) {
      LOG.log(Level.WARNING, "{0}: closing: {1}", name, e.getMessage());
    }
  }
}
