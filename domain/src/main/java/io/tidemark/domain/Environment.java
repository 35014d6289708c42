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
/// @param uid the user that opens images, which error texts name
/// @param gid its group
public record Environment(
    InstantSource clock, Supplier<UUID> uuids, Duration jobPatience, int uid, int gid) {
  /// libvirt's patience.
  public static final Duration JOB_PATIENCE = Duration.ofSeconds(30);

  /// The real clock, random uuids, libvirt's patience.
  ///
  /// @param uid of this process
  /// @param gid of this process
  public static Environment system(int uid, int gid) {
    return new Environment(InstantSource.system(), UUID::randomUUID, JOB_PATIENCE, uid, gid);
  }

  /// As [#system(int, int)], for root.
  public static Environment system() {
    return system(0, 0);
  }
}
