// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.util.ArrayDeque;
import org.jspecify.annotations.Nullable;

/// Connections whose clients are silent, and which have no thread for as long: one thread watches
/// the sockets of them all. It runs while there are any.
///
/// A connection that rests is woken once, when its socket can be read: something came, or the input
/// ended, here or at the peer. Its channel must not be closed meanwhile, for its key would be gone
/// without a word; who wants it to end shuts its input down. A channel that was closed before it
/// came here is woken at once.
///
/// Only the watching thread touches the selector's keys: registering waits for whoever selects. It
/// watches a socket no longer before it looks at those that come, so one that is woken may come
/// back at once.
final class RestingConnections {
  private static final Logger LOG = System.getLogger(RestingConnections.class.getName());

  /// One that can rest.
  interface Resting {
    /// In non-blocking mode.
    SocketChannel channel();

    /// Goes on, on a thread of its own. Called by the watching thread; must not throw.
    void wake();
  }

  // Under this object's lock.
  private final ArrayDeque<Resting> coming = new ArrayDeque<>();
  private @Nullable Selector selector; // null: none rests

  /// Watches a connection's socket from now on; whoever calls must not touch the connection any
  /// more. False when there is no descriptor or thread to watch it with: it does not rest then.
  synchronized boolean add(Resting connection) {
    Selector watching = selector;
    if (watching == null) {
      try {
        watching = start();
      } catch (IOException | OutOfMemoryError e) {
        LOG.log(Level.DEBUG, "connections keep their threads: {0}", e.getMessage());
        return false;
      }
    }
    coming.add(connection);
    watching.wakeup();
    return true;
  }

  private Selector start() throws IOException {
    Selector opened = Selector.open();
    selector = opened;
    boolean started = false;
    try {
      Thread.ofPlatform().name("nbd-resting").daemon().start(() -> watch(opened));
      started = true;
    } finally {
      if (!started) {
        selector = null;
        opened.close();
      }
    }
    return opened;
  }

  private void watch(Selector watching) {
    try (watching) {
      try {
        while (register(watching)) {
          watching.select(RestingConnections::wake);
          watching.selectNow(); // deregisters those woken
        }
      } catch (IOException | RuntimeException | Error e) {
        LOG.log(Level.ERROR, "connections that rest cannot be watched, and go on", e);
        wakeAll(watching);
      }
    } catch (IOException e) {
      LOG.log(Level.WARNING, "closing a selector: {0}", e.getMessage());
    }
  }

  private static void wake(SelectionKey key) {
    key.cancel();
    ((Resting) key.attachment()).wake();
  }

  /// Takes those that came. False when there is nothing to watch: the next one starts another
  /// thread.
  private boolean register(Selector watching) {
    for (Resting next = next(); next != null; next = next()) {
      boolean watched = false;
      try {
        next.channel().register(watching, SelectionKey.OP_READ, next);
        watched = true;
      } catch (ClosedChannelException _) {
        // Woken, it sees that.
      } finally {
        if (!watched) {
          next.wake();
        }
      }
    }
    synchronized (this) {
      if (coming.isEmpty() && watching.keys().isEmpty()) {
        selector = null;
        return false;
      }
      return true;
    }
  }

  private synchronized @Nullable Resting next() {
    return coming.poll();
  }

  private void wakeAll(Selector watching) {
    ArrayDeque<Resting> left;
    synchronized (this) {
      selector = null;
      left = new ArrayDeque<>(coming);
      coming.clear();
    }
    watching.keys().stream().filter(SelectionKey::isValid).forEach(RestingConnections::wake);
    left.forEach(Resting::wake);
  }
}
