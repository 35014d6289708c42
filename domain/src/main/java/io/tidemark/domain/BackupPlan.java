// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.Storage;
import java.lang.System.Logger.Level;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// What a client's `<domainbackup>` means for a running domain: which disks, from which checkpoint
/// on, into which images. Everything is checked and nothing made. Called with the domain's lock
/// held.
final class BackupPlan {
  private static final System.Logger LOG = System.getLogger(BackupPlan.class.getName());

  static final String PARTIAL_SUFFIX = ".tidemark-partial";

  /// Longest file name (NAME_MAX).
  private static final int MAX_FILE_NAME_BYTES = 255;

  private final DomainLife domain;
  private final DomainContext context;
  private final Session session;
  private final Live live;
  private final BackupXml xml;
  private final Optional<String> checkpoint;

  /// @param checkpoint the name of the one that is made at the same instant
  BackupPlan(
      DomainLife domain,
      DomainContext context,
      Session session,
      BackupXml xml,
      Optional<String> checkpoint) {
    this.domain = domain;
    this.context = context;
    this.session = session;
    this.live = session.live();
    this.xml = xml;
    this.checkpoint = checkpoint;
  }

  /// A disk that is to be backed up.
  ///
  /// @param file of the target or the scratch; absent: the client gave none
  private record Wanted(
      LiveDisk disk,
      Optional<String> incremental,
      String format,
      boolean device,
      Optional<String> file,
      String exportName,
      Optional<String> exportBitmap) {}

  /// @param suffix of file names that the client left out
  /// @param reuse the images are there, and stay
  BackupJob job(String suffix, boolean reuse) throws LibvirtException {
    List<Wanted> wanted = align(suffix);
    // Clients are shown the disks that they listed first, in their order.
    Set<String> order = new LinkedHashSet<>();
    xml.disks().forEach(disk -> order.add(disk.name()));
    live.disks().forEach(disk -> order.add(disk.target()));
    if (wanted.isEmpty()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because("no disks selected for backup");
    }
    if (xml.server().isPresent()) {
      xml.server().get().requirePort();
    }
    // A backup that is refused for what follows has used its indexes up, as with libvirt.
    List<Integer> indexes = new ArrayList<>();
    for (Wanted one : wanted) {
      checkFree(one.disk());
      indexes.add(live.takeIndex());
      checkIncrement(one);
    }
    List<BackupJob.Disk> disks = new ArrayList<>();
    Set<Path> files = new HashSet<>();
    for (int i = 0; i < wanted.size(); i++) {
      disks.add(place(wanted.get(i), indexes.get(i), reuse, files));
    }
    return new BackupJob(
        context.environment().clock().instant(),
        xml.server(),
        xml.incremental(),
        disks,
        List.copyOf(order));
  }

  private List<Wanted> align(String suffix) throws LibvirtException {
    List<Wanted> wanted = new ArrayList<>();
    if (!xml.listed()) {
      for (LiveDisk disk : live.disks()) {
        if (disk.hasMedium() && !disk.element().readOnly()) {
          wanted.add(
              new Wanted(
                  disk,
                  xml.incremental(),
                  "qcow2",
                  false,
                  Optional.of(generatedName(disk, suffix)),
                  disk.target(),
                  exportBitmap(disk, xml.incremental(), Optional.empty())));
        }
      }
      return wanted;
    }
    Set<String> named = new HashSet<>();
    for (BackupXml.Disk asked : xml.disks()) {
      LiveDisk disk =
          live.disks().stream()
              .filter(one -> one.target().equals(asked.name()))
              .findFirst()
              .orElseThrow(() ->
                  ErrorCode.CONFIG_UNSUPPORTED.in(
                      ErrorDomain.DOMAIN, "no disk named '%s'".formatted(asked.name())));
      if (!named.add(disk.target())) {
        throw ErrorCode.CONFIG_UNSUPPORTED.in(
            ErrorDomain.DOMAIN, "disk '%s' specified twice".formatted(disk.target()));
      }
      if (!asked.selected()) {
        continue;
      }
      if (!disk.hasMedium()) {
        throw ErrorCode.CONFIG_UNSUPPORTED.in(
            ErrorDomain.DOMAIN, "disk '%s' has no media".formatted(disk.target()));
      }
      String format = asked.format().isEmpty() ? "qcow2" : asked.format();
      DiskCheck.checkFormat(format, "target of disk '%s'".formatted(disk.target()));
      Optional<String> incremental = xml.incrementalOf(asked);
      wanted.add(
          new Wanted(
              disk,
              incremental,
              format,
              asked.type().equals("block"),
              asked.target(),
              asked.exportName().orElse(disk.target()),
              exportBitmap(disk, incremental, asked.exportBitmap())));
    }
    return wanted;
  }

