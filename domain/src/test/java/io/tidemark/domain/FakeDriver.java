// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static java.util.Objects.requireNonNull;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.RunningDomain;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// A driver whose jobs move only when a test says so. Its drives remember what they write to, so
/// that a test sees where a guest's next write would go.
final class FakeDriver implements DomainDriver {
  final Machine.View view;
  final Map<String, FakeDomain> running = new TreeMap<>();
  final List<LaunchSpec> reattached = new ArrayList<>();
  boolean refuseReattach;

  FakeDriver(Machine.View view) {
    this.view = view;
  }

  @Override
  public String domainType() {
    return "tidemark";
  }

  @Override
  public void check(LaunchSpec spec) throws DriverException {
    if (spec.name().length() > 90) {
      throw new DriverException(DriverException.Kind.UNSUPPORTED, "socket path too long");
    }
  }

  @Override
  public RunningDomain launch(LaunchSpec spec, DriverListener listener) throws DriverException {
    view.alive();
    for (DriveSpec drive : spec.drives()) {
      view.open(drive.top().file(), drive.top().format());
    }
    FakeDomain domain = new FakeDomain(view, spec, listener);
    running.put(spec.name(), domain);
    return domain;
  }

  @Override
  public RunningDomain reattach(LaunchSpec spec, DriverListener listener) throws DriverException {
    if (refuseReattach) {
      throw new DriverException(DriverException.Kind.IMAGE_BUSY, "someone has it");
    }
    reattached.add(spec);
    FakeDomain domain = (FakeDomain) launch(spec, listener);
    domain.crashBitmaps();
    return domain;
  }

  boolean runs(String name) {
    return running.containsKey(name);
  }

  FakeDomain of(String name) {
    return requireNonNull(running.get(name));
  }
}
