// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.TransportException;
import io.tidemark.block.Waiting;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// One connection of an [NbdClient], made anew when it was lost.
///
/// A lost connection is made by the next request, and requests that had no reply are sent again.
/// While the server is away requests wait up to [ClientOptions#reconnectDelay] since the loss, then
/// fail; later ones try once and fail. The export must come back as it was.
final class ClientLink {
  /// Connections that one request may see lost: it could be what the server dies of.
  static final int MAX_ATTEMPTS = 10;

  private static final long FIRST_PAUSE_MILLIS = 20;
  private static final long LONGEST_PAUSE_MILLIS = 500;

  private final NbdUri uri;
  private final ClientOptions options;
  private final ExportInfo info;

  private final Object lock = new Object();
  private ClientConnection connection; // under `lock`
  private boolean connecting; // under `lock`: a caller is at it
  private long lostSince; // under `lock`: nanoTime, while the connection is lost
  private boolean lossSeen; // under `lock`: lostSince counts
  private boolean closed; // under `lock`
  private long failedReconnects; // under `lock`
  private String lastFailure = ""; // under `lock`: of the last of them

  /// Opens the export that the URI names.
  static ClientLink open(NbdUri uri, ClientOptions options) throws BlockException {
    return new ClientLink(uri, options, ClientConnection.open(uri, options));
  }

  private ClientLink(NbdUri uri, ClientOptions options, ClientConnection connection) {
    this.uri = uri;
    this.options = options;
    this.connection = connection;
    this.info = connection.terms().info();
  }

  /// What the server said of the export at first.
  ExportInfo info() {
    return info;
  }

  interface Making {
    /// A fresh request, for each time it is sent.
    ClientRequest make(ClientHandshake.Terms terms);
  }

  interface Condition {
    boolean holds(ClientConnection connected);
  }

  /// Sends a request until it is answered.
  ClientRequest perform(Making making) throws BlockException {
    return Objects.requireNonNull(performIf(making, _ -> true));
  }

  /// As [#perform]; null, and nothing is sent, when the connection is not such that `condition`
  /// holds.
  @Nullable ClientRequest performIf(Making making, Condition condition) throws BlockException {
    for (int attempt = 1; ; attempt++) {
      ClientConnection connected = connection();
      if (!condition.holds(connected)) {
        return null;
      }
      ClientRequest request = making.make(connected.terms());
      try {
        connected.call(request);
        return request;
      } catch (ConnectionLostException e) {
        if (!mayRetry(e) || attempt == MAX_ATTEMPTS) {
          throw new TransportException(e.text(), e);
        }
      }
    }
  }

  /// Notes a loss; false when requests are not to be sent again.
  private boolean mayRetry(ConnectionLostException loss) throws BlockException {
    synchronized (lock) {
      if (closed) {
        throw new TransportException(uri + ": closed", loss);
      }
      noteLoss();
      return !options.reconnectDelay().isZero()
          && !loss.byProtocol()
          && !Thread.currentThread().isInterrupted();
    }
  }

  private void noteLoss() {
    if (!lossSeen) {
      lossSeen = true;
      lostSince = System.nanoTime();
    }
  }

  /// The live connection; makes it anew, or waits for the caller who does.
  private ClientConnection connection() throws BlockException {
    synchronized (lock) {
      long failedBefore = failedReconnects;
      Waiting.until(lock, () -> !connecting || closed);
      if (closed) {
        throw new TransportException(uri + ": closed");
      }
      if (connection.alive()) {
        return connection;
      }
      if (failedReconnects != failedBefore) { // who waits for an attempt shares its end
        throw new TransportException(lastFailure);
      }
      noteLoss();
      connecting = true;
    }
    ClientConnection fresh = null;
    String failure = uri + ": not reconnected";
    try {
      fresh = reconnect();
      return fresh;
    } catch (BlockException e) {
      failure = String.valueOf(e.getMessage());
      throw e;
    } finally {
      synchronized (lock) {
        connecting = false;
        if (fresh != null) {
          connection = fresh;
          lossSeen = false;
          if (closed) {
            fresh.close();
          }
        } else {
          failedReconnects++;
          lastFailure = failure;
        }
        lock.notifyAll();
      }
    }
  }

  /// Tries until the delay since the loss is over, at least once.
  private ClientConnection reconnect() throws BlockException {
    long pauseMillis = FIRST_PAUSE_MILLIS;
    while (true) {
      try {
        ClientConnection fresh = ClientConnection.open(uri, options);
        checkUnchanged(fresh);
        return fresh;
      } catch (BlockException e) {
        synchronized (lock) {
          long leftMillis =
              (lostSince + options.reconnectDelay().toNanos() - System.nanoTime()) / 1_000_000;
          if (closed || leftMillis <= 0 || Thread.currentThread().isInterrupted()) {
            throw new TransportException(uri + ": the server is away: " + e.getMessage(), e);
          }
          pause(Math.min(pauseMillis, leftMillis));
        }
        pauseMillis = Math.min(2 * pauseMillis, LONGEST_PAUSE_MILLIS);
      }
    }
  }

  /// Waits on `lock`, which is held; ends early on close.
  private void pause(long millis) {
    long deadline = System.nanoTime() + millis * 1_000_000;
    try {
      long left = millis;
      while (!closed && left > 0) {
        lock.wait(left);
        left = (deadline - System.nanoTime()) / 1_000_000;
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  /// An export that has grown is the same: its disk was resized while nobody looked. What it gained
  /// is not seen through this client.
  private void checkUnchanged(ClientConnection fresh) throws BlockException {
    ExportInfo now = fresh.terms().info();
    int lostFlags = info.transmissionFlags() & ~now.transmissionFlags();
    boolean lessWritable = now.readOnly() && !info.readOnly();
    if (now.size() < info.size()
        || now.minBlock() > info.minBlock()
        || now.maxPayload() < info.maxPayload()
        || lessWritable
        || (lostFlags & (Wire.Flag.SEND_FLUSH | Wire.Flag.SEND_WRITE_ZEROES)) != 0) {
      fresh.close();
      throw new TransportException(
          uri + ": the export came back as another: " + now + ", was " + info);
    }
  }

  /// Disconnects. Requests under way fail.
  void close() {
    ClientConnection last;
    synchronized (lock) {
      closed = true;
      last = connection;
      lock.notifyAll();
    }
    last.close();
  }
}
