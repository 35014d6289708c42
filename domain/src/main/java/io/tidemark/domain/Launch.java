// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.LaunchSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.IntSupplier;

/// Turns a definition into what is run: chains found out, images numbered.
///
/// Numbers go from the last disk to the first, each chain top to base; a drive without medium takes
/// one too (measured on libvirt 9.0.0).
final class Launch {
  private final DomainContext context;

  Launch(DomainContext context) {
    this.context = context;
  }

  Live prepare(Definition definition, boolean autodestroy, DomainState state)
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
