// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.qcow2.StaleLogs;
import java.util.HashSet;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;

/// Runs domains of type `tidemark`: no processor, only disks, which any NBD client reaches at
/// `RUN_DIR/guest/<name>.sock` under the disks' target names. Any thread may call.
public final class EmbeddedDriver implements DomainDriver {
  /// Disks of one domain.
  static final int MAX_DRIVES = 256;

  private static final Set<String> FORMATS = Set.of("raw", "qcow2");

  private final EngineConfig config;

  public EmbeddedDriver(EngineConfig config) {
    this.config = Objects.requireNonNull(config);
  }

  /// Removes what killed processes left in the run dir of images that are gone since, beside the
  /// caller. For the start of a daemon.
  public void tidy() {
    StaleLogs.removeBeside(config.logDir());
  }

  @Override
  public String domainType() {
    return "tidemark";
  }

  /// Looks at the words of `spec` only, not at files: a domain may be defined before its images are
  /// there.
  @Override
  public void check(LaunchSpec spec) throws DriverException {
    var _ = GuestSocket.path(config, spec.name());
    if (spec.drives().size() > MAX_DRIVES) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          "domain " + spec.name() + ": " + spec.drives().size() + " disks, at most " + MAX_DRIVES);
    }
    Set<String> targets = new HashSet<>();
    for (DriveSpec drive : spec.drives()) {
      if (!targets.add(drive.target())) {
        throw DriverErrors.generic(
            "domain " + spec.name() + ": target " + drive.target() + " is there twice");
      }
      if (drive.top().readOnly() && !drive.readOnly()) {
        throw DriverErrors.generic(
            "disk "
                + drive.target()
                + ": "
                + drive.top().storage().location()
                + " is read-only, the disk not");
      }
      for (Optional<NodeSpec> node = Optional.of(drive.top());
          node.isPresent();
          node = node.get().backing()) {
        check(drive, node.get());
      }
    }
  }

  private static void check(DriveSpec drive, NodeSpec node) throws DriverException {
    if (!FORMATS.contains(node.format())) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          "disk "
              + drive.target()
              + ": format "
              + node.format()
              + " of "
              + node.storage().location());
    }
    if (node.storage().path().filter(path -> !path.isAbsolute()).isPresent()) {
      throw DriverErrors.generic(
          "disk " + drive.target() + ": " + node.storage().location() + " is not an absolute path");
    }
  }

  @Override
  public RunningDomain launch(LaunchSpec spec, DriverListener listener) throws DriverException {
    check(spec);
    return EmbeddedDomain.start(config, spec, listener);
  }

  /// The same as a launch: what outlives a process is in the images, the log of acknowledged
  /// metadata in the run dir, and `spec`. A guest that reconnects finds the same socket.
  @Override
  public RunningDomain reattach(LaunchSpec spec, DriverListener listener) throws DriverException {
    return launch(spec, listener);
  }
}
