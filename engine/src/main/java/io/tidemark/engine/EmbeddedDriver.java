// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.RunningDomain;
import java.util.Objects;

/// Runs domains of type `tidemark`: no processor, only disks, which any NBD client reaches at
/// `RUN_DIR/guest/<name>.sock` under the disks' target names.
public final class EmbeddedDriver implements DomainDriver {
  private final EngineConfig config;

  public EmbeddedDriver(EngineConfig config) {
    this.config = Objects.requireNonNull(config);
  }

  @Override
  public String domainType() {
    return "tidemark";
  }

  @Override
  public void check(LaunchSpec spec) throws DriverException {
    throw new UnsupportedOperationException("run dir " + config.runDir());
  }

  @Override
  public RunningDomain launch(LaunchSpec spec, DriverListener listener) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public RunningDomain reattach(LaunchSpec spec, DriverListener listener) throws DriverException {
    throw new UnsupportedOperationException();
  }
}
