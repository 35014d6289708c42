// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// Runs domains. One driver per domain type; found by the daemon's wiring.
public interface DomainDriver {
  /// The `type` attribute of the domains it runs: `tidemark`.
  String domainType();

  /// Refuses, before anything is made, a domain that it could not run. Called at define and create.
  void check(LaunchSpec spec) throws DriverException;

  /// Starts a domain. On failure nothing is left running or locked.
  RunningDomain launch(LaunchSpec spec, DriverListener listener) throws DriverException;

  /// Takes up a domain that ran when the daemon ended, clean or not; `spec` is what the live record
  /// says. The engine opens the images again and listens where the guest reconnects; QEMU's monitor
  /// is connected again.
  RunningDomain reattach(LaunchSpec spec, DriverListener listener) throws DriverException;
}
