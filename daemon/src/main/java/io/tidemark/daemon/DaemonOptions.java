// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.engine.EngineConfig;
import io.tidemark.rpc.RpcServer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalLong;

/// How a daemon is set up.
///
/// @param stateDir definitions and checkpoints: survives a reboot
/// @param runDir sockets and live records: of this boot
/// @param version of the program, `0.1.0`; clients see it as the hypervisor's
/// @param rpc limits of the sockets
/// @param grace how long calls in flight may take when the daemon stops
/// @param backups where backups keep what a guest overwrites, and their credentials
public record DaemonOptions(
    Path stateDir,
    Path runDir,
    String version,
    RpcServer.Options rpc,
    Duration grace,
    Backups backups) {
  /// What backups need of the host.
  ///
  /// @param scratchDir folder for the old blocks that a push backup has not copied yet; absent:
  ///   `scratch` in the state folder
  /// @param scratchLimitBytes most of them of one disk; absent: the disk's size
  /// @param tlsDir certificates of pull backups over TLS; absent: where libvirt and QEMU have them
  /// @param tlsVerify refuse clients of those without a certificate of that authority
  public record Backups(
      Optional<Path> scratchDir,
      OptionalLong scratchLimitBytes,
      Optional<Path> tlsDir,
      boolean tlsVerify) {
    public static Backups defaults() {
      return new Backups(Optional.empty(), OptionalLong.empty(), Optional.empty(), true);
    }
  }

  /// Calls in flight when the daemon stops: a pivot or a backup's start, not a wait of a client.
  static final Duration GRACE = Duration.ofSeconds(10);

  public static DaemonOptions of(Path stateDir, Path runDir, String version) {
    return new DaemonOptions(
        stateDir.toAbsolutePath().normalize(),
        runDir.toAbsolutePath().normalize(),
        version,
        RpcServer.Options.defaults(),
        GRACE,
        Backups.defaults());
  }

  public DaemonOptions withBackups(Backups value) {
    return new DaemonOptions(stateDir, runDir, version, rpc, grace, value);
  }

  EngineConfig engine() {
    Path scratch = backups.scratchDir().orElse(stateDir.resolve("scratch"));
    EngineConfig.BackupTls usual = EngineConfig.BackupTls.usual();
    return EngineConfig.of(runDir, scratch.toAbsolutePath().normalize())
        .withScratchLimit(backups.scratchLimitBytes().orElse(EngineConfig.UNBOUNDED_SCRATCH))
        .withBackupTls(
            new EngineConfig.BackupTls(
                backups.tlsDir().orElse(usual.folder()), backups.tlsVerify()));
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
