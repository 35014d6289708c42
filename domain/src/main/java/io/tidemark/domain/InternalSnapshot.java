// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.SnapshotDocument.Location;
import io.tidemark.domain.spi.DriverException;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Snapshots of a domain shut off inside its images. Called with the domain's lock held.
///
/// Order of making: a snapshot in each image, synced, then the document. What was begun and has no
/// document after a crash is a snapshot inside an image that `qemu-img snapshot` shows; nothing
/// else changed. Going back and deleting go image by image too: a crash between two leaves some
/// done, and the call may be repeated.
record InternalSnapshot(DomainLife domain, DomainContext context) {
  private static final System.Logger LOG = System.getLogger(InternalSnapshot.class.getName());

  private record Image(String target, String file, String format) {}

  /// The images that a snapshot is in, as the domain was when it was taken.
  private List<Image> images(SnapshotDocument snapshot) {
    List<Image> images = new ArrayList<>();
    Definition definition = Definition.ofStored(snapshot.domain().orElseThrow());
    for (Disk disk : snapshot.disks()) {
      Optional<DiskElement> element = definition.disk(disk.name());
      if (disk.is(Location.INTERNAL) && element.isPresent()) {
        DiskElement found = element.get();
        found.source().ifPresent(file -> images.add(new Image(disk.name(), file, found.format())));
      }
    }
    return images;
  }

  void take(SnapshotDocument snapshot, boolean metadata) throws LibvirtException {
    List<Image> made = new ArrayList<>();
    boolean done = false;
    try {
      for (Image image : images(snapshot)) {
        context
            .images()
            .createSnapshot(
                DiskElement.path(image.file()),
                image.format(),
                snapshot.name(),
                context.environment().clock().instant());
        made.add(image);
      }
      if (metadata) {
        domain.snapshots().put(snapshot, true);
      }
      done = true;
    } catch (DriverException e) {
      throw DriverErrors.toClient("take the snapshot in the image", e);
    } catch (IOException e) {
      throw domain.snapshots().cannotSave(snapshot.name(), e);
    } finally {
      if (!done) {
        made.forEach(image -> deleteOrLog(image, snapshot.name()));
      }
    }
  }

  /// Removes it from every image, as far as it is there: as libvirt, which goes on too.
  void delete(SnapshotDocument snapshot) {
    images(snapshot).forEach(image -> deleteOrLog(image, snapshot.name()));
  }

  private void deleteOrLog(Image image, String name) {
    try {
      context.images().deleteSnapshot(DiskElement.path(image.file()), image.format(), name);
    } catch (DriverException | LibvirtException e) {
      LOG.log(
          Level.WARNING,
          "%s: snapshot %s inside %s".formatted(domain.name(), name, image.file()),
          e);
    }
  }

  /// Makes the images as they were.
  void apply(SnapshotDocument snapshot) throws LibvirtException {
    for (Image image : images(snapshot)) {
      try {
        context
            .images()
            .applySnapshot(DiskElement.path(image.file()), image.format(), snapshot.name());
      } catch (DriverException e) {
        throw DriverErrors.toClient(
            "go back to snapshot '%s' of disk '%s'".formatted(snapshot.name(), image.target()), e);
      }
    }
  }
}
