// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Finds out what lies beneath an image, refusing what libvirt refuses in its words.
final class Chains {
  private final ImageService images;
  private final Environment environment;

  Chains(ImageService images, Environment environment) {
    this.images = images;
    this.environment = environment;
  }

  /// The chain of a disk, active layer first: as its definition says, or as the headers do.
  List<DiskElement.Image> of(DiskElement disk) throws LibvirtException {
    String file = disk.source().orElseThrow();
    if (disk.storage().orElseThrow().path().isEmpty()) {
      return List.of(new DiskElement.Image(file, disk.format())); // raw: it stands on nothing
    }
    requireFile(file, Optional.empty());
    Optional<List<DiskElement.Image>> given = disk.backing();
    if (given.isEmpty()) {
      return walk(file, disk.format());
    }
    List<DiskElement.Image> chain = new ArrayList<>();
    chain.add(new DiskElement.Image(file, disk.format()));
    for (DiskElement.Image image : given.get()) {
      if (image.storage().path().isPresent()) {
        requireFile(image.file(), Optional.of(chain.getLast().file()));
      }
      chain.add(image);
    }
    if (!disk.backingEnds() && chain.getLast().storage().path().isPresent()) {
      DiskElement.Image last = chain.removeLast();
      chain.addAll(walk(last.file(), last.format()));
    }
    return chain;
  }

  /// Walks by the recorded backing names.
  List<DiskElement.Image> walk(String file, String format) throws LibvirtException {
    List<DiskElement.Image> chain = new ArrayList<>();
    Set<Path> seen = new HashSet<>();
    DiskElement.Image next = new DiskElement.Image(file, format);
    while (true) {
      Path path = Path.of(next.file());
      if (!seen.add(path.normalize()) || chain.size() >= DiskElement.MAX_CHAIN) {
        throw ErrorCode.INTERNAL_ERROR.in(
            ErrorDomain.STORAGE,
            "backing store for %s is self-referential or too deeply nested".formatted(file));
      }
      chain.add(next);
      ImageService.Image image = inspect(path, next.format());
      if (image.backingPath().isEmpty()) {
        return chain;
      }
      String backing = image.backingPath().get().toString();
      String above = next.file();
      String backingFormat =
          image
              .backing()
              .flatMap(ImageService.Backing::format)
              .orElseThrow(() ->
                  ErrorCode.OPERATION_INVALID.in(
                      ErrorDomain.STORAGE,
                      ("format of backing image '%s' of image '%s' was not specified in the"
                              + " image metadata")
                          .formatted(backing, above)));
      requireFile(backing, Optional.of(above));
      DiskCheck.checkFormat(backingFormat, "backing image '%s'".formatted(backing));
      next = new DiskElement.Image(backing, backingFormat);
    }
  }

  ImageService.Image inspect(Path path, String format) throws LibvirtException {
    try {
      return images.inspect(path, format);
    } catch (DriverException e) {
      throw DriverErrors.toClient("open '%s' as %s".formatted(path, format), e);
    }
  }

  private void requireFile(String file, Optional<String> above) throws LibvirtException {
    if (!file.startsWith("/")) {
      throw ErrorCode.OPERATION_INVALID.in(
          ErrorDomain.STORAGE, "image path '%s' must be absolute".formatted(file));
    }
    boolean there;
    try {
      there = images.status(Path.of(file)).isPresent();
    } catch (DriverException e) {
      there = e.kind() != DriverException.Kind.MISSING_FILE;
    }
    if (there) {
      return;
    }
    String where =
        above
            .map(top -> "Cannot access backing file '%s' of storage file '%s'".formatted(file, top))
            .orElse("Cannot access storage file '%s'".formatted(file));
    throw ErrorCode.SYSTEM_ERROR.in(
        ErrorDomain.STORAGE,
        "%s (as uid:%d, gid:%d): No such file or directory"
            .formatted(where, environment.uid(), environment.gid()));
  }
}
