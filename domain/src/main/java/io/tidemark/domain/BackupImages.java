// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.NodeSpec;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/// The images that a backup writes: targets, and scratches of a pull. Every method is called with
/// the domain's lock held.
final class BackupImages {
  private static final System.Logger LOG = System.getLogger(BackupImages.class.getName());

  /// How long the removal of a backup's files is waited for.
  static final Duration REMOVE_LIMIT = Duration.ofSeconds(5);

  private final DomainLife domain;
  private final DomainContext context;

  BackupImages(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  /// Makes an image, unless the client did: a scratch under a name of its own, see [#open].
  ///
  /// @param push a target: in qcow2 it stands on the source as it is, when it holds an increment,
  ///   so that it shows the whole disk
  void make(Session session, LiveDisk source, BackupJob.Disk disk, boolean push)
      throws LibvirtException {
    if (disk.made()) {
      create(session, source, disk, push);
    } else {
      checkReused(session, source, disk, Path.of(disk.node().file()));
    }
  }

  /// Opens an image. A scratch gets its name first: the live record knows by now which file it is.
  ///
  /// @param push a target, worth nothing before it is flushed whole when it is made here. Else a
  ///   scratch, worth nothing at all
  void open(Session session, BackupJob.Disk disk, boolean push) throws LibvirtException {
    if (disk.temporary().isPresent()) {
      try {
        context.images().publish(disk.temporary().get(), Path.of(disk.node().file()));
      } catch (DriverException e) {
        throw notCreated(disk, DriverErrors.reason(e), e);
      }
    }
    try {
      session
          .driver()
          .addNode(
              new NodeSpec(
                  disk.node().nodeName(),
                  disk.node().storage(),
                  disk.node().format(),
                  false,
                  Optional.empty(),
                  worth(disk, push)));
    } catch (DriverException e) {
      throw DriverErrors.toClient("add the target of disk '%s'".formatted(disk.target()), e);
    }
  }

  /// A client's own target may hold what is worth keeping, an earlier backup that this one is
  /// written over; its tables stay in order through a crash as a guest's disk's do.
  private static NodeSpec.Worth worth(BackupJob.Disk disk, boolean push) {
    if (!push) {
      return NodeSpec.Worth.NONE;
    }
    return disk.made() ? NodeSpec.Worth.ONCE_FLUSHED : NodeSpec.Worth.DISK;
  }

  private void create(Session session, LiveDisk source, BackupJob.Disk disk, boolean push)
      throws LibvirtException {
    Path file = disk.temporary().orElse(Path.of(disk.node().file()));
    Optional<ImageService.Backing> backing = Optional.empty();
    if (push && disk.incremental().isPresent() && disk.node().format().equals("qcow2")) {
      Layer active = source.active();
      backing = Optional.of(new ImageService.Backing(active.file(), Optional.of(active.format())));
    }
    try {
      context
          .images()
          .create(
              file,
              disk.node().format(),
              session.driver().sizes(source.target()).capacity(),
              backing);
      disk.markThere();
      if (disk.temporary().isPresent()) {
        disk.identity(context.images().identity(file));
      }
    } catch (DriverException e) {
      throw notCreated(disk, domain.upkeep().whyNotCreated(file, e), e);
    }
  }

  private static LibvirtException notCreated(
      BackupJob.Disk disk, String reason, DriverException cause) {
    return new LibvirtException(
        ErrorCode.SYSTEM_ERROR,
        ErrorDomain.HYPERVISOR,
        "failed to create image file '%s': %s".formatted(disk.finalFile(), reason),
        cause);
  }

  private void checkReused(Session session, LiveDisk source, BackupJob.Disk disk, Path file)
      throws LibvirtException {
    if (domain.upkeep().fileStatus(file).isEmpty()) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "could not open '%s': No such file or directory".formatted(file));
    }
    long there = context.chains().inspect(file, disk.node().format()).virtualSizeBytes();
    long needed;
    try {
      needed = session.driver().sizes(source.target()).capacity();
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask the size of disk '%s'".formatted(disk.target()), e);
    }
    if (there != needed) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "Source and target image have different sizes: '%s' has %d bytes, disk '%s' has %d"
              .formatted(file, there, disk.target(), needed));
    }
  }

  /// Closes the images of a backup whose jobs have ended.
  void close(Session session, BackupJob job) {
    for (BackupJob.Disk disk : job.disks()) {
      try {
        session.driver().removeNode(disk.node().nodeName());
      } catch (DriverException e) {
        LOG.log(Level.WARNING, domain.name() + ": close " + disk.node().file(), e);
        if (!job.pull()) {
          job.fail(DriverErrors.reason(e)); // it may not be flushed
        }
      }
    }
  }

  /// Gives the files their names; those that have them are left alone, so that it can be repeated.
  void publish(BackupJob job) {
    for (BackupJob.Disk disk : job.disks()) {
      if (!disk.ours()) {
        continue;
      }
      Path partial = Path.of(disk.node().file());
      try {
        if (context.images().status(partial).isPresent()
            || context.images().status(Path.of(disk.finalFile())).isEmpty()) {
          context.images().publish(partial, Path.of(disk.finalFile()));
        }
        disk.markPublished();
      } catch (DriverException e) {
        LOG.log(Level.WARNING, "%s: publish %s".formatted(domain.name(), disk.finalFile()), e);
        job.fail(DriverErrors.reason(e));
        return;
      }
    }
  }

  /// Removes what the backup made and what is not a backup. Storage that hangs keeps the domain's
  /// clients waiting for [#REMOVE_LIMIT] only: the files go when it answers.
  void remove(BackupJob job) {
    List<BackupJob.Disk> disks = job.disks().stream().filter(BackupJob.Disk::removable).toList();
    if (disks.isEmpty()) {
      return;
    }
    Thread removal =
        Thread.ofPlatform()
            .daemon()
            .name("remove-" + domain.name())
            .start(() -> disks.forEach(this::remove));
    try {
      if (!removal.join(REMOVE_LIMIT)) {
        LOG.log(
            Level.WARNING,
            "{0}: {1} not removed after {2} s, it will be when its storage answers",
            domain.name(),
            disks.stream().map(BackupJob.Disk::finalFile).toList(),
            REMOVE_LIMIT.toSeconds());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt(); // the removal goes on by itself
    }
  }

  /// A scratch has the client's name, which may be another file's by now: only what was made goes.
  private void remove(BackupJob.Disk disk) {
    if (disk.temporary().isPresent()) {
      domain.upkeep().deleteFile(disk.temporary().get());
      if (!disk.identity().isEmpty()) {
        domain.upkeep().deleteFile(Path.of(disk.node().file()), disk.identity());
      }
    } else {
      domain.upkeep().deleteFile(Path.of(disk.published() ? disk.finalFile() : disk.node().file()));
    }
  }
}
