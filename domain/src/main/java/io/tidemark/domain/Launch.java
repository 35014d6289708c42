// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.RunningDomain;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntSupplier;

/// Turns a definition into what is run: chains found out, images numbered, the driver started.
///
/// Numbers go from the last disk to the first, each chain top to base; a drive without medium takes
/// one too (measured on libvirt 9.0.0).
final class Launch {
  private final DomainContext context;

  Launch(DomainContext context) {
    this.context = context;
  }

  /// Runs a definition in its driver and records that it runs; what fails leaves nothing behind.
  /// Nobody is told, and the session's watch is not yet started.
  ///
  /// @param connection ends the domain with START_AUTODESTROY
  Session run(DomainLife domain, Definition definition, int flags, Object connection)
      throws LibvirtException {
    boolean paused = Flags.has(flags, Flags.START_PAUSED);
    boolean autodestroy = Flags.has(flags, Flags.START_AUTODESTROY);
    DomainState state = paused ? DomainState.PAUSED_USER : DomainState.RUNNING_BOOTED;
    Live live = prepare(definition, autodestroy, state);
    domain.transients().make(live);
    boolean recorded = false;
    try {
      JobWatch watch = new JobWatch();
      Optional<Object> owner = autodestroy ? Optional.of(connection) : Optional.empty();
      Session started = new Session(live, launch(live, watch), watch, owner);
      record(domain, started);
      recorded = true;
      return started;
    } finally {
      if (!recorded) {
        domain.transients().remove(live);
      }
    }
  }

  private RunningDomain launch(Live live, JobWatch watch) throws LibvirtException {
    Definition definition = live.definition();
    try {
      DomainDriver type = context.driverOf(definition);
      type.check(live.launchSpec());
      return type.launch(live.launchSpec(), watch);
    } catch (DriverException e) {
      throw DriverErrors.toClient("start domain '%s'".formatted(definition.name()), e);
    }
  }

  private static void record(DomainLife domain, Session started) throws LibvirtException {
    try {
      domain.stored().putLive(started.live());
    } catch (IOException e) {
      domain.upkeep().stop(started);
      domain.stored().removeLive();
      throw domain.upkeep().cannotWrite(e);
    }
  }

  private Live prepare(Definition definition, boolean autodestroy, DomainState state)
      throws LibvirtException {
    List<LiveDisk> disks = new ArrayList<>();
    AtomicInteger next = new AtomicInteger(1);
    for (DiskElement element : definition.disks().reversed()) {
      element.forbidCacheIfShared();
      if (element.source().isEmpty()) {
        next.incrementAndGet();
        disks.addFirst(new LiveDisk(element, List.of(), element.backing().isPresent()));
      } else {
        disks.addFirst(disk(element, next::getAndIncrement));
      }
    }
    return new Live(context.ids().getAsInt(), definition, disks, autodestroy, next.get(), state);
  }

  /// A disk that is plugged into a running domain, with numbers of its own.
  LiveDisk plug(DiskElement element, Live live) throws LibvirtException {
    element.forbidCacheIfShared();
    return disk(element, live::takeIndex);
  }

  private LiveDisk disk(DiskElement element, IntSupplier indexes) throws LibvirtException {
    List<Layer> layers = new ArrayList<>();
    for (DiskElement.Image image : context.chains().of(element)) {
      int index = indexes.getAsInt();
      layers.add(
          layers.isEmpty()
              ? new Layer(index, element.storage().orElseThrow(), image.format())
              : new Layer(index, image.storage(), image.format()));
    }
    return new LiveDisk(element, layers, element.backing().isPresent());
  }

  /// What a definition would run, as far as it can be told without its images: for a driver's check
  /// when it is defined.
  static LaunchSpec sketch(Definition definition) throws LibvirtException {
    List<DriveSpec> drives = new ArrayList<>();
    int next = 1;
    for (DiskElement disk : definition.disks()) {
      if (disk.source().isPresent()) {
        Layer layer = new Layer(next, disk.storage().orElseThrow(), disk.format());
        next++;
        drives.add(
            new DriveSpec(
                disk.target(),
                DiskNames.alias(disk.target(), disk.bus()),
                Layer.nodes(List.of(layer), disk.readOnly()),
                disk.readOnly()));
      }
    }
    return new LaunchSpec(definition.name(), definition.uuid(), 1, drives, false);
  }
}
