// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.SnapshotDocument.Location;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.TransactionAction;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Takes one external snapshot of disks: overlays are put over them. Called with the domain's lock
/// held.
///
/// **Crash order, running domain.** What is on disk after each step, and what a restart makes of
/// it:
///
/// 1. Overlays are made, synced, and opened. Restart: the old chains; the overlays are strangers.
/// 2. The live record is replaced: it names the overlays as tops of all disks, and the snapshot as
///    pending. **This is the commit point.** Restart: the new chains are taken up. The overlays are
///    empty, so each disk reads as its guest last wrote it, and the snapshot is of the instant at
///    which the daemon ended: of all disks, or of none.
/// 3. The persistent definition is changed to the overlays, durably, before the first guest write
///    may go to one: after a power cut, which takes the live record away, it leads to all that the
///    guest flushed. Restart from 2 does this too.
/// 4. The snapshot's document is written. Restart from 2 or 3 does this too.
/// 5. In one drain of all drives their old tops are flushed and the overlays become tops.
/// 6. The live record is replaced without the pending snapshot.
///
/// A failure from 2 to 5 takes the steps back in the reverse order. When the record, or the
/// definition, cannot be brought back, the overlay files stay: what names them still reads right.
///
/// **Shut-off domain.** Overlays are made and synced; the definition is replaced, which is the
/// commit point, with the snapshot beside it as pending; the document is written; the definition is
/// replaced without the pending one.
final class ExternalSnapshot {
  private static final System.Logger LOG = System.getLogger(ExternalSnapshot.class.getName());

  private final DomainLife domain;
  private final DomainContext context;
  private final SnapshotDocument snapshot;
  private final boolean reuse;
  private final boolean metadata;
  private final List<Path> created = new ArrayList<>();

  /// @param reuse the client made the overlays
  /// @param metadata whether the snapshot is remembered
  ExternalSnapshot(
      DomainLife domain,
      DomainContext context,
      SnapshotDocument snapshot,
      boolean reuse,
      boolean metadata) {
    this.domain = domain;
    this.context = context;
    this.snapshot = snapshot;
    this.reuse = reuse;
    this.metadata = metadata;
  }

  /// An overlay and the disk it goes over.
  private record Overlay(Disk request, LiveDisk disk, Layer layer) {
    Path file() {
      return Path.of(layer.file());
    }
  }

  static Path fileOf(Disk disk) throws LibvirtException {
    return DiskElement.path(
        disk.path()
            .orElseThrow(() ->
                ErrorCode.INTERNAL_ERROR.because(
                    "disk '%s': a snapshot to type '%s' is not supported"
                        .formatted(disk.name(), disk.type()))));
  }

  static String formatOf(Disk disk) {
    return disk.format().orElse("qcow2");
  }

  void takeOfRunning(Session session) throws LibvirtException {
    List<Overlay> overlays = new ArrayList<>();
    List<String> nodes = new ArrayList<>();
    boolean done = false;
    try {
      for (Disk request : snapshot.external()) {
        overlays.add(make(session, request));
      }
      for (Overlay overlay : overlays) {
        addNode(session, overlay);
        nodes.add(overlay.layer().nodeName());
      }
      commit(session, overlays);
      done = true;
    } finally {
      if (!done) {
        nodes.forEach(node -> domain.upkeep().removeNode(session, node));
        created.forEach(domain.upkeep()::deleteFile);
      }
    }
  }

  private Overlay make(Session session, Disk request) throws LibvirtException {
    LiveDisk disk = session.live().disk(request.name());
    Layer below = disk.active();
    Path file = fileOf(request);
    BlockCopies.checkUnused(session.live(), file);
    if (!reuse) {
      long capacity;
      try {
        capacity = session.driver().sizes(disk.target()).capacity();
      } catch (DriverException e) {
        throw DriverErrors.toClient("ask the size of disk '%s'".formatted(disk.target()), e);
      }
      create(request, file, capacity, below.file(), below.format());
    }
    return new Overlay(
        request, disk, new Layer(session.live().takeIndex(), file.toString(), formatOf(request)));
  }

