// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.spi.DriverException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Deletes snapshots. Called with the domain's lock held; it is given up while jobs are waited for.
///
/// An external one is deleted as libvirt 9.0 does it: what its overlays hold is committed into what
/// they stand on, and their files are removed: the job's crash order, see [BlockJobs], for each
/// disk. The document goes last. After a crash between, the disks that were done are done, and the
/// document is still there; it can be removed with METADATA_ONLY. The images of a domain shut off
/// are opened for it as by a paused start that nobody is told of; a crash ends that as well.
record SnapshotDeletion(DomainLife domain, DomainContext context) {
  private static final System.Logger LOG = System.getLogger(SnapshotDeletion.class.getName());

  void delete(SnapshotDocument snapshot, int flags) throws LibvirtException {
    boolean withChildren = Flags.has(flags, Flags.SNAPSHOT_DELETE_CHILDREN);
    boolean onlyChildren = Flags.has(flags, Flags.SNAPSHOT_DELETE_CHILDREN_ONLY);
    List<SnapshotDocument> doomed = new ArrayList<>();
    boolean data = !Flags.has(flags, Flags.SNAPSHOT_DELETE_METADATA_ONLY);
    if (withChildren || onlyChildren) {
      doomed.addAll(domain.snapshots().tree().descendants(snapshot).reversed()); // leaves first
      if (data) {
        requireInternal(doomed);
      }
    }
    if (data && withChildren && snapshot.isExternal()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "deletion of external disk snapshots with children not supported");
    }
    if (!onlyChildren) {
      doomed.add(snapshot);
    }
    if (data) {
      requireDeletable(doomed);
    }
    for (SnapshotDocument one : doomed) {
      if (data) {
        deleteData(one);
      }
      Optional<SnapshotDocument> left = domain.snapshots().tree().find(one.name());
      if (left.isPresent()) { // nobody else removed it while a job was waited for
        domain.snapshots().remove(left.get());
      }
    }
  }

  private static void requireInternal(List<SnapshotDocument> children) throws LibvirtException {
    long external = children.stream().filter(SnapshotDocument::isExternal).count();
    if (external > 0) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          external == children.size()
              ? "deletion of external children disk snapshots not supported"
              : "deletion of external and internal children disk snapshots not supported");
    }
  }

  private void requireDeletable(List<SnapshotDocument> doomed) throws LibvirtException {
    long external = doomed.stream().filter(SnapshotDocument::isExternal).count();
    Optional<Session> running = domain.runningSession();
    if (external > 0 && running.filter(session -> session.live().hasBlockJob()).isPresent()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "cannot delete external snapshots when there is another active block job");
    }
    if (external < doomed.size() && running.isPresent()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "an internal snapshot of a running domain cannot be deleted; shut it off first");
    }
  }

  private void deleteData(SnapshotDocument snapshot) throws LibvirtException {
    Optional<Session> running = domain.runningSession();
    if (!snapshot.isExternal()) {
      new InternalSnapshot(domain, context).delete(snapshot);
    } else if (running.isPresent()) {
      new Commits(running.get()).run(snapshot);
    } else {
      requireKnown(snapshot);
      Session session = domain.startUntold();
      try {
        new Commits(session).run(snapshot);
      } finally {
        domain.endUntold(session);
      }
    }
  }

  /// libvirt 9.0 knows of a domain shut off only the images that its definition names.
  private void requireKnown(SnapshotDocument snapshot) throws LibvirtException {
    for (Disk disk : snapshot.external()) {
      Optional<DiskElement> element =
          domain.persistentDefinition().flatMap(definition -> definition.disk(disk.name()));
      boolean known =
          element
              .filter(found -> found.backing().isPresent() || found.source().equals(disk.path()))
              .isPresent();
      if (!known) {
        throw noSuchOverlay();
      }
    }
  }

  private static LibvirtException noSuchOverlay() {
    return ErrorCode.INVALID_ARG.in(
        ErrorDomain.STORAGE, "could not find base disk source in disk source chain");
  }

  /// The jobs that put the overlays of one snapshot into what they stand on.
  private final class Commits {
    private final Session session;
    private final List<BlockJob> jobs = new ArrayList<>();

    Commits(Session session) {
      this.session = session;
    }

    private record Place(LiveDisk disk, Layer overlay, Layer below, boolean active) {}

    private Place place(Disk of) throws LibvirtException {
      Optional<LiveDisk> disk = session.live().find(of.name());
      if (disk.isPresent()) {
        List<Layer> layers = disk.get().layers();
        for (int i = 0; i < layers.size(); i++) {
          if (of.path().equals(Optional.of(layers.get(i).file()))) {
            if (i == layers.size() - 1) {
              throw ErrorCode.OPERATION_FAILED.because(
                  "failed to find parent disk source in backing chain");
            }
            return new Place(disk.get(), layers.get(i), layers.get(i + 1), i == 0);
          }
        }
      }
      throw noSuchOverlay();
    }

    void run(SnapshotDocument snapshot) throws LibvirtException {
      List<Place> places = new ArrayList<>();
      for (Disk disk : snapshot.external()) {
        places.add(place(disk));
      }
      boolean done = false;
      try {
        for (Place place : places) {
          jobs.add(domain.chainJobs().commit(session, place.disk().target(), request(place)));
        }
        for (int i = 0; i < places.size(); i++) {
          awaitReady(jobs.get(i));
        }
        for (int i = 0; i < places.size(); i++) { // one by one: clients are told in this order
          if (places.get(i).active()) {
            domain.jobs().abort(session, places.get(i).disk(), jobs.get(i), true);
          }
          awaitEnd(jobs.get(i));
        }
        done = true;
      } finally {
        if (!done) {
          cancelAll(places);
        }
      }
    }

    private ChainJobs.CommitRequest request(Place place) {
      return new ChainJobs.CommitRequest(
          Optional.of(place.below().file()),
          Optional.of(place.overlay().file()),
          false,
          true,
          place.active(),
          false,
          0);
    }

    /// A job that does not wait for a pivot is over instead.
    private void awaitReady(BlockJob job) throws LibvirtException {
      while (!job.ready() && !job.over()) {
        domain.changed().awaitUninterruptibly();
      }
      if (job.over()) {
        requireCompleted(job);
      }
    }

    private void awaitEnd(BlockJob job) throws LibvirtException {
      while (!job.over()) {
        domain.changed().awaitUninterruptibly();
      }
      requireCompleted(job);
    }

    private void requireCompleted(BlockJob job) throws LibvirtException {
      if (job.outcome() != BlockJobStatus.COMPLETED) {
        String why = job.failure() == null ? "it was cancelled" : job.failure();
        throw ErrorCode.OPERATION_FAILED.because(
            "block commit job '%s' did not complete: %s".formatted(job.id(), why));
      }
    }

    private void cancelAll(List<Place> places) {
      for (int i = 0; i < jobs.size(); i++) {
        BlockJob job = jobs.get(i);
        if (job.over() || !domain.isCurrent(session)) {
          continue;
        }
        try {
          session.driver().cancelJob(job.id());
        } catch (DriverException e) {
          LOG.log(
              Level.WARNING,
              "%s: cancel %s of %s"
                  .formatted(domain.name(), job.id(), places.get(i).disk().target()),
              e);
        }
      }
      session.watch().poke();
    }
  }
}
