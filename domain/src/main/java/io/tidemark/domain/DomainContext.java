// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.StateStore;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.IntSupplier;

/// What all domains share.
///
/// @param drivers by domain type
/// @param events where events go, in order
/// @param ids gives the id of a domain that starts
/// @param forget takes a domain that is gone out of the registry
record DomainContext(
    StateStore state,
    ImageService images,
    Chains chains,
    Environment environment,
    Map<String, DomainDriver> drivers,
    Consumer<DomainEvent> events,
    IntSupplier ids,
    Consumer<DomainLife> forget) {

  DomainDriver driverOf(Definition definition) throws LibvirtException {
    DomainDriver driver = drivers.get(definition.type());
    if (driver == null) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "no driver runs domains of virt type '%s'".formatted(definition.type()));
    }
    return driver;
  }
}
