// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.TransactionAction;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// Small acts on files, nodes and bitmaps of one domain, most of them clearing up: what does not
/// succeed is logged, since the caller has nothing better to do. Called with the domain's lock
/// held.
///
/// @param name of the domain
record Upkeep(DomainContext context, String name) {
  private static final System.Logger LOG = System.getLogger(Upkeep.class.getName());

  LibvirtException cannotWrite(IOException cause) {
    return new LibvirtException(
        ErrorCode.INTERNAL_ERROR,
        ErrorDomain.HYPERVISOR,
        "internal error: unable to save state of domain '%s': %s"
            .formatted(name, cause.getMessage()),
        cause);
  }

  /// What stands at a path; nothing when its folder is not there either.
  Optional<ImageService.FileStatus> fileStatus(Path file) throws LibvirtException {
    try {
      return context.images().status(file);
    } catch (DriverException e) {
      if (e.kind() == DriverException.Kind.MISSING_FILE) {
        return Optional.empty();
      }
      throw DriverErrors.toClient("look at '%s'".formatted(file), e);
    }
  }

  /// Why a file could not be made, in the system's words where it has some.
  String whyNotCreated(Path file, DriverException failure) {
    Path folder = file.getParent();
    try {
      if (folder != null && context.images().status(folder).isEmpty()) {
        return "No such file or directory";
      }
    } catch (DriverException e) {
      return DriverErrors.reason(e);
    }
    return DriverErrors.reason(failure);
  }

  void deleteFile(Path file) {
    try {
      context.images().delete(file);
    } catch (DriverException e) {
      notDeleted(file, e);
    }
  }

  /// The file with this identity; another one of that name stays.
  void deleteFile(Path file, String identity) {
    try {
      context.images().delete(file, identity);
    } catch (DriverException e) {
      notDeleted(file, e);
    }
  }

  private void notDeleted(Path file, DriverException why) {
    Level level = why.kind() == DriverException.Kind.MISSING_FILE ? Level.DEBUG : Level.WARNING;
    LOG.log(level, "%s: remove %s".formatted(name, file), why);
  }

  void stop(Session of) {
    try {
      of.driver().stop();
    } catch (DriverException e) {
      LOG.log(Level.ERROR, name + ": stopped, but not all was flushed", e);
    }
  }

  void removeNode(Session of, String node) {
    try {
      of.driver().removeNode(node);
    } catch (DriverException e) {
      Level level = e.kind() == DriverException.Kind.NOT_FOUND ? Level.DEBUG : Level.WARNING;
      LOG.log(level, "%s: close %s".formatted(name, node), e);
    }
  }

  void removeBitmap(Session of, String target, String bitmap) {
    try {
      of.driver().transaction(List.of(new TransactionAction.RemoveBitmap(target, bitmap)));
    } catch (DriverException e) {
      Level level = e.kind() == DriverException.Kind.NOT_FOUND ? Level.DEBUG : Level.WARNING;
      LOG.log(level, "%s: remove bitmap %s of %s".formatted(name, bitmap, target), e);
    }
  }

  /// A bitmap of a disk; one cannot be in an image that does not hold bitmaps.
  Optional<BitmapState> bitmap(Session of, LiveDisk disk, String bitmap) {
    if (!disk.hasMedium() || !disk.active().format().equals("qcow2")) {
      return Optional.empty();
    }
    try {
      return of.driver().bitmaps(disk.target()).stream()
          .filter(state -> state.name().equals(bitmap))
          .findFirst();
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "%s: bitmaps of %s".formatted(name, disk.target()), e);
      return Optional.empty();
    }
  }
}
