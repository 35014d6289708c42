// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.SnapshotDocument.Location;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Brings the disks of a snapshot's document in line with those of its domain: every disk once, in
/// the domain's order, with a mode, and a file where it needs one. Refuses what libvirt refuses.
///
/// @param snapshot its name, which goes into names of files
/// @param usual how a disk is kept of which nothing is said
/// @param mustMatch whether no other way is allowed
record SnapshotDisks(ImageService images, String snapshot, Location usual, boolean mustMatch) {
  List<Disk> align(List<Disk> asked, List<DiskElement> disks) throws LibvirtException {
    if (asked.size() > disks.size()) {
      throw unsupported("too many disk snapshot requests for domain");
    }
    Map<String, Disk> byTarget = new HashMap<>();
    for (Disk request : asked) {
      DiskElement disk =
          disks.stream()
              .filter(found -> isCalled(found, request.name()))
              .findFirst()
              .orElseThrow(() -> unsupported("no disk named '%s'".formatted(request.name())));
      String target = disk.target();
      if (byTarget.containsKey(target)) {
        throw unsupported("disk '%s' specified twice".formatted(target));
      }
      Disk settled = request.named(target);
      if (settled.location().isEmpty()) {
        settled = settled.at(usualOf(disk));
      } else {
        requireMatch(disk, settled.location().get());
      }
      if (settled.path().isPresent() && !settled.is(Location.EXTERNAL)) {
        throw unsupported(
            "file '%s' for disk '%s' requires use of external snapshot mode"
                .formatted(settled.path().get(), target));
      }
      byTarget.put(target, settled);
    }
    List<Disk> aligned = new ArrayList<>();
    for (DiskElement disk : disks) {
      Disk given = byTarget.get(disk.target());
      aligned.add(
          given != null
              ? given
              : Disk.of(disk.target(), disk.source().isEmpty() ? Location.NO : usualOf(disk)));
    }
    return withFiles(aligned, disks);
  }

  private static boolean isCalled(DiskElement disk, String name) {
    return disk.target().equals(name) || disk.source().equals(Optional.of(name));
  }

  /// What the domain's own document says of its disk.
  private static Optional<Location> wish(DiskElement disk) {
    Optional<Location> said = Location.of(disk.element().attribute("snapshot"));
    return said.isEmpty() && disk.readOnly() ? Optional.of(Location.NO) : said;
  }

  private Location usualOf(DiskElement disk) {
    return wish(disk)
        .filter(wished -> !mustMatch || wished == usual || wished == Location.NO)
        .orElse(usual);
  }

  private void requireMatch(DiskElement disk, Location location) throws LibvirtException {
    boolean left = location == Location.NO && wish(disk).equals(Optional.of(Location.NO));
    if (mustMatch && location != usual && !left) {
      throw unsupported(
          "disk '%s' must use snapshot mode '%s'".formatted(disk.target(), usual.word()));
    }
  }

  private List<Disk> withFiles(List<Disk> disks, List<DiskElement> origins)
      throws LibvirtException {
    List<Disk> named = new ArrayList<>();
    for (int i = 0; i < disks.size(); i++) {
      Disk disk = disks.get(i); // in the order of their origins
      boolean needed = disk.is(Location.EXTERNAL) && disk.source().isEmpty();
      named.add(needed ? disk.inFile(fileFor(disk, origins.get(i))) : disk);
      if (needed) {
        requireOwnFile(named);
      }
    }
    return named;
  }

  private String fileFor(Disk disk, DiskElement origin) throws LibvirtException {
    if (!disk.type().equals("file")) {
      throw unsupported(
          "cannot generate external snapshot name for disk '%s' on a '%s' device"
              .formatted(disk.name(), disk.type()));
    }
    String source =
        origin
            .source()
            .orElseThrow(() ->
                unsupported(
                    "cannot generate external snapshot name for disk '%s' without source"
                        .formatted(disk.name())));
    if (!isRegular(source)) {
      throw unsupported(
          ("source for disk '%s' is not a regular file; refusing to generate external snapshot"
                  + " name")
              .formatted(disk.name()));
    }
    int dot = source.lastIndexOf('.');
    boolean suffix = dot >= 0 && source.indexOf('/', dot) < 0;
    String file = (suffix ? source.substring(0, dot) : source) + "." + snapshot;
    return DiskElement.path(file).toString();
  }

  /// What is not there is taken for a file.
  private boolean isRegular(String source) {
    try {
      return images
          .status(Path.of(source))
          .map(status -> status.kind() == ImageService.FileKind.REGULAR)
          .orElse(true);
    } catch (DriverException e) {
      // Safe because whoever opens it will say so.
      return true;
    }
  }

  private static void requireOwnFile(List<Disk> named) throws LibvirtException {
    Disk last = named.getLast();
    for (Disk other : named.subList(0, named.size() - 1)) {
      if (other.path().isPresent() && other.path().equals(last.path())) {
        throw unsupported(
            "cannot generate external snapshot name for disk '%s': collision with disk '%s'"
                .formatted(last.name(), other.name()));
      }
    }
  }

  private static LibvirtException unsupported(String detail) {
    return ErrorCode.CONFIG_UNSUPPORTED.in(ErrorDomain.DOMAIN_SNAPSHOT, detail);
  }
}
