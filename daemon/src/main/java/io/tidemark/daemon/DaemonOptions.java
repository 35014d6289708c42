// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.rpc.RpcServer;
import java.nio.file.Path;
import java.time.Duration;

/// How a daemon is set up.
///
/// @param stateDir definitions and checkpoints: survives a reboot
/// @param runDir sockets and live records: of this boot
/// @param version of the program, `0.1.0`; clients see it as the hypervisor's
/// @param rpc limits of the sockets
/// @param grace how long calls in flight may take when the daemon stops
public record DaemonOptions(
    Path stateDir, Path runDir, String version, RpcServer.Options rpc, Duration grace) {
  /// Calls in flight when the daemon stops: a pivot or a backup's start, not a wait of a client.
  static final Duration GRACE = Duration.ofSeconds(10);

  public static DaemonOptions of(Path stateDir, Path runDir, String version) {
    return new DaemonOptions(
        stateDir.toAbsolutePath().normalize(),
        runDir.toAbsolutePath().normalize(),
        version,
        RpcServer.Options.defaults(),
        GRACE);
  }

  /// Numbers of a version as libvirt packs them: 1.2.3 is 1002003. What is not a number is 0.
  long versionNumber() {
    long packed = 0;
    String[] parts = version.split("[.-]", -1);
    for (int i = 0; i < 3; i++) {
      long part = i < parts.length && parts[i].matches("[0-9]{1,3}") ? Long.parseLong(parts[i]) : 0;
      packed = packed * 1_000 + part;
    }
    return packed;
  }
}
