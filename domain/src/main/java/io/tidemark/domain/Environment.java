// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.time.Duration;
import java.time.InstantSource;
import java.util.UUID;
import java.util.function.Supplier;

/// What the room takes from the world besides its ports, so that tests can set it.
///
/// @param clock for creation times, generated names and elapsed times
/// @param uuids random uuids for domains defined without one, and for names of partial files
/// @param jobPatience how long a call waits for a domain's job held by another (libvirt: 30 s)
public record Environment(InstantSource clock, Supplier<UUID> uuids, Duration jobPatience) {
  /// The real clock, random uuids, libvirt's 30 s.
  public static Environment system() {
    return new Environment(InstantSource.system(), UUID::randomUUID, Duration.ofSeconds(30));
  }
}
