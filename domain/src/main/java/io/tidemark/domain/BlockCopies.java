// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Block copies of one domain: from the checks of virDomainBlockCopy to the last event. Every
/// method is called with the domain's lock held.
///
/// **Crash order of a pivot.** What is on disk after each step, and what a restart makes of it:
///
/// 1. The live record names the job as running. Restart: the old chain is taken up, the job is
///    reported failed; the copy's file stays, as after any failed copy.
/// 2. The driver reports PENDING: the drive is drained, both sides hold the same, flushed. Restart:
///    as 1.
/// 3. The live record is replaced; it names the copy's chain as the disk's and the job as pivoted.
///    **This is the commit point.** Restart: the new chain is taken up. Nothing is lost, the guest
///    was held since 2.
/// 4. The driver finalizes: the drive writes to the copy, the guest goes on. Restart: as 3.
/// 5. The persistent definition is changed (TRANSIENT_JOB). Restart from 3 or 4 does this too,
///    before it takes up the domain.
/// 6. The live record is replaced without the job; events.
///
/// A record that cannot be written at 3 is read back: the store's word decides whether the commit
/// happened. If it cannot be read either, the domain is stopped while the drive is still drained,
/// since both chains hold the same at that instant.
final class BlockCopies {
  private static final System.Logger LOG = System.getLogger(BlockCopies.class.getName());

  /// Most MiB/s that fit bytes/s.
  static final long MAX_MIB_PER_SECOND = Long.MAX_VALUE >> 20;

  private final DomainLife domain;
  private final DomainContext context;

  BlockCopies(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  /// Where a copy goes and how.
  ///
  /// @param format absent: the source's, or what the file shows with `reuse`
  /// @param device the client says it is a block device
  /// @param backing given in the destination's XML
  record Request(
      String file,
      Optional<String> format,
      boolean device,
      Optional<List<DiskElement.Image>> backing,
      boolean shallow,
      boolean reuse,
      boolean transientJob,
      Tuning tuning) {}

  /// @param bandwidthBytesPerSecond 0: no limit
  /// @param granularityBytes 0: the default
  /// @param bufferBytes 0: the default
  record Tuning(
      long bandwidthBytesPerSecond,
      int granularityBytes,
      long bufferBytes,
      boolean synchronousWrites) {}

  /// Refuses a disk that a job has; the code tells clients which kind of job.
  static void checkIdle(LiveDisk disk, Live live) throws LibvirtException {
    String text = "disk '%s' already in active block job".formatted(disk.target());
    if (disk.copy() != null) {
      throw ErrorCode.BLOCK_COPY_ACTIVE.because(text);
    }
    BackupJob backup = live.backup();
    if (backup != null && backup.runsOn(disk.target())) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(text);
    }
  }

