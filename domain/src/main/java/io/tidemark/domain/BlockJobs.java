// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The life of block jobs of one domain, from their start to their last event, whatever they do.
/// [BlockCopies] and [ChainJobs] start them. Every method is called with the domain's lock held.
///
/// **Crash order of a job that takes effect.** What is on disk after each step, and what a restart
/// makes of it:
///
/// 1. The live record names the job as running. Restart: the old chain is taken up, the job is
///    reported failed; what it wrote stays: a copy's file is worth nothing, an image of the chain
///    reads as before.
/// 2. The driver reports PENDING: the drive is drained, and the old chain and the new one read the
///    same, flushed. Restart: as 1.
/// 3. The live record is replaced; it names the new chain as the disk's and the job as `changed`.
///    **This is the commit point.** Restart: the new chain is taken up. Nothing is lost, the guest
///    was held since 2.
/// 4. The driver finalizes: the drive is on the copy or the base; or an image's header names
///    another backing file, and the image stands on it. The guest goes on. Restart: as 3; a header
///    that was not yet changed is changed first. When the live records are gone too (the host went
///    down), the headers say which chain it is: either reads the same.
/// 5. The persistent definition is changed. Restart from 3 or 4 does this too, before it takes up
///    the domain.
/// 6. Committed files are removed, if the client wants that. Restart from 3 on does this, after 4.
/// 7. The live record is replaced without the job; events.
///
/// A record that cannot be written at 3 is read back: the store's word decides whether the commit
/// happened. If it cannot be read either, the domain is stopped while the drive is still drained,
/// since both chains hold the same at that instant.
final class BlockJobs {
  private static final System.Logger LOG = System.getLogger(BlockJobs.class.getName());

  private final DomainLife domain;
  private final DomainContext context;

  BlockJobs(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  /// Refuses a disk that a job has; the code tells clients which kind of job.
  static void checkIdle(LiveDisk disk, Live live) throws LibvirtException {
    String text = "disk '%s' already in active block job".formatted(disk.target());
    BlockJob job = disk.job();
    if (job != null) {
      throw (job.change().pivots() ? ErrorCode.BLOCK_COPY_ACTIVE : ErrorCode.OPERATION_UNSUPPORTED)
          .because(text);
    }
    BackupJob backup = live.backup();
    if (backup != null && backup.runsOn(disk.target())) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(text);
    }
  }

