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
public record ServerLimits(
    int connections, Duration handshakeTime, Duration closeTime, long bufferBytes) {
  public static final int DEFAULT_CONNECTIONS = 1024;

  public ServerLimits {
    if (connections < 1 || bufferBytes < 0) {
      throw new IllegalArgumentException(
          connections + " connections, " + bufferBytes + " bytes of buffers");
    }
  }

  public static ServerLimits defaults() {
    return new ServerLimits(
        DEFAULT_CONNECTIONS, Duration.ofSeconds(30), Duration.ofSeconds(10), 256L << 20);
  }

  public ServerLimits withConnections(int value) {
    return new ServerLimits(value, handshakeTime, closeTime, bufferBytes);
  }

  public ServerLimits withHandshakeTime(Duration value) {
    return new ServerLimits(connections, value, closeTime, bufferBytes);
  }

  public ServerLimits withCloseTime(Duration value) {
    return new ServerLimits(connections, handshakeTime, value, bufferBytes);
  }
}
