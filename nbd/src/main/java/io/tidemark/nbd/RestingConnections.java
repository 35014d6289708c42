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
/// ended, here or at the peer. The thread that noticed serves it, after it gave the watch to
/// another: so the client waits for one thread to wake up, not for two. Its channel must not be
/// closed meanwhile, for its key would be gone without a word; who wants it to end shuts its input
/// down. A channel that was closed before it came here is woken at once.
///
/// Only the thread that has the watch touches the selector's keys: registering waits for whoever
/// selects. It watches a socket no longer before it looks at those that come, so one that is woken
/// may come back at once.
final class RestingConnections {
  private static final Logger LOG = System.getLogger(RestingConnections.class.getName());

  private static final String WATCH = "nbd-resting";

  /// Runs a task on a platform thread.
  interface Threads {
    /// @throws OutOfMemoryError when there are no more threads
    void start(String name, Runnable task);
  }

  /// One that can rest.
  interface Resting {
    /// In non-blocking mode.
    SocketChannel channel();

    /// Goes on, on this thread, until it rests again or is done; must not throw.
    void goOn();

    /// As [#goOn], on a thread of its own; returns at once.
    void wake();
  }

  private final Threads threads;

  // Under this object's lock.
  private final ArrayDeque<Resting> coming = new ArrayDeque<>();
  private @Nullable Selector selector; // null: none rests

  RestingConnections(Threads threads) {
    this.threads = threads;
  }

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
      threads.start(WATCH, () -> watch(opened));
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
    Resting woken = awaitOne(watching);
    if (woken != null) {
      woken.goOn();
    }
  }

  /// Has the watch until somebody wakes up whom this thread is to serve: then another one has it.
  /// Null when nobody is left to watch.
  private @Nullable Resting awaitOne(Selector watching) {
    var woken = new ArrayDeque<Resting>();
    try {
      while (register(watching)) {
        watching.select(key -> {
          key.cancel();
          woken.add((Resting) key.attachment());
        });
        watching.selectNow(); // deregisters those woken
        while (woken.size() > 1) {
          woken.remove().wake();
        }
        if (!woken.isEmpty() && passOn(watching)) {
          return woken.remove();
        }
        if (!woken.isEmpty()) {
          woken.remove().wake();
        }
      }
    } catch (IOException | RuntimeException | Error e) {
      LOG.log(Level.ERROR, "connections that rest cannot be watched, and go on", e);
      woken.forEach(Resting::wake);
      wakeAll(watching);
    }
    try {
      watching.close();
    } catch (IOException e) {
      LOG.log(Level.WARNING, "closing a selector: {0}", e.getMessage());
    }
    return null;
  }

  /// Another thread has the watch; false when there is none, and this one still has it.
  private boolean passOn(Selector watching) {
    try {
      threads.start(WATCH, () -> watch(watching));
      return true;
    } catch (OutOfMemoryError e) {
      LOG.log(Level.DEBUG, "no thread to pass the watch on to: {0}", e.getMessage());
      return false;
    }
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
    for (SelectionKey key : watching.keys()) {
      if (key.isValid()) {
        key.cancel();
        left.add((Resting) key.attachment());
      }
    }
    left.forEach(Resting::wake);
  }
}
