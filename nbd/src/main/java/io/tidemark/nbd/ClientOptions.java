// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;

/// How an [NbdClient] treats its server.
///
/// @param connectTime for connecting and the handshake, each time
/// @param reconnectDelay how long requests wait for a lost server before they fail, counted from
///   the loss; zero: they fail at once (QEMU: `reconnect-delay`)
/// @param inFlight requests on the wire of one connection at once; more wait
/// @param connections used together where the server lets several act as one
///   ([ExportInfo#canMultiConn]), else one is
/// @param contexts metadata contexts to select, beside `base:allocation`, which is always asked for
public record ClientOptions(
    Duration connectTime,
    Duration reconnectDelay,
    int inFlight,
    int connections,
    List<String> contexts) {
  public static final int DEFAULT_IN_FLIGHT = 64;
  public static final int MAX_CONNECTIONS = 16;

  public ClientOptions {
    if (connections < 1 || connections > MAX_CONNECTIONS) {
      throw new IllegalArgumentException(
          connections + " connections, wanted 1 to " + MAX_CONNECTIONS);
    }
    contexts =
        Stream.concat(Stream.of(MetaContext.ALLOCATION), contexts.stream()).distinct().toList();
    if (inFlight < 1 || inFlight > 4096) {
      throw new IllegalArgumentException(inFlight + " requests in flight, wanted 1 to 4096");
    }
  }

  public static ClientOptions defaults() {
    return new ClientOptions(
        Duration.ofSeconds(10), Duration.ZERO, DEFAULT_IN_FLIGHT, 1, List.of());
  }

  public ClientOptions withReconnectDelay(Duration value) {
    return new ClientOptions(connectTime, value, inFlight, connections, contexts);
  }

  public ClientOptions withConnections(int value) {
    return new ClientOptions(connectTime, reconnectDelay, inFlight, value, contexts);
  }

  public ClientOptions withContexts(List<String> value) {
    return new ClientOptions(connectTime, reconnectDelay, inFlight, connections, value);
  }
}
