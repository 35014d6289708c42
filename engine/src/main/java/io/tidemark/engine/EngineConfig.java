// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import java.nio.file.Files;
import java.nio.file.Path;

/// Where the embedded engine keeps what it needs while domains run.
///
/// @param runDir the daemon's run dir, absolute: `guest/` holds the guests' sockets, `log/` the
///   logs of acknowledged image metadata (rule 1). Both are made on first use
/// @param scratchDir where backups put the blocks that a guest overwrites before they are copied:
///   absolute, on a disk rather than in memory. The files have no name once they are open, so that
///   none outlives the process
/// @param scratchLimitBytes most bytes that the scratch of one disk's backup may hold; past it the
///   backup fails, never the guest
/// @param backupTls credentials of servers for pull backups that are asked for with TLS
public record EngineConfig(
    Path runDir, Path scratchDir, long scratchLimitBytes, BackupTls backupTls) {
  /// Certificates and key of a server, as `TlsCredentials` reads them.
  ///
  /// @param verifyPeer refuse clients without a certificate of the folder's authority
  public record BackupTls(Path folder, boolean verifyPeer) {
    /// Where libvirt takes them for backups.
    static final Path LIBVIRT_BACKUP = Path.of("/etc/pki/libvirt-backup");

    /// Where QEMU takes them when that folder is not there.
    static final Path QEMU = Path.of("/etc/pki/qemu");

    /// libvirt's folder when it is there when this is called, else QEMU's; clients must show a
    /// certificate.
    public static BackupTls usual() {
      return new BackupTls(Files.isDirectory(LIBVIRT_BACKUP) ? LIBVIRT_BACKUP : QEMU, true);
    }
  }

  /// Scratch of one backup unless told otherwise: no more than the disk itself.
  public static final long UNBOUNDED_SCRATCH = Long.MAX_VALUE;

  public EngineConfig {
    if (!runDir.isAbsolute() || !scratchDir.isAbsolute()) {
      throw new IllegalArgumentException(
          "run dir " + runDir + " and scratch dir " + scratchDir + " must be absolute");
    }
    if (scratchLimitBytes < 0) {
      throw new IllegalArgumentException("scratch limit of " + scratchLimitBytes + " bytes");
    }
  }

  public static EngineConfig of(Path runDir, Path scratchDir) {
    return new EngineConfig(runDir, scratchDir, UNBOUNDED_SCRATCH, BackupTls.usual());
  }

  public EngineConfig withBackupTls(BackupTls value) {
    return new EngineConfig(runDir, scratchDir, scratchLimitBytes, value);
  }

  /// @param bytes most that the scratch of one disk's backup may hold
  public EngineConfig withScratchLimit(long bytes) {
    return new EngineConfig(runDir, scratchDir, bytes, backupTls);
  }

  Path guestDir() {
    return runDir.resolve("guest");
  }

  Path logDir() {
    return runDir.resolve("log");
  }

  /// Of [WriteMark]s.
  Path markDir() {
    return runDir.resolve("writing");
  }
}
