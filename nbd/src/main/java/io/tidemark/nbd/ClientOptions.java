// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.time.Duration;

/// How an [NbdClient] treats its server.
///
/// @param connectTime for connecting and the handshake, each time
/// @param reconnectDelay how long requests wait for a lost server before they fail, counted from
///   the loss; zero: they fail at once (QEMU: `reconnect-delay`)
/// @param inFlight requests on the wire at once; more wait
public record ClientOptions(Duration connectTime, Duration reconnectDelay, int inFlight) {
  public static final int DEFAULT_IN_FLIGHT = 64;

  public ClientOptions {
    if (inFlight < 1 || inFlight > 4096) {
      throw new IllegalArgumentException(inFlight + " requests in flight, wanted 1 to 4096");
    }
  }

  public static ClientOptions defaults() {
    return new ClientOptions(Duration.ofSeconds(10), Duration.ZERO, DEFAULT_IN_FLIGHT);
  }

  public ClientOptions withReconnectDelay(Duration value) {
    return new ClientOptions(connectTime, value, inFlight);
  }
}
