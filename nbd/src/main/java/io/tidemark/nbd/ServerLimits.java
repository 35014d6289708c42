// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.time.Duration;

/// What an [ExportServer] allows its clients.
///
/// @param connections at once; when they are reached no more are accepted, and clients wait in the
///   listen queue until one leaves
/// @param handshakeTime from the connection to the choice of an export; a slower client is dropped
/// @param closeTime how long requests that run may take to end when the server, or one of its
///   exports, is closed
/// @param bufferBytes large request buffers of all connections together; past it connections go on
///   with small ones, slower
/// @param threadsKept connections up to which each keeps its thread while its client is silent:
///   where there are few, how soon the next request is answered counts for more than memory
public record ServerLimits(
    int connections,
    Duration handshakeTime,
    Duration closeTime,
    long bufferBytes,
    int threadsKept) {
  public static final int DEFAULT_CONNECTIONS = 1024;
  public static final int DEFAULT_THREADS_KEPT = 16;

  public ServerLimits {
    if (connections < 1 || bufferBytes < 0 || threadsKept < 0) {
      throw new IllegalArgumentException(
          connections
              + " connections, "
              + bufferBytes
              + " bytes of buffers, "
              + threadsKept
              + " threads kept");
    }
  }

  public static ServerLimits defaults() {
    return new ServerLimits(
        DEFAULT_CONNECTIONS,
        Duration.ofSeconds(30),
        Duration.ofSeconds(10),
        256L << 20,
        DEFAULT_THREADS_KEPT);
  }

  public ServerLimits withConnections(int value) {
    return new ServerLimits(value, handshakeTime, closeTime, bufferBytes, threadsKept);
  }

  public ServerLimits withHandshakeTime(Duration value) {
    return new ServerLimits(connections, value, closeTime, bufferBytes, threadsKept);
  }

  public ServerLimits withCloseTime(Duration value) {
    return new ServerLimits(connections, handshakeTime, value, bufferBytes, threadsKept);
  }

  public ServerLimits withThreadsKept(int value) {
    return new ServerLimits(connections, handshakeTime, closeTime, bufferBytes, value);
  }
}