  private Optional<String> exportBitmap(
      LiveDisk disk, Optional<String> incremental, Optional<String> asked) {
    if (!xml.pull()) {
      return Optional.empty();
    }
    return asked.or(() -> incremental.map(_ -> "backup-" + disk.target()));
  }

  private static String generatedName(LiveDisk disk, String suffix) throws LibvirtException {
    if (!(disk.active().storage() instanceof Storage.LocalFile)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.in(
          ErrorDomain.DOMAIN,
          "refusing to generate file name for disk '%s'".formatted(disk.target()));
    }
    return disk.active().file() + "." + suffix;
  }

  private static void checkFree(LiveDisk disk) throws LibvirtException {
    BlockJobs.checkSupported(disk);
    if (disk.job() != null) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "disk '%s' has a blockjob assigned".formatted(disk.target()));
    }
  }

  private void checkIncrement(Wanted wanted) throws LibvirtException {
    if (wanted.incremental().isEmpty()) {
      return;
    }
    LiveDisk disk = wanted.disk();
    String name = wanted.incremental().get();
    // The one to come is there already, but not its bitmap.
    boolean known = checkpoint.equals(wanted.incremental());
    if (!known && domain.checkpoints().tree().find(name).isEmpty()) {
      throw ErrorCode.NO_DOMAIN_CHECKPOINT.because(
          "Checkpoint '%s' for incremental backup of disk '%s' not found"
              .formatted(name, disk.target()));
    }
    Optional<BitmapState> bitmap = domain.upkeep().bitmap(session, disk, name);
    if (bitmap.isEmpty() || bitmap.get().inconsistent() || !bitmap.get().recording()) {
      LOG.log(
          Level.WARNING,
          "{0}: no increment of disk {1} since checkpoint {2}: {3}",
          domain.name(),
          disk.target(),
          name,
          bitmap.isEmpty()
              ? "its bitmap is not there"
              : "its bitmap did not record all the time, as after a crash");
      throw ErrorCode.CHECKPOINT_INCONSISTENT.because(
          "missing or broken bitmap '%s' for disk '%s'".formatted(name, disk.target()));
    }
  }

  /// Where a disk's bytes go.
  private BackupJob.Disk place(Wanted wanted, int index, boolean reuse, Set<Path> files)
      throws LibvirtException {
    LiveDisk disk = wanted.disk();
    String file =
        wanted
            .file()
            .orElseThrow(() ->
                ErrorCode.INTERNAL_ERROR.in(
                    ErrorDomain.NONE,
                    "disk '%s': argument key 'filename' must not have null value"
                        .formatted(disk.target())));
    Path path = DiskElement.path(file);
    boolean twice = !files.add(path.normalize());
    boolean device = wanted.device();
    Optional<ImageService.FileStatus> there = domain.upkeep().fileStatus(path);
    if (device) {
      checkDevice(path, there);
    } else if (!reuse && there.isPresent()) {
      throw exists(path, disk);
    }
    if (twice) {
      throw exists(path, disk);
    }
    boolean ours = !reuse && !device;
    if (!ours) {
      BlockCopies.checkUnused(live, path);
    }
    Path written = ours && !xml.pull() ? partialName(path) : path;
    Storage storage = device ? new Storage.Device(written) : new Storage.LocalFile(written);
    Layer node = new Layer(index, storage, wanted.format());
    return new BackupJob.Disk(
        disk.target(),
        "backup-%s-%s".formatted(disk.target(), node.nodeName()),
        node,
        file,
        new BackupJob.Making(
            ours,
            device && !reuse && !wanted.format().equals("raw"),
            ours && xml.pull() ? Optional.of(partialName(path)) : Optional.empty()),
        wanted.incremental(),
        new BackupJob.Offer(wanted.exportName(), wanted.exportBitmap()));
  }

  private static LibvirtException exists(Path path, LiveDisk disk) {
    return ErrorCode.INVALID_ARG.because(
        "store '%s' for backup of '%s' exists".formatted(path, disk.target()));
  }

  private static void checkDevice(Path path, Optional<ImageService.FileStatus> there)
      throws LibvirtException {
    if (there.isEmpty()) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "could not open '%s': No such file or directory".formatted(path));
    }
    if (there.get().kind() != ImageService.FileKind.BLOCK_DEVICE) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "could not open '%s': it is not a block device".formatted(path));
    }
  }

  private Path partialName(Path file) {
    String random = context.environment().uuids().get().toString().substring(0, 8);
    String end = "." + random + PARTIAL_SUFFIX;
    String name = file.getFileName() == null ? "" : file.getFileName().toString();
    while (("." + name + end).getBytes(StandardCharsets.UTF_8).length > MAX_FILE_NAME_BYTES) {
      name = name.substring(0, name.length() - 1);
    }
    return file.resolveSibling("." + name + end);
  }
}
