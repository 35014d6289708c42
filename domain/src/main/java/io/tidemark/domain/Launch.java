// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.Storage;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntSupplier;

/// Turns a definition into what is run: chains found out, images numbered, the driver started.
///
/// Numbers go from the last disk to the first, each chain top to base: in a first round to the
/// images that the definition names, and to a drive without medium, in a second to those found by
/// the headers (measured on libvirt 9.0.0).
final class Launch {
  /// A disk that was not there and that its definition lets be missing.
  ///
  /// @param disk as it was defined
  record Missing(DiskElement disk) {
    /// virConnectDomainEventDiskChangeReason: 0 its drive is empty, 1 it is not plugged in.
    int reason() {
      return disk.removable() ? 0 : 1;
    }
  }

  private final DomainContext context;
  private final List<Missing> missing = new ArrayList<>();

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
    leaveOutMissing(domain, definition);
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

  /// What [#run] left out.
  List<Missing> missing() {
    return List.copyOf(missing);
  }

  /// Disks with `startupPolicy='optional'` need not be there: a drive for media is then empty,
  /// another disk is not plugged in. `requisite` and `mandatory` are the same for a start.
  private void leaveOutMissing(DomainLife domain, Definition definition) throws LibvirtException {
    for (DiskElement disk : definition.disks()) {
      Optional<Path> file = disk.storage().flatMap(Storage::path);
      if (disk.startsWithout()
          && file.isPresent()
          && domain.upkeep().fileStatus(file.get()).isEmpty()) {
        missing.add(new Missing(new DiskElement(disk.element().copy())));
        if (disk.removable()) {
          disk.eject();
        } else if (!definition.removeDisk(disk.target())) {
          throw new IllegalStateException("disk " + disk.target() + " is not in its definition");
        }
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
    List<Chain> chains = new ArrayList<>();
    for (DiskElement element : definition.disks().reversed()) {
      chains.add(chain(element));
    }
    AtomicInteger next = new AtomicInteger(1);
    for (Chain chain : chains) {
      if (chain.images().isEmpty()) {
        next.incrementAndGet();
      }
      chain.number(chain.named(), next::getAndIncrement);
    }
    for (Chain chain : chains) {
      chain.number(chain.images().size(), next::getAndIncrement);
    }
    List<LiveDisk> disks = chains.reversed().stream().map(Chain::toDisk).toList();
    return new Live(context.ids().getAsInt(), definition, disks, autodestroy, next.get(), state);
  }

  /// A disk that is plugged into a running domain, with numbers of its own.
  LiveDisk plug(DiskElement element, Live live) throws LibvirtException {
    Chain chain = chain(element);
    chain.number(chain.images().size(), live::takeIndex);
    return chain.toDisk();
  }

  private Chain chain(DiskElement element) throws LibvirtException {
    element.forbidCacheIfShared();
    List<DiskElement.Image> images =
        element.source().isEmpty() ? List.of() : context.chains().of(element);
    return new Chain(element, images, new ArrayList<>());
  }

  /// The images of a disk, numbered one after the other.
  private record Chain(DiskElement element, List<DiskElement.Image> images, List<Layer> layers) {
    /// Those that the definition names.
    int named() {
      return Math.min(images.size(), 1 + element.backing().map(List::size).orElse(0));
    }

    /// Numbers the images up to the `end`-th that have none yet.
    void number(int end, IntSupplier indexes) {
      while (layers.size() < end) {
        DiskElement.Image image = images.get(layers.size());
        Storage storage = layers.isEmpty() ? element.storage().orElseThrow() : image.storage();
        layers.add(new Layer(indexes.getAsInt(), storage, image.format()));
      }
    }

    LiveDisk toDisk() {
      return new LiveDisk(element, layers, element.backing().isPresent());
    }
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
        drives.add(disk.driveSpec(List.of(layer)));
      }
    }
    return new LaunchSpec(definition.name(), definition.uuid(), 1, drives, false);
  }
}