  private void create(Disk request, Path file, long capacity, String below, String belowFormat)
      throws LibvirtException {
    if (created.contains(file)) {
      throw ErrorCode.OPERATION_FAILED.because(
          "failed to format image: 'Failed to get \"write\" lock'"); // another disk's overlay
    }
    boolean existed = domain.upkeep().fileStatus(file).isPresent();
    try {
      context
          .images()
          .create(
              file,
              formatOf(request),
              capacity,
              Optional.of(new ImageService.Backing(below, Optional.of(belowFormat))));
    } catch (DriverException e) {
      String why = domain.upkeep().whyNotCreated(file, e);
      if (domain.runningSession().isPresent()) {
        throw new LibvirtException(
            ErrorCode.SYSTEM_ERROR,
            ErrorDomain.HYPERVISOR,
            "failed to create image file '%s': %s".formatted(file, why),
            e);
      }
      throw new LibvirtException(
          ErrorCode.INTERNAL_ERROR,
          ErrorDomain.NONE,
          "internal error: cannot create image file '%s': %s".formatted(file, why),
          e);
    }
    if (!existed) {
      created.add(file);
    }
  }

  /// The overlay is opened alone: what it stands on is put beneath at the instant, whatever its
  /// header names.
  private void addNode(Session session, Overlay overlay) throws LibvirtException {
    boolean readOnly = overlay.disk().element().readOnly();
    Layer layer = overlay.layer();
    try {
      session
          .driver()
          .addNode(
              new NodeSpec(
                      layer.nodeName(), overlay.file(), layer.format(), readOnly, Optional.empty())
                  .by(overlay.disk().element().way()));
    } catch (DriverException e) {
      throw DriverErrors.toClient(
          "add the overlay of disk '%s'".formatted(overlay.disk().target()), e);
    }
  }

  /// How far the commit came.
  private enum Step {
    NOTHING,
    RECORD,
    DEFINITION,
    DOCUMENT
  }

  private void commit(Session session, List<Overlay> overlays) throws LibvirtException {
    Live live = session.live();
    Optional<Definition> definitionBefore = domain.persistentDefinition();
    List<TransactionAction> actions = new ArrayList<>();
    for (Overlay overlay : overlays) {
      actions.add(
          new TransactionAction.Snapshot(overlay.disk().target(), overlay.layer().nodeName()));
    }
    overlays.forEach(overlay -> overlay.disk().pushOverlay(overlay.layer()));
    live.pendingSnapshot(new Live.PendingSnapshot(snapshot, metadata));
    Step step = Step.NOTHING;
    LibvirtException failure;
    try {
      domain.stored().putLive(session.live());
      step = Step.RECORD;
      changeDefinition(domain, live, snapshot);
      step = Step.DEFINITION;
      if (metadata) {
        domain.snapshots().put(snapshot, true);
      }
      step = Step.DOCUMENT;
      session.driver().transaction(actions);
      live.pendingSnapshot(null);
      domain.stored().putLiveOrLog(session.live());
      return;
    } catch (DriverException e) {
      failure = DriverErrors.toClient("execute the snapshot's transaction", e);
    } catch (IOException e) {
      failure =
          step == Step.DEFINITION
              ? domain.snapshots().cannotSave(snapshot.name(), e)
              : domain.upkeep().cannotWrite(e);
    }
    takeBack(session, overlays, definitionBefore.orElse(null), step);
    throw failure;
  }

  private void takeBack(
      Session session, List<Overlay> overlays, @Nullable Definition before, Step step) {
    overlays.forEach(overlay -> overlay.disk().popOverlay());
    session.live().pendingSnapshot(null);
    boolean named = false;
    try {
      domain
          .stored()
          .putLive(
              session.live()); // even when it was not written: the store may hold it all the same
    } catch (IOException e) {
      LOG.log(Level.ERROR, domain.name() + ": live record, after a snapshot that failed", e);
      named = true;
    }
    if (before != null && step != Step.NOTHING) {
      try {
        domain.stored().redefine(before);
      } catch (IOException e) {
        LOG.log(Level.ERROR, domain.name() + ": definition, after a snapshot that failed", e);
        named = true;
      }
    }
    if (metadata && step.compareTo(Step.DEFINITION) >= 0) {
      domain.snapshots().forget(snapshot);
    }
    if (named) {
      created.clear(); // a record leads to them
    }
  }

