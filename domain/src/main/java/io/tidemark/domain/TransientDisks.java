// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import java.nio.file.Path;
import java.util.Optional;

/// The overlays of disks that are `<transient/>`: what the guest writes goes to one, which is
/// removed when the domain ends. Called with the domain's lock held.
///
/// On disk an overlay is made before the domain starts, and removed after its images are closed. A
/// host that goes down leaves it, and the next start refuses it by name, as libvirt does.
record TransientDisks(DomainContext context, Upkeep upkeep) {
  private String overlay(String file) {
    return file + ".TRANSIENT-" + upkeep.name();
  }

  /// Puts an overlay over each such disk. On failure none is left.
  void make(Live live) throws LibvirtException {
    boolean done = false;
    try {
      for (LiveDisk disk : live.disks()) {
        if (disk.element().isTransient() && disk.hasMedium()) {
          make(live, disk);
        }
      }
      done = true;
    } finally {
      if (!done) {
        remove(live);
      }
    }
  }

  private void make(Live live, LiveDisk disk) throws LibvirtException {
    Layer source = disk.active();
    Path file = DiskElement.path(overlay(source.file()));
    if (source.storage().path().isEmpty() || upkeep.fileStatus(file).isPresent()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "Overlay file '%s' for transient disk '%s' already exists"
              .formatted(file, disk.target()));
    }
    try {
      long size =
          context
              .images()
              .inspect(source.storage().path().orElseThrow(), source.format())
              .virtualSizeBytes();
      context
          .images()
          .create(
              file,
              "qcow2",
              size,
              Optional.of(new ImageService.Backing(source.file(), Optional.of(source.format()))));
    } catch (DriverException e) {
      throw DriverErrors.toClient("make an overlay for disk '%s'".formatted(disk.target()), e);
    }
    disk.pushOverlay(new Layer(live.takeIndex(), file.toString(), "qcow2"));
  }

  /// Removes the overlays of a domain that does not run any more.
  void remove(Live live) {
    for (LiveDisk disk : live.disks()) {
      if (disk.element().isTransient() && disk.layers().size() > 1) {
        String file = disk.active().file();
        if (file.equals(overlay(disk.layers().get(1).file()))) {
          upkeep.deleteFile(Path.of(file));
        }
      }
    }
  }
}
