// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.LinuxException;
import io.tidemark.linux.LinuxFile;
import io.tidemark.linux.Ring;
import io.tidemark.linux.SocketDescriptor;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Requests of one thread that the kernel carries out while the thread goes on, and a socket that
/// it waits for at the same time.
///
/// Used by the thread that made it. While a request is in flight that thread must not block in
/// anything but [#await]: not in a node (a drain may wait for the request, and be waited for by the
/// thread), and not on a peer (which could then hold up a drain).
public final class RequestQueue implements AutoCloseable {
  /// Requests in flight.
  public static final int MAX_DEPTH = 256;

  private static final long READABLE_TAG = -1;
  private static final long WRITABLE_TAG = -2;

  private final Ring ring;
  private final @Nullable QueuedRequest[] inFlight; // by tag
  private final int[] free; // tags
  private int freeTags;
  private final ArrayDeque<QueuedRequest> ended = new ArrayDeque<>();
  private boolean watchesReadable;
  private boolean watchesWritable;
  private boolean readable;

  private RequestQueue(Ring ring, int depth) {
    this.ring = ring;
    this.inFlight = new @Nullable QueuedRequest[depth];
    this.free = new int[depth];
    for (int i = 0; i < depth; i++) {
      free[i] = i;
    }
    this.freeTags = depth;
  }

  /// Makes a queue for the calling thread.
  ///
  /// @param depth requests in flight, at most [#MAX_DEPTH]
  /// @throws LinuxException where the kernel refuses: requests are then made one by one
  public static RequestQueue open(int depth) throws LinuxException {
    if (depth < 1 || depth > MAX_DEPTH) {
      throw new IllegalArgumentException("depth " + depth + ", wanted 1 to " + MAX_DEPTH);
    }
    return new RequestQueue(Ring.open(depth + 2), depth); // two for the socket
  }

  /// Requests begun and not ended.
  public int inFlight() {
    return free.length - freeTags;
  }

  /// Puts a request whose bytes, offset and length are aligned. False when there is no place.
  boolean put(LinuxFile file, QueuedRequest request) {
    if (freeTags == 0) {
      return false;
    }
    int tag = free[--freeTags];
    inFlight[tag] = request;
    if (request.write()) {
      ring.write(file, request.bytes(), request.offset(), tag);
    } else {
      ring.read(file, request.bytes(), request.offset(), tag);
    }
    return true;
  }

  /// From now on [#await] returns also when the socket can be read, or is at its end.
  public void watchReadable(SocketDescriptor socket) {
    if (!watchesReadable && !readable) {
      ring.poll(socket, Ring.READABLE, READABLE_TAG);
      watchesReadable = true;
    }
  }

  /// From now on [#await] returns also when the socket can be written, or is at its end.
  public void watchWritable(SocketDescriptor socket) {
    if (!watchesWritable) {
      ring.poll(socket, Ring.WRITABLE, WRITABLE_TAG);
      watchesWritable = true;
    }
  }

  /// Whether the socket could be read when it was watched; then not again before it was watched
  /// again.
  public boolean takeReadable() {
    boolean was = readable;
    readable = false;
    return was;
  }

  /// Hands what was put to the kernel, and returns when a request has ended or the socket is as it
  /// was watched for; sometimes sooner.
  public void await() throws IOException {
    ring.enter(true);
    while (ring.take()) {
      long tag = ring.tag();
      if (tag == READABLE_TAG) {
        watchesReadable = false;
        readable = true; // also when it failed: reading will tell
      } else if (tag == WRITABLE_TAG) {
        watchesWritable = false;
      } else {
        end((int) tag, ring.result());
      }
    }
  }

  private void end(int tag, int result) {
    QueuedRequest request = inFlight[tag];
    if (request == null) {
      throw new IllegalStateException("io_uring: a completion with tag " + tag);
    }
    inFlight[tag] = null;
    free[freeTags++] = tag;
    ended.add(request);
    request.end(result);
  }

  /// A request that the kernel is not needed for.
  void endedAtOnce(QueuedRequest request) {
    ended.add(request);
  }

  /// The next request that ended.
  public Optional<QueuedRequest> ended() {
    return Optional.ofNullable(ended.poll());
  }

  /// Waits for what is in flight, whose buffers the kernel still uses, and gives the ring back.
  @Override
  public void close() throws IOException {
    try {
      while (inFlight() > 0) {
        await();
      }
    } finally {
      ring.close();
    }
  }
}