  /// Puts the overlays into the persistent definition, where it names what they are over.
  static void changeDefinition(DomainLife domain, Live live, SnapshotDocument snapshot)
      throws IOException {
    Optional<Definition> definition = domain.persistentDefinition();
    if (definition.isEmpty()) {
      return;
    }
    Definition changed = definition.get().copy();
    boolean any = false;
    for (Disk request : snapshot.external()) {
      Optional<LiveDisk> disk = live.find(request.name());
      Optional<DiskElement> persistent = changed.disk(request.name());
      if (disk.isPresent() && persistent.isPresent() && disk.get().layers().size() > 1) {
        Layer overlay = disk.get().active();
        String below = disk.get().layers().get(1).file();
        if (persistent.get().source().equals(Optional.of(below))
            && request.path().equals(Optional.of(overlay.file()))) {
          persistent.get().pushOverlay(overlay.storage(), overlay.format());
          any = true;
        }
      }
    }
    if (any) {
      domain.stored().redefine(changed);
    }
  }

  /// Finishes what a daemon that ended had committed. The record goes on naming the snapshot as
  /// pending until it is written the next time.
  static void recover(DomainLife domain, Live live) {
    Live.PendingSnapshot pending = live.pendingSnapshot();
    if (pending == null) {
      return;
    }
    SnapshotDocument snapshot = pending.snapshot();
    try {
      changeDefinition(domain, live, snapshot);
      if (pending.metadata() && domain.snapshots().tree().find(snapshot.name()).isEmpty()) {
        domain.snapshots().put(snapshot, true);
      }
      live.pendingSnapshot(null);
    } catch (IOException e) {
      LOG.log(Level.ERROR, "%s: snapshot %s".formatted(domain.name(), snapshot.name()), e);
    }
  }

  void takeOfShutOff(Definition definition) throws LibvirtException {
    Definition changed = definition.copy();
    boolean done = false;
    try {
      for (Disk request : snapshot.external()) {
        DiskElement disk = changed.disk(request.name()).orElseThrow();
        Path file = fileOf(request);
        String below = disk.source().orElseThrow(() -> noMedium(request));
        if (!reuse) {
          long capacity =
              context.chains().inspect(DiskElement.path(below), disk.format()).virtualSizeBytes();
          create(request, file, capacity, below, disk.format());
        } else {
          context.chains().inspect(file, formatOf(request));
        }
        disk.setSource(file.toString(), formatOf(request));
        disk.setBacking(Optional.empty());
      }
      domain.stored().redefine(changed, metadata ? Optional.of(snapshot) : Optional.empty());
      done = true;
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    } finally {
      if (!done) {
        created.forEach(domain.upkeep()::deleteFile);
      }
    }
    domain.snapshots().finishPending();
  }

  static LibvirtException noMedium(Disk disk) {
    return ErrorCode.INTERNAL_ERROR.because(
        "failed to update capacity data for block node of empty drive '%s'".formatted(disk.name()));
  }

  /// What a client's request for external overlays must meet before anything is made.
  static void check(DomainLife domain, Disk request, boolean reuse) throws LibvirtException {
    if (!request.is(Location.EXTERNAL)) {
      return;
    }
    String format = formatOf(request);
    if (!format.equals("qcow2")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "external snapshot format for disk %s is unsupported: %s"
              .formatted(request.name(), format));
    }
    Path file = fileOf(request);
    Optional<ImageService.FileStatus> status = domain.upkeep().fileStatus(file);
    if (status.isEmpty()) {
      if (request.type().equals("block") && !reuse) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "block device snapshot target '%s' doesn't exist".formatted(file));
      }
      if (reuse) {
        throw ErrorCode.SYSTEM_ERROR.because(
            "missing existing file for disk %s: %s: No such file or directory"
                .formatted(request.name(), file));
      }
      return;
    }
    boolean device = status.get().kind() == ImageService.FileKind.BLOCK_DEVICE;
    boolean folder = status.get().kind() == ImageService.FileKind.DIRECTORY;
    if (folder || device != request.type().equals("block")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          ("mismatch between configured type for snapshot disk '%s' and the type of existing file"
                  + " '%s'")
              .formatted(request.name(), file));
    }
    boolean empty =
        status.get().kind() == ImageService.FileKind.REGULAR && status.get().lengthBytes() == 0;
    if (!reuse && !device && !empty) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "external snapshot file for disk %s already exists and is not a block device: %s"
              .formatted(request.name(), file));
    }
    if (device) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "'%s': a snapshot to a block device is not supported".formatted(file));
    }
  }
}
