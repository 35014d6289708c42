// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongSupplier;

/// A connection's socket, looked at again and again for a moment before its thread sleeps.
///
/// A client that waits for each reply sends its next request within microseconds; a thread that
/// went to sleep meanwhile is woken for as much again, or more in a virtual machine, whose idle CPU
/// must be started first. So the thread polls for up to [#POLL_NANOS], but only
///
/// - when the last wait was shorter than that, or before a rest (below) that is not the first one:
///   who pauses finds a sleeping server, and costs nothing;
/// - when the client asks for one thing at a time: requests that come while others run are better
///   taken many at once, which sleeping brings about;
/// - while another CPU has no thread that serves: polling must not keep work waiting.
///
/// QEMU's event loop does the same (`poll-max-ns`).
///
/// A read that would sleep may say instead that the connection [#rests], which needs no thread. Who
/// was silent for long asks a few things when he comes back, with pauses between, and is silent
/// again; so the next [#SHORT_RESTS] pauses after a long one, and the first ones of a connection,
/// are such rests, and a client that goes on keeps its thread until it is silent for long again.
/// Used by the connection's thread; others may shut down or close the socket. The socket is left in
/// non-blocking mode.
final class PollingSocket implements ByteChannel {
  /// Longest time of polling for one read, as QEMU's default.
  static final long POLL_NANOS = 32_000;

  /// Reads that find nothing, one request each, until a client that had several requests under way
  /// counts as one that asks for one thing at a time.
  static final int SINGLE_AGAIN = 64;

  /// A pause of this length is a long one.
  static final long LONG_NANOS = 1_000_000_000;

  /// Pauses shorter than that which a connection rests in, each for the price of waking two
  /// threads, until it keeps its own.
  static final int SHORT_RESTS = 8;

  /// Threads that serve or poll and do not sleep, beside the CPUs there are for them.
  static final class Awake {
    /// Of the process: all its servers share its CPUs.
    static final Awake PROCESS = new Awake(Runtime.getRuntime().availableProcessors());

    private final int cpus;
    private final AtomicInteger threads = new AtomicInteger();

    Awake(int cpus) {
      this.cpus = cpus;
    }

    int count() {
      return threads.get();
    }

    private boolean spare() {
      return threads.get() < cpus;
    }
  }

  private final Awake awake;
  private final SocketChannel socket;
  private final LongSupplier nanoTime;
  private boolean shortWait = true;
  private boolean hasPaused;
  private int requests; // since a read found nothing
  private int single; // reads to go until polling makes sense
  private boolean mayRest; // in the next read
  private boolean rests;
  private int restsLeft = SHORT_RESTS;
  private long pauseStart; // of the rest

  PollingSocket(SocketChannel socket, Awake awake, LongSupplier nanoTime) throws IOException {
    this.socket = socket;
    this.awake = awake;
    this.nanoTime = nanoTime;
    socket.configureBlocking(false);
    awake.threads.incrementAndGet();
  }

  /// Another request was read.
  void countRequest() {
    requests++;
  }

  /// The next read may end in a rest.
  void mayRest() {
    mayRest = true;
  }

  /// Whether the last read ended so: nothing came, and nobody needs to wait on a thread until the
  /// socket can be read. The connection counts as asleep until [#resume].
  boolean rests() {
    return rests;
  }

  /// Before the next read of a connection that rested.
  void resume() {
    awake.threads.incrementAndGet();
    rests = false;
    restsLeft--;
    paused();
  }

  private void paused() {
    long nanos = nanoTime.getAsLong() - pauseStart;
    shortWait = nanos < POLL_NANOS;
    hasPaused = true;
    if (nanos >= LONG_NANOS) {
      restsLeft = SHORT_RESTS;
    }
  }

  /// Reads what is there, else waits until something is; -1 at the end of the stream, and when the
  /// connection [#rests].
  @Override
  public int read(ByteBuffer into) throws IOException {
    boolean resting = mayRest && restsLeft > 0;
    mayRest = false;
    int count = socket.read(into);
    if (count != 0 || !into.hasRemaining()) {
      return count;
    }
    single = requests > 1 ? SINGLE_AGAIN : Math.max(0, single - 1);
    requests = 0;
    long start = nanoTime.getAsLong();
    if ((resting ? hasPaused : shortWait) && single == 0 && awake.spare()) {
      do {
        Thread.onSpinWait();
        count = socket.read(into);
        if (count != 0) {
          shortWait = true;
          return count;
        }
      } while (nanoTime.getAsLong() - start < POLL_NANOS);
    }
    pauseStart = start;
    if (resting) {
      rests = true;
      awake.threads.decrementAndGet();
      return -1;
    }
    count = asleep(true, into);
    paused();
    return count;
  }

  /// Sends some of `from`, at least a byte.
  @Override
  public int write(ByteBuffer from) throws IOException {
    int count = socket.write(from);
    return count > 0 || !from.hasRemaining() ? count : asleep(false, from);
  }

  /// Sends what the socket takes now, of one buffer after the other; returns bytes.
  long offer(ByteBuffer[] from) throws IOException {
    return socket.write(from);
  }

  private int asleep(boolean reading, ByteBuffer buffer) throws IOException {
    awake.threads.decrementAndGet();
    try {
      socket.configureBlocking(true);
      try {
        return reading ? socket.read(buffer) : socket.write(buffer);
      } finally {
        socket.configureBlocking(false);
      }
    } finally {
      awake.threads.incrementAndGet();
    }
  }

  @Override
  public boolean isOpen() {
    return socket.isOpen();
  }

  /// The thread serves no longer; the socket stays open.
  @Override
  public void close() {
    if (!rests) {
      awake.threads.decrementAndGet();
    }
  }
}