  /// Refuses a disk that is thrown away when the domain ends.
  static void checkSupported(LiveDisk disk) throws LibvirtException {
    if (disk.element().isTransient()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "block jobs are not supported on transient disk '%s'".formatted(disk.target()));
    }
  }

  /// What starts a job in the driver.
  @FunctionalInterface
  interface Start {
    void run() throws DriverException;
  }

  /// Gives the disk a job: recorded first, so that a restart knows of it, then started. When it
  /// cannot be started the disk is as before.
  ///
  /// @param what is started, for the message
  void begin(Session session, LiveDisk disk, BlockJob job, String what, Start start)
      throws LibvirtException {
    disk.job(job);
    try {
      domain.stored().putLive(session.live());
      start.run();
    } catch (DriverException e) {
      disk.job(null);
      domain.stored().putLiveOrLog(session.live()); // it named the job
      throw DriverErrors.toClient("start the " + what, e);
    } catch (IOException e) {
      disk.job(null);
      throw domain.upkeep().cannotWrite(e);
    }
  }

  /// virDomainBlockJobAbort. The caller waits for its end, if it wants to.
  void abort(Session session, LiveDisk disk, BlockJob job, boolean pivot) throws LibvirtException {
    if (pivot && !job.ready()) {
      throw notReady(job.id());
    }
    String refusal = job.pivotRefusal();
    if (pivot && refusal != null) {
      throw ErrorCode.INTERNAL_ERROR.because(refusal);
    }
    if (job.phase() != BlockJob.Phase.RUNNING) {
      throw ErrorCode.OPERATION_INVALID.because(
          "block job on disk '%s' is still being ended".formatted(disk.target()));
    }
    try {
      if (pivot) {
        session.driver().completeJob(job.id());
        job.phase(BlockJob.Phase.PIVOTING);
      } else {
        session.driver().cancelJob(job.id());
        job.phase(BlockJob.Phase.ABORTING);
      }
    } catch (DriverException e) {
      switch (e.kind()) {
        case JOB_STATE, NOT_FOUND -> {
          if (pivot) {
            throw notReady(job.id());
          }
          session.watch().poke(); // it is ending by itself
        }
        default -> throw DriverErrors.toClient(pivot ? "complete the job" : "cancel the job", e);
      }
    }
    session.watch().poke();
  }

  static LibvirtException notReady(String jobId) {
    return ErrorCode.BLOCK_COPY_ACTIVE.because(
        "block job '%s' not ready for pivot yet".formatted(jobId));
  }

  /// Brings a job to where the driver says it is.
  ///
  /// @param state empty when the driver has no such job
  void observe(Session session, LiveDisk disk, BlockJob job, Optional<JobState> state) {
    if (state.isEmpty()) {
      conclude(session, disk, job, BlockJobStatus.FAILED, "the driver lost the job");
      return;
    }
    JobState now = state.get();
    switch (now.status()) {
      case UNDEFINED, CREATED, RUNNING, PAUSED, ABORTING, NULL -> {}
      case READY, STANDBY -> ready(disk, job);
      case WAITING -> {
        if (job.phase() == BlockJob.Phase.PIVOTING) {
          ready(disk, job);
        }
      }
      case PENDING -> pending(session, disk, job, now);
      case CONCLUDED -> concluded(session, disk, job, now);
    }
  }

  private void ready(LiveDisk disk, BlockJob job) {
    if (!job.ready()) {
      job.markReady();
      domain.blockJobEvent(disk, job.type(), BlockJobStatus.READY);
      domain.signal();
    }
  }

  private void pending(Session session, LiveDisk disk, BlockJob job, JobState state) {
    boolean wanted =
        job.phase() == BlockJob.Phase.PIVOTING
            || (job.phase() == BlockJob.Phase.RUNNING && !job.change().pivots());
    if (wanted && !state.cancelled()) {
      takeEffect(session, disk, job);
      return;
    }
    if (job.phase() == BlockJob.Phase.CHANGED) {
      return; // being finalized
    }
    try {
      if (state.cancelled()) {
        session.driver().finalizeJob(job.id()); // without effect: lets it conclude
      } else {
        session.driver().cancelJob(job.id());
      }
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "%s: cannot end job %s".formatted(domain.name(), job.id()), e);
    }
  }

  private void takeEffect(Session session, LiveDisk disk, BlockJob job) {
    List<Layer> before = disk.layers();
    boolean explicitBefore = disk.explicitBacking();
    boolean terminatedBefore = disk.terminated();
    List<Layer> after = job.change().after(before);
    if (job.change() instanceof ChainChange.Copy copy && !copy.sharesBacking()) {
      disk.terminated(copy.terminated());
    }
    disk.replaceChain(after, explicitAfter(job.change(), explicitBefore, after));
    job.phase(BlockJob.Phase.CHANGED);
    if (!commit(session, job)) {
      disk.terminated(terminatedBefore);
      disk.replaceChain(before, explicitBefore);
      return;
    }
    try {
      session.driver().finalizeJob(job.id());
    } catch (DriverException e) {
      // The guest reads and writes the old chain: take the commit back before it goes on.
      LOG.log(Level.ERROR, "%s: job %s: not finalized".formatted(domain.name(), job.id()), e);
      job.fail(DriverErrors.reason(e));
      disk.terminated(terminatedBefore);
      disk.replaceChain(before, explicitBefore);
      takeBack(session, job);
      return;
    }
    updateDefinition(disk, job);
    if (job.change().pivots()) {
      disk.element().metadataCache(job.metadataCache());
    }
    before.stream()
        .filter(layer -> !after.contains(layer))
        .findFirst()
        .ifPresent(layer -> job.retire(layer.nodeName()));
    session.watch().poke();
  }

  /// Whether the inactive form says where the chain ends.
  private static boolean explicitAfter(ChainChange change, boolean before, List<Layer> after) {
    return switch (change) {
      case ChainChange.Copy copy -> copy.sharesBacking() ? before : copy.mirror().size() == 1;
      case ChainChange.ActiveCommit _ -> before || after.size() == 1;
      case ChainChange.Pull pull -> before || pull.base().isEmpty();
      case ChainChange.Commit _ -> before;
    };
  }

  /// Writes the record with the new chain. False when the job was given up instead.
  private boolean commit(Session session, BlockJob job) {
    String wanted = LiveRecord.write(session.live());
    try {
      context.state().put(StateStore.Kind.LIVE, domain.name(), wanted);
      return true;
    } catch (IOException e) {
      LOG.log(Level.ERROR, "%s: job %s: live record".formatted(domain.name(), job.id()), e);
      job.fail("cannot write the live record: " + e.getMessage());
    }
    Optional<Boolean> committed = storeHolds(wanted);
    if (committed.isEmpty()) {
      domain.stopForSafety(session, "the live record can be neither written nor read");
      return false;
    }
    if (committed.get()) {
      return true;
    }
    giveUp(session, job);
    return false;
  }

  private Optional<Boolean> storeHolds(String wanted) {
    try {
      return Optional.of(
          context.state().all(StateStore.Kind.LIVE).stream()
              .anyMatch(document ->
                  document.key().equals(domain.name()) && document.xml().equals(wanted)));
    } catch (IOException e) {
      LOG.log(Level.ERROR, domain.name() + ": live record cannot be read", e);
      return Optional.empty();
    }
  }

  private void takeBack(Session session, BlockJob job) {
    job.phase(BlockJob.Phase.ABORTING);
    try {
      domain.stored().putLive(session.live());
    } catch (IOException e) {
      LOG.log(Level.ERROR, "%s: job %s: live record".formatted(domain.name(), job.id()), e);
      domain.stopForSafety(session, "a pivot can be neither finished nor taken back");
      return;
    }
    giveUp(session, job);
  }

  private void giveUp(Session session, BlockJob job) {
    job.phase(BlockJob.Phase.ABORTING);
    try {
      session.driver().cancelJob(job.id());
    } catch (DriverException e) {
      LOG.log(Level.DEBUG, "%s: cannot cancel job %s".formatted(domain.name(), job.id()), e);
    }
    session.watch().poke();
  }

  /// Changes the persistent definition as libvirt does at a job's end, if it still names the old
  /// source: a copy under TRANSIENT_JOB and a commit of the active layer change the source. What
  /// the definition says of the chain beneath is cut where the job cut the chain; where it says
  /// nothing of the base, nothing is said any more, and the next start asks the images.
  void updateDefinition(LiveDisk disk, BlockJob job) {
    Optional<DiskElement> persistent =
        domain
            .persistentDefinition()
            .flatMap(found -> found.disk(disk.target()))
            .filter(found -> found.source().equals(Optional.of(job.sourceFile())));
    if (persistent.isEmpty()) {
      return;
    }
    DiskElement element = persistent.get();
    if (!job.change().pivots() && element.backing().isEmpty()) {
      return; // it says nothing of the chain
    }
    switch (job.change()) {
      case ChainChange.Copy copy -> {
        if (!copy.updatesDefinition()) {
          return;
        }
        element.setSource(disk.active().storage(), disk.active().format());
        if (!copy.sharesBacking()) {
          element.setBacking(shownBacking(disk));
        } else if (element
            .backing()
            .map(List::size)
            .equals(Optional.of(disk.layers().size() - 1))) {
          // It names all of the chain, so the copy of it that libvirt writes shows the end.
          element.setBacking(DomainXml.backingStore(disk.layers(), false, disk.terminated()));
        }
      }
      case ChainChange.ActiveCommit commit -> {
        Optional<XmlElement> base = element.store(commit.base().file());
        Optional<XmlElement> beneath =
            base.isPresent() ? base.get().child("backingStore") : shownBacking(disk);
        element.setSource(commit.base().storage(), commit.base().format());
        element.setBacking(beneath);
      }
      case ChainChange.Pull pull ->
          element.setBacking(
              pull.base().isPresent()
                  ? element.store(pull.base().get().layer().file())
                  : Optional.of(new XmlElement("backingStore")).filter(_ -> element.backingEnds()));
      case ChainChange.Commit commit -> {
        Optional<XmlElement> base = element.store(commit.base().layer().file());
        Optional<XmlElement> overlay = element.store(commit.overlay().file());
        if (base.isPresent() && overlay.isPresent()) {
          overlay.get().removeChildren("backingStore");
          overlay.get().add(base.get());
        } else {
          element.setBacking(base);
        }
      }
    }
    domain.stored().putOrLog();
  }

  private static Optional<XmlElement> shownBacking(LiveDisk disk) {
    return disk.explicitBacking()
        ? DomainXml.backingStore(disk.layers(), false, disk.terminated())
        : Optional.empty();
  }

  private void concluded(Session session, LiveDisk disk, BlockJob job, JobState state) {
    try {
      session.driver().dismissJob(job.id());
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "%s: cannot dismiss job %s".formatted(domain.name(), job.id()), e);
    }
    if (job.phase() == BlockJob.Phase.CHANGED) {
      if (state.error().isPresent()) {
        LOG.log(
            Level.WARNING,
            "%s: job %s after its effect".formatted(domain.name(), job.id()),
            state.error().get());
      }
      conclude(session, disk, job, BlockJobStatus.COMPLETED, "");
    } else if (state.error().isPresent()) {
      LOG.log(
          Level.WARNING,
          "%s: job %s failed".formatted(domain.name(), job.id()),
          state.error().get());
      conclude(session, disk, job, BlockJobStatus.FAILED, DriverErrors.reason(state.error().get()));
    } else if (state.cancelled() && job.failure() == null) {
      conclude(session, disk, job, BlockJobStatus.CANCELED, "");
    } else {
      conclude(session, disk, job, BlockJobStatus.FAILED, "the job ended before its effect");
    }
  }

  private void conclude(
      Session session, LiveDisk disk, BlockJob job, BlockJobStatus how, String why) {
    boolean completed = how == BlockJobStatus.COMPLETED;
    String unused = job.retiredNode();
    if (!completed && !job.mirror().isEmpty()) {
      unused = job.mirror().getFirst().nodeName();
    }
    if (unused != null) {
      domain.upkeep().removeNode(session, unused);
    }
    if (completed) {
      deleteCommitted(job);
    }
    job.end(how, why);
    disk.job(null);
    // While the definition cannot be written, the record goes on naming the changed job, from which
    // a restart changes the definition.
    if (!completed || domain.stored().pay()) {
      domain.stored().putLiveOrLog(session.live());
    }
    domain.blockJobEvent(disk, job.type(), how);
    domain.signal();
  }

  private void deleteCommitted(BlockJob job) {
    for (String file : job.change().toDelete()) {
      domain.upkeep().deleteFile(Path.of(file));
    }
  }

  /// After a restart of the daemon that does not take the domain up again: what a job behind its
  /// commit point was to remove goes, where no header names it.
  void dropped(@Nullable BlockJob job) {
    if (job != null
        && job.phase() == BlockJob.Phase.CHANGED
        && job.change().headerChange().isEmpty()) {
      deleteCommitted(job);
    }
  }

  /// After a restart of the daemon: a job before its commit point failed, one behind it is
  /// finished.
  ///
  /// @param disk already on the chain that the record names
  void recover(Session taken, LiveDisk disk, BlockJob job) {
    boolean changed = job.phase() == BlockJob.Phase.CHANGED;
    disk.job(null);
    if (changed) {
      if (headerChanged(taken, job)) {
        deleteCommitted(job);
      }
    } else {
      LOG.log(
          Level.WARNING,
          "{0}: block job {1} failed: the daemon ended during it",
          domain.name(),
          job.id());
      taken
          .live()
          .remember(
              "block job %s of disk '%s' failed: the daemon ended during it"
                  .formatted(job.id(), disk.target()));
    }
    domain.blockJobEvent(
        disk, job.type(), changed ? BlockJobStatus.COMPLETED : BlockJobStatus.FAILED);
  }

  /// Makes an image's header name what it stands on, which the last daemon may not have come to.
  private boolean headerChanged(Session taken, BlockJob job) {
    Optional<ChainChange.HeaderChange> wanted = job.change().headerChange();
    if (wanted.isEmpty()) {
      return true;
    }
    ChainChange.HeaderChange change = wanted.get();
    if (change.overlay().format().equals("raw")) {
      return true; // names nothing
    }
    Optional<ImageService.Backing> backing =
        change
            .backing()
            .map(base ->
                new ImageService.Backing(base.recorded(), Optional.of(base.layer().format())));
    try {
      taken.driver().changeBackingFile(change.overlay().nodeName(), backing);
      return true;
    } catch (DriverException e) {
      LOG.log(
          Level.ERROR,
          "%s: %s still names its old backing file, which is kept"
              .formatted(domain.name(), change.overlay().file()),
          e);
      return false;
    }
  }
}