  void start(Session session, String diskName, Request request) throws LibvirtException {
    Live live = session.live();
    LiveDisk disk = live.disk(diskName);
    if (disk.element().isTransient()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "block jobs are not supported on transient disk '%s'".formatted(disk.target()));
    }
    checkIdle(disk, live);
    if (domain.persistentDefinition().isPresent() && !request.transientJob()) {
      throw ErrorCode.OPERATION_INVALID.because("domain is not transient");
    }
    if (!disk.hasMedium()) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "failed to update capacity data for block node of empty drive '%s'"
              .formatted(disk.target()));
    }
    Path file = destinationPath(request.file());
    if (request.backing().filter(chain -> !chain.isEmpty()).isPresent() && !request.shallow()) {
      throw ErrorCode.INVALID_ARG.because(
          "backingStore of mirror without VIR_DOMAIN_BLOCK_COPY_SHALLOW doesn't make sense");
    }
    boolean shallow = request.shallow() && disk.layers().size() > 1;
    if (shallow && !request.reuse() && request.format().filter("raw"::equals).isPresent()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "shallow copy of disk '%s' into a raw file is not possible".formatted(disk.target()));
    }
    boolean existed = checkDestination(disk, file, request);
    checkUnused(live, file);
    String format = formatOf(request, disk, file);
    startChecked(session, disk, new Plan(request, file, format, shallow, existed));
  }

  /// A request whose checks are behind.
  ///
  /// @param existed the destination was there before, so is not ours to remove
  private record Plan(Request request, Path file, String format, boolean shallow, boolean existed) {
    boolean creates() {
      return !request.reuse();
    }
  }

  private void startChecked(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    if (plan.creates()) {
      create(session, disk, plan);
    }
    boolean started = false;
    try {
      addAndStart(session, disk, plan);
      started = true;
    } finally {
      if (!started && plan.creates() && !plan.existed()) {
        domain.upkeep().deleteFile(plan.file());
      }
    }
  }

  private void create(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    try {
      long capacity = session.driver().sizes(disk.target()).capacity();
      Optional<ImageService.Backing> backing = Optional.empty();
      if (plan.shallow()) {
        Layer beneath = disk.layers().get(1);
        backing =
            Optional.of(new ImageService.Backing(beneath.file(), Optional.of(beneath.format())));
      }
      context.images().create(plan.file(), plan.format(), capacity, backing);
    } catch (DriverException e) {
      throw new LibvirtException(
          ErrorCode.SYSTEM_ERROR,
          ErrorDomain.HYPERVISOR,
          "failed to create copy target: " + domain.upkeep().whyNotCreated(plan.file(), e),
          e);
    }
  }

  private void addAndStart(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    Live live = session.live();
    List<Layer> mirror = mirrorChain(live, disk, plan);
    boolean shares = plan.shallow() && plan.creates();
    Layer top = mirror.getFirst();
    CopyJob job =
        new CopyJob(
            "copy-%s-%s".formatted(disk.target(), disk.active().nodeName()),
            mirror,
            shares,
            !shares,
            plan.request().transientJob() && domain.persistentDefinition().isPresent(),
            disk.active().file());
    Optional<NodeSpec> beneath =
        shares
            ? Optional.of(Layer.nodes(disk.layers().subList(1, disk.layers().size()), true))
            : Layer.nodes(mirror, false).backing();
    boolean fits = fits(session, disk, plan);
    try {
      session
          .driver()
          .addNode(new NodeSpec(top.nodeName(), plan.file(), top.format(), false, beneath));
    } catch (DriverException e) {
      throw DriverErrors.toClient("add the copy's image", e);
    }
    disk.copy(job);
    try {
      domain.putLive(session);
      if (fits) {
        session.driver().startMirror(mirrorSpec(disk, job, plan));
      } else {
        // The call succeeds and the job fails, as with QEMU: the next round finds no such job.
        job.fail("the copy's size is not that of disk '%s'".formatted(disk.target()));
        session.watch().poke();
      }
    } catch (IOException e) {
      disk.copy(null);
      domain.upkeep().removeNode(session, top.nodeName());
      throw e instanceof DriverException failure
          ? dropped(session, failure)
          : domain.upkeep().cannotWrite(e);
    }
  }

  /// Whether a file that was there has the disk's size.
  private boolean fits(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    if (plan.creates()) {
      return true;
    }
    try {
      return context.images().inspect(plan.file(), plan.format()).virtualSizeBytes()
          == session.driver().sizes(disk.target()).capacity();
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask the size of '%s'".formatted(plan.file()), e);
    }
  }

  private LibvirtException dropped(Session session, DriverException failure) {
    domain.putLiveOrLog(session); // it named the job
    return DriverErrors.toClient("start the block copy", failure);
  }

  private static MirrorSpec mirrorSpec(LiveDisk disk, CopyJob job, Plan plan) {
    Tuning tuning = plan.request().tuning();
    return new MirrorSpec(
        job.id(),
        disk.target(),
        job.mirror().getFirst().nodeName(),
        plan.shallow(),
        plan.creates(),
        tuning.granularityBytes(),
        tuning.bandwidthBytesPerSecond(),
        tuning.bufferBytes(),
        tuning.synchronousWrites());
  }

  /// The copy and, for a shallow copy onto a file that is there, what that file stands on: given in
  /// the XML, else as its header says.
  private List<Layer> mirrorChain(Live live, LiveDisk disk, Plan plan) throws LibvirtException {
    Request request = plan.request();
    List<Layer> chain = new ArrayList<>();
    chain.add(new Layer(live.takeIndex(), plan.file().toString(), plan.format()));
    if (plan.shallow() && request.reuse()) {
      List<DiskElement.Image> beneath;
      if (request.backing().isPresent()) {
        beneath = request.backing().get();
      } else {
        List<DiskElement.Image> walked =
            context.chains().walk(plan.file().toString(), plan.format());
        beneath = walked.subList(1, walked.size());
      }
      for (DiskElement.Image image : beneath) {
        chain.add(new Layer(live.takeIndex(), image.file(), image.format()));
      }
    } else if (request.reuse()) {
      context.chains().inspect(plan.file(), plan.format());
    }
    return chain;
  }

  private static Path destinationPath(String file) throws LibvirtException {
    if (!file.startsWith("/")) {
      throw ErrorCode.INVALID_ARG.because("absolute path must be used as block copy target");
    }
    return DiskElement.path(file);
  }

  private boolean checkDestination(LiveDisk disk, Path file, Request request)
      throws LibvirtException {
    Optional<ImageService.FileStatus> status = domain.upkeep().fileStatus(file);
    if (status.isEmpty()) {
      if (request.reuse() || request.device()) {
        throw ErrorCode.SYSTEM_ERROR.because(
            "missing destination file for disk %s: %s: No such file or directory"
                .formatted(disk.target(), file));
      }
      return false;
    }
    ImageService.FileKind kind = status.get().kind();
    boolean device = kind == ImageService.FileKind.BLOCK_DEVICE;
    boolean empty = kind == ImageService.FileKind.REGULAR && status.get().lengthBytes() == 0;
    boolean node = kind == ImageService.FileKind.OTHER;
    if (!request.reuse() && !device && !empty && !(node && request.device())) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "external destination file for disk %s already exists and is not a block device: %s"
              .formatted(disk.target(), file));
    }
    if (request.device() && !device) {
      throw ErrorCode.INVALID_ARG.because(
          "blockdev flag requested for disk %s, but file '%s' is not a block device"
              .formatted(disk.target(), file));
    }
    if (device) {
      throw ErrorCode.INTERNAL_ERROR.because(
          request.device()
              ? "copying to the block device '%s' is not supported".formatted(file)
              : "'%s' is a block device, a regular file is required".formatted(file));
    }
    return true;
  }

  /// A file of this domain's own chains or jobs is no destination; those of others are found out by
  /// their locks.
  static void checkUnused(Live live, Path file) throws LibvirtException {
    Path wanted = file.normalize();
    for (LiveDisk disk : live.disks()) {
      List<Layer> inUse = new ArrayList<>(disk.layers());
      CopyJob copy = disk.copy();
      if (copy != null) {
        inUse.addAll(copy.mirror());
      }
      if (inUse.stream().anyMatch(layer -> Path.of(layer.file()).normalize().equals(wanted))) {
        throw ErrorCode.INTERNAL_ERROR.because(
            "'%s' is in use by disk '%s': Failed to get \"write\" lock"
                .formatted(file, disk.target()));
      }
    }
    BackupJob backup = live.backup();
    if (backup != null
        && backup.disks().stream().anyMatch(disk -> Path.of(disk.node().file()).equals(wanted))) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "'%s' is in use by a backup: Failed to get \"write\" lock".formatted(file));
    }
  }

  private String formatOf(Request request, LiveDisk disk, Path file) throws LibvirtException {
    if (request.format().isPresent()) {
      return request.format().get();
    }
    if (!request.reuse()) {
      return disk.active().format();
    }
    try {
      String probed = context.images().probe(file);
      Definition.checkFormat(probed, "'%s'".formatted(file));
      return probed;
    } catch (DriverException e) {
      throw DriverErrors.toClient("probe '%s'".formatted(file), e);
    }
  }

  /// virDomainBlockJobAbort of a copy. The caller waits for its end, if it wants to.
  void abort(Session session, LiveDisk disk, CopyJob job, boolean pivot) throws LibvirtException {
    if (job.phase() != CopyJob.Phase.RUNNING) {
      throw ErrorCode.OPERATION_INVALID.because(
          "block job on disk '%s' is still being ended".formatted(disk.target()));
    }
    if (pivot && !job.ready()) {
      throw notReady(job.id());
    }
    try {
      if (pivot) {
        session.driver().completeJob(job.id());
        job.phase(CopyJob.Phase.PIVOTING);
      } else {
        session.driver().cancelJob(job.id());
        job.phase(CopyJob.Phase.ABORTING);
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

  /// Brings a copy to where the driver says its job is.
  ///
  /// @param state empty when the driver has no such job
  void observe(Session session, LiveDisk disk, CopyJob job, Optional<JobState> state) {
    if (state.isEmpty()) {
      conclude(session, disk, job, BlockJobStatus.FAILED, "the driver lost the job");
      return;
    }
    JobState now = state.get();
    switch (now.status()) {
      case UNDEFINED, CREATED, RUNNING, PAUSED, ABORTING, NULL -> {}
      case READY, STANDBY -> ready(disk, job);
      case WAITING -> {
        if (job.phase() == CopyJob.Phase.PIVOTING) {
          ready(disk, job);
        }
      }
      case PENDING -> pending(session, disk, job, now);
      case CONCLUDED -> concluded(session, disk, job, now);
    }
  }

  private void ready(LiveDisk disk, CopyJob job) {
    if (!job.ready()) {
      job.markReady();
      domain.blockJobEvent(
          disk.target(), disk.active().file(), BlockJobType.COPY, BlockJobStatus.READY);
    }
  }

  private void pending(Session session, LiveDisk disk, CopyJob job, JobState state) {
    if (job.phase() == CopyJob.Phase.PIVOTING) {
      pivot(session, disk, job);
      return;
    }
    if (job.phase() == CopyJob.Phase.PIVOTED) {
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

  private void pivot(Session session, LiveDisk disk, CopyJob job) {
    List<Layer> before = disk.layers();
    boolean explicitBefore = disk.explicitBacking();
    boolean explicit = job.sharesBacking() ? explicitBefore : job.mirror().size() == 1;
    disk.replaceChain(job.chainAfterPivot(before), explicit);
    job.phase(CopyJob.Phase.PIVOTED);
    if (!commit(session, job)) {
      disk.replaceChain(before, explicitBefore);
      return;
    }
    try {
      session.driver().finalizeJob(job.id());
    } catch (DriverException e) {
      // The drive is still drained and on the old chain: take the commit back before it moves.
      LOG.log(Level.ERROR, "%s: job %s: pivot not finalized".formatted(domain.name(), job.id()), e);
      job.fail(DriverErrors.reason(e));
      disk.replaceChain(before, explicitBefore);
      takeBack(session, job);
      return;
    }
    updateDefinition(disk, job);
    job.retire(before.getFirst().nodeName());
    session.watch().poke();
  }

  /// Writes the record with the new chain. False when the job was given up instead.
  private boolean commit(Session session, CopyJob job) {
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

  private void takeBack(Session session, CopyJob job) {
    job.phase(CopyJob.Phase.ABORTING);
    try {
      domain.putLive(session);
    } catch (IOException e) {
      LOG.log(Level.ERROR, "%s: job %s: live record".formatted(domain.name(), job.id()), e);
      domain.stopForSafety(session, "a pivot can be neither finished nor taken back");
      return;
    }
    giveUp(session, job);
  }

  private void giveUp(Session session, CopyJob job) {
    job.phase(CopyJob.Phase.ABORTING);
    try {
      session.driver().cancelJob(job.id());
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "%s: cannot cancel job %s".formatted(domain.name(), job.id()), e);
    }
  }

  /// Changes the persistent definition as a pivot under TRANSIENT_JOB does, if it still names the
  /// old source.
  void updateDefinition(LiveDisk disk, CopyJob job) {
    if (!job.updatesDefinition()) {
      return;
    }
    Optional<Definition> definition = domain.persistentDefinition();
    Optional<DiskElement> persistent = definition.flatMap(found -> found.disk(disk.target()));
    if (persistent.isEmpty() || !persistent.get().source().equals(Optional.of(job.sourceFile()))) {
      return;
    }
    persistent.get().setSource(disk.active().file(), disk.active().format());
    if (!job.sharesBacking()) {
      persistent
          .get()
          .setBacking(
              disk.explicitBacking()
                  ? Optional.of(DomainXml.backingStore(disk.layers(), false))
                  : Optional.empty());
    }
    domain.putDefinitionOrLog();
  }

  private void concluded(Session session, LiveDisk disk, CopyJob job, JobState state) {
    try {
      session.driver().dismissJob(job.id());
    } catch (DriverException e) {
      LOG.log(Level.WARNING, "%s: cannot dismiss job %s".formatted(domain.name(), job.id()), e);
    }
    if (job.phase() == CopyJob.Phase.PIVOTED) {
      if (state.error().isPresent()) {
        LOG.log(
            Level.WARNING,
            "%s: job %s after its pivot".formatted(domain.name(), job.id()),
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
      conclude(session, disk, job, BlockJobStatus.FAILED, "the job ended before its pivot");
    }
  }

  private void conclude(
      Session session, LiveDisk disk, CopyJob job, BlockJobStatus how, String why) {
    String unused =
        how == BlockJobStatus.COMPLETED ? job.retiredNode() : job.mirror().getFirst().nodeName();
    if (unused != null) {
      domain.upkeep().removeNode(session, unused);
    }
    job.end(how, why);
    disk.copy(null);
    // While the definition cannot be written, the record goes on naming the pivoted job, from which
    // a restart changes the definition.
    if (how != BlockJobStatus.COMPLETED || domain.payDefinition()) {
      domain.putLiveOrLog(session);
    }
    domain.blockJobEvent(disk.target(), disk.active().file(), BlockJobType.COPY, how);
    domain.signal();
  }
}
