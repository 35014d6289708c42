// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.TransactionAction;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// Push backups of one domain: from the checks of virDomainBackupBegin to the last event. Every
/// method is called with the domain's lock held.
///
/// A target is written as `.NAME.<random>.tidemark-partial` in its folder and gets its name when
/// all disks are complete, so no file is ever there that claims to be a backup and is not.
///
/// **Crash order.** What is on disk after each step, and what a restart makes of it:
///
/// 1. The live record names the partial files and the checkpoint that is to be made. Restart: the
///    partial files that are there are removed; a bitmap without a checkpoint document is removed;
///    the job is reported failed.
/// 2. Partial files are created, nodes added, the transaction starts bitmaps and copies at one
///    instant; the bitmaps are claimed in their images. Restart: as 1.
/// 3. The checkpoint's document is written: the checkpoint exists, whatever becomes of the backup,
///    as with libvirt. Restart: partial files removed, checkpoint stays; its bitmap is inconsistent
///    after a crash, so increments from it are refused.
/// 4. The live record no longer names the checkpoint as pending.
/// 5. All copies have ended, every target is flushed and closed; the live record says PUBLISHING.
///    **This is the commit point.** Restart: the names not yet given are given, the job is reported
///    completed.
/// 6. Each file gets its name, never replacing another.
/// 7. The live record is replaced without the backup; events.
///
/// A power cut takes the live record away: then partial files may stay, under their partial names.
final class Backups {
  private static final System.Logger LOG = System.getLogger(Backups.class.getName());

  static final String PARTIAL_SUFFIX = ".tidemark-partial";

  /// Longest file name (NAME_MAX).
  private static final int MAX_FILE_NAME_BYTES = 255;

  private final DomainLife domain;
  private final DomainContext context;
  private final Checkpoints checkpoints;

  Backups(DomainLife domain, DomainContext context, Checkpoints checkpoints) {
    this.domain = domain;
    this.context = context;
    this.checkpoints = checkpoints;
  }

  /// Starts a backup, the domain being active and free of another one.
  void begin(
      Session session,
      BackupXml xml,
      Optional<CheckpointDocument.Request> checkpoint,
      boolean reuse)
      throws LibvirtException {
    Live live = session.live();
    if (xml.pull()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because("pull mode backup is not supported yet");
    }
    Optional<CheckpointDocument> made =
        checkpoint.isPresent()
            ? Optional.of(checkpoints.prepare(session, checkpoint.get()))
            : Optional.empty();
    String suffix =
        made.map(CheckpointDocument::name)
            .orElse(String.valueOf(context.environment().clock().instant().getEpochSecond()));
    List<Wanted> wanted = align(live, xml, suffix);
    List<String> notSelected = new ArrayList<>();
    for (LiveDisk disk : live.disks()) {
      if (wanted.stream().noneMatch(one -> one.disk() == disk)) {
        notSelected.add(disk.target());
      }
    }
    if (wanted.isEmpty()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because("no disks selected for backup");
    }
    for (Wanted one : wanted) {
      checkDisk(session, one);
    }
    List<BackupJob.Disk> disks = new ArrayList<>();
    Set<Path> files = new HashSet<>();
    for (Wanted one : wanted) {
      disks.add(checkTarget(live, one, reuse, files));
    }
    BackupJob job =
        new BackupJob(
            context.environment().clock().instant(), xml.incremental(), disks, notSelected);
    live.backup(job);
    if (made.isPresent()) {
      live.pendingCheckpoint(
          new Live.PendingCheckpoint(made.get().name(), made.get().bitmapTargets()));
    }
    boolean started = false;
    try {
      run(session, job, made);
      started = true;
    } finally {
      if (!started && live.backup() == job) {
        undo(session, job);
      }
    }
  }

  /// A disk that is to be backed up.
  ///
  /// @param file absent: the client gave none
  private record Wanted(
      LiveDisk disk, Optional<String> incremental, String format, Optional<String> file) {}

  private static List<Wanted> align(Live live, BackupXml xml, String suffix)
      throws LibvirtException {
    List<Wanted> wanted = new ArrayList<>();
    if (!xml.listed()) {
      for (LiveDisk disk : live.disks()) {
        if (disk.hasMedium() && !disk.element().readOnly()) {
          String file = disk.active().file() + "." + suffix;
          wanted.add(new Wanted(disk, xml.incremental(), "qcow2", Optional.of(file)));
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
      if (asked.type().equals("block")) {
        throw ErrorCode.INTERNAL_ERROR.because(
            "disk '%s': backup to a block device is not supported".formatted(disk.target()));
      }
      String format = asked.format().isEmpty() ? "qcow2" : asked.format();
      Definition.checkFormat(format, "target of disk '%s'".formatted(disk.target()));
      wanted.add(new Wanted(disk, xml.incrementalOf(asked), format, asked.target()));
    }
    wanted.sort(Comparator.comparingInt(one -> live.disks().indexOf(one.disk())));
    return wanted;
  }

  private void checkDisk(Session session, Wanted wanted) throws LibvirtException {
    LiveDisk disk = wanted.disk();
    BlockJobs.checkSupported(disk);
    if (disk.job() != null) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "disk '%s' has a blockjob assigned".formatted(disk.target()));
    }
    if (wanted.incremental().isEmpty()) {
      return;
    }
    String name = wanted.incremental().get();
    if (checkpoints.tree().find(name).isEmpty()) {
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

  private BackupJob.Disk checkTarget(Live live, Wanted wanted, boolean reuse, Set<Path> files)
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
    if (!reuse && (twice || domain.upkeep().fileStatus(path).isPresent())) {
      throw ErrorCode.INVALID_ARG.because(
          "store '%s' for backup of '%s' exists".formatted(file, disk.target()));
    }
    if (twice) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "'%s' is the target of two disks: Failed to get \"write\" lock".formatted(file));
    }
    String written = reuse ? file : partialName(path).toString();
    if (reuse) {
      BlockCopies.checkUnused(live, path);
    }
    Layer node = new Layer(live.takeIndex(), written, wanted.format());
    return new BackupJob.Disk(
        disk.target(),
        "backup-%s-%s".formatted(disk.target(), node.nodeName()),
        node,
        file,
        !reuse,
        wanted.incremental());
  }

  private Path partialName(Path file) {
    String random = context.environment().uuids().get().toString().substring(0, 8);
    String end = "." + random + PARTIAL_SUFFIX;
    String name = file.getFileName() == null ? "" : file.getFileName().toString();
    while (("." + name + end).getBytes(java.nio.charset.StandardCharsets.UTF_8).length
        > MAX_FILE_NAME_BYTES) {
      name = name.substring(0, name.length() - 1);
    }
    return file.resolveSibling("." + name + end);
  }

  private void run(Session session, BackupJob job, Optional<CheckpointDocument> checkpoint)
      throws LibvirtException {
    Live live = session.live();
    try {
      domain.putLive(session);
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    }
    for (BackupJob.Disk disk : job.disks()) {
      prepareTarget(session, live.disk(disk.target()), disk);
    }
    List<TransactionAction> actions = new ArrayList<>();
    if (checkpoint.isPresent()) {
      actions.addAll(Checkpoints.additions(checkpoint.get()));
    }
    for (BackupJob.Disk disk : job.disks()) {
      actions.addAll(actions(session, live.disk(disk.target()), disk));
    }
    try {
      session.driver().transaction(actions);
    } catch (DriverException e) {
      throw DriverErrors.toClient("execute the backup's transaction", e);
    }
    job.markStarted();
    if (checkpoint.isPresent()) {
      checkpoints.commit(session, checkpoint.get());
    }
    session.watch().poke();
  }

  private void prepareTarget(Session session, LiveDisk source, BackupJob.Disk disk)
      throws LibvirtException {
    Path file = Path.of(disk.node().file());
    if (disk.ours()) {
      try {
        context
            .images()
            .create(
                file,
                disk.node().format(),
                session.driver().sizes(source.target()).capacity(),
                backingOf(source, disk));
      } catch (DriverException e) {
        throw new LibvirtException(
            ErrorCode.SYSTEM_ERROR,
            ErrorDomain.HYPERVISOR,
            "failed to create image file '%s': %s"
                .formatted(disk.finalFile(), domain.upkeep().whyNotCreated(file, e)),
            e);
      }
    } else {
      checkReused(session, source, disk, file);
    }
    try {
      session
          .driver()
          .addNode(
              new NodeSpec(
                  disk.node().nodeName(), file, disk.node().format(), false, Optional.empty()));
    } catch (DriverException e) {
      throw DriverErrors.toClient("add the target of disk '%s'".formatted(disk.target()), e);
    }
  }

  /// An increment in qcow2 stands on the source as it was, so that it shows the whole disk.
  private static Optional<ImageService.Backing> backingOf(LiveDisk source, BackupJob.Disk disk) {
    if (disk.incremental().isEmpty() || !disk.node().format().equals("qcow2")) {
      return Optional.empty();
    }
    Layer active = source.active();
    return Optional.of(new ImageService.Backing(active.file(), Optional.of(active.format())));
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

  /// A disk's part of the transaction. An increment copies what a bitmap of its own marks, so that
  /// checkpoints may come and go meanwhile.
  private List<TransactionAction> actions(Session session, LiveDisk source, BackupJob.Disk disk) {
    List<TransactionAction> actions = new ArrayList<>();
    Optional<String> bitmap = Optional.empty();
    if (disk.incremental().isPresent()) {
      String since = disk.incremental().get();
      long granularity =
          domain
              .upkeep()
              .bitmap(session, source, since)
              .map(BitmapState::granularityBytes)
              .orElse(0L);
      actions.add(
          new TransactionAction.AddBitmap(disk.target(), disk.bitmap(), granularity, false));
      actions.add(new TransactionAction.MergeBitmaps(disk.target(), disk.bitmap(), List.of(since)));
      bitmap = Optional.of(disk.bitmap());
    }
    actions.add(
        new TransactionAction.StartBackup(
            disk.target(), disk.jobId(), disk.node().nodeName(), bitmap, 0));
    return actions;
  }

  /// Takes back what was prepared; jobs that run are ended instead, and their end clears up.
  private void undo(Session session, BackupJob job) {
    if (job.started()) {
      job.fail("the checkpoint could not be saved");
      cancelAll(session, job);
      return;
    }
    for (BackupJob.Disk disk : job.disks()) {
      domain.upkeep().removeNode(session, disk.node().nodeName());
      if (disk.ours()) {
        domain.upkeep().deleteFile(Path.of(disk.node().file()));
      }
    }
    session.live().backup(null);
    session.live().pendingCheckpoint(null);
    domain.putLiveOrLog(session);
    domain.signal();
  }

  /// Asks all jobs to end.
  void abort(Session session, BackupJob job) {
    if (job.phase() == BackupJob.Phase.RUNNING) {
      job.askAbort();
      cancelAll(session, job);
    }
  }

  private void cancelAll(Session session, BackupJob job) {
    for (BackupJob.Disk disk : job.disks()) {
      if (disk.outcome() == null) {
        try {
          session.driver().cancelJob(disk.jobId());
        } catch (DriverException e) {
          LOG.log(Level.DEBUG, domain.name() + ": cancel " + disk.jobId(), e); // it is ending
        }
      }
    }
    session.watch().poke();
  }

  /// Brings the backup to where the driver says its jobs are.
  void observe(Session session, BackupJob job, List<JobState> jobs) {
    List<Ended> ended = new ArrayList<>();
    for (BackupJob.Disk disk : job.disks()) {
      if (disk.outcome() == null) {
        Optional<JobState> state =
            jobs.stream().filter(one -> one.id().equals(disk.jobId())).findFirst();
        look(session, disk, state, ended);
      }
    }
    // A failure comes before the cancellations that it causes.
    ended.sort(Comparator.comparing(one -> one.how() != BlockJobStatus.FAILED));
    for (Ended one : ended) {
      one.disk().end(one.how());
      if (one.how() == BlockJobStatus.FAILED) {
        job.fail(one.why());
      }
      if (one.how() != BlockJobStatus.COMPLETED && job.cancelOthersNow()) {
        cancelAll(session, job);
      }
      if (job.allEnded()) {
        finish(session, job, one.disk());
      } else {
        event(session, one.disk());
      }
    }
  }

  private record Ended(BackupJob.Disk disk, BlockJobStatus how, String why) {}

  private void look(
      Session session, BackupJob.Disk disk, Optional<JobState> state, List<Ended> ended) {
    if (state.isEmpty()) {
      ended.add(new Ended(disk, BlockJobStatus.FAILED, "the driver lost the job"));
      return;
    }
    JobState now = state.get();
    disk.progress(now.current(), now.total());
    try {
      switch (now.status()) {
        case CONCLUDED -> {
          session.driver().dismissJob(disk.jobId());
          if (now.error().isPresent()) {
            LOG.log(
                Level.WARNING, domain.name() + ": " + disk.jobId() + " failed", now.error().get());
            ended.add(
                new Ended(disk, BlockJobStatus.FAILED, DriverErrors.reason(now.error().get())));
          } else {
            ended.add(
                new Ended(
                    disk,
                    now.cancelled() ? BlockJobStatus.CANCELED : BlockJobStatus.COMPLETED,
                    ""));
          }
        }
        case UNDEFINED,
            CREATED,
            RUNNING,
            PAUSED,
            READY,
            STANDBY,
            WAITING,
            PENDING,
            ABORTING,
            NULL -> {}
      }
    } catch (DriverException e) {
      LOG.log(Level.WARNING, domain.name() + ": " + disk.jobId(), e);
      if (now.status() == io.tidemark.domain.spi.DriverJobStatus.CONCLUDED) {
        ended.add(new Ended(disk, BlockJobStatus.FAILED, DriverErrors.reason(e)));
      }
    }
  }

  private void event(Session session, BackupJob.Disk disk) {
    BlockJobStatus how = disk.outcome();
    String path = session.live().find(disk.target()).map(found -> found.active().file()).orElse("");
    if (how != null) {
      domain.blockJobEvent(disk.target(), path, BlockJobType.BACKUP, how);
    }
  }

  private void finish(Session session, BackupJob job, BackupJob.Disk last) {
    for (BackupJob.Disk disk : job.disks()) {
      try {
        session.driver().removeNode(disk.node().nodeName());
      } catch (DriverException e) {
        LOG.log(Level.WARNING, domain.name() + ": close " + disk.node().file(), e);
        job.fail(DriverErrors.reason(e)); // it may not be flushed
      }
    }
    if (job.succeeded()) {
      commit(session, job);
    }
    if (!job.succeeded()) {
      if (last.outcome() == BlockJobStatus.COMPLETED) {
        last.end(BlockJobStatus.FAILED);
      }
      removeFiles(job);
    }
    removeBitmaps(session, job);
    session.live().backup(null);
    domain.putLiveOrLog(session);
    completed(job);
    event(session, last);
    domain.signal();
  }

  private void commit(Session session, BackupJob job) {
    job.phase(BackupJob.Phase.PUBLISHING);
    try {
      domain.putLive(session);
    } catch (IOException e) {
      LOG.log(Level.ERROR, domain.name() + ": live record", e);
      job.fail("cannot write the live record: " + e.getMessage());
      return;
    }
    publish(job);
  }

  /// Gives the files their names; those that have them are left alone, so that it can be repeated.
  private void publish(BackupJob job) {
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

  private void removeFiles(BackupJob job) {
    for (BackupJob.Disk disk : job.disks()) {
      if (disk.ours()) {
        domain
            .upkeep()
            .deleteFile(Path.of(disk.published() ? disk.finalFile() : disk.node().file()));
      }
    }
  }

  private void removeBitmaps(Session session, BackupJob job) {
    for (BackupJob.Disk disk : job.disks()) {
      if (disk.incremental().isPresent()) {
        domain.upkeep().removeBitmap(session, disk.target(), disk.bitmap());
      }
    }
  }

  /// The domain ends with its backup: no file stays, nothing is told of single disks.
  ///
  /// @param reason absent: as after destroy
  void domainEnded(BackupJob job, @Nullable String reason) {
    if (reason != null) {
      job.fail(reason);
    }
    removeFiles(job);
    domain.completed(new JobStats(reason == null ? 5 : 4, params(job, false)));
    domain.event(new DomainEvent.JobCompleted(domain.ref(), params(job, false)));
  }

  /// After a restart of the daemon: goes on behind the commit point, cleans up before it.
  void recover(BackupJob job) {
    if (job.phase() == BackupJob.Phase.PUBLISHING) {
      publish(job);
      job.disks().forEach(disk -> disk.end(BlockJobStatus.COMPLETED));
    } else {
      job.fail("the daemon ended during the backup");
    }
    if (!job.succeeded()) {
      removeFiles(job);
      LOG.log(
          Level.WARNING, "{0}: backup failed: {1}", domain.name(), String.valueOf(job.failure()));
    }
    completed(job);
  }

  private void completed(BackupJob job) {
    boolean success = job.succeeded();
    boolean cancelled = !success && job.failure() == null;
    List<TypedParam> params = params(job, success);
    domain.completed(new JobStats(success ? 3 : cancelled ? 5 : 4, params));
    domain.event(new DomainEvent.JobCompleted(domain.ref(), params));
  }

  private List<TypedParam> params(BackupJob job, boolean success) {
    List<TypedParam> params = new ArrayList<>(progress(job));
    params.add(new TypedParam.Bool("success", success));
    String failure = job.failure();
    if (failure != null) {
      params.add(new TypedParam.Str("errmsg", failure));
    } else if (job.abortAsked()
        || job.disks().stream().anyMatch(disk -> disk.outcome() == BlockJobStatus.CANCELED)) {
      if (!success) {
        params.add(new TypedParam.Str("errmsg", "Operation canceled"));
      }
    }
    return params;
  }

  /// Fields of a running backup's statistics.
  List<TypedParam> progress(BackupJob job) {
    List<TypedParam> params = new ArrayList<>();
    params.add(new TypedParam.Int("operation", 9));
    params.add(new TypedParam.ULLong("time_elapsed", elapsed(job).toMillis()));
    long total = total(job);
    if (total > 0) {
      long done = Math.min(done(job), total);
      params.add(new TypedParam.ULLong("disk_total", total));
      params.add(new TypedParam.ULLong("disk_processed", done));
      params.add(new TypedParam.ULLong("disk_remaining", total - done));
    }
    return params;
  }

  JobInfo info(BackupJob job) {
    long total = total(job);
    long done = Math.min(done(job), total);
    return new JobInfo(
        2, elapsed(job).toMillis(), total, done, total - done, total, done, total - done);
  }

  private Duration elapsed(BackupJob job) {
    Duration elapsed = Duration.between(job.start(), context.environment().clock().instant());
    return elapsed.isNegative() ? Duration.ZERO : elapsed;
  }

  private static long total(BackupJob job) {
    return job.disks().stream().mapToLong(BackupJob.Disk::total).sum();
  }

  private static long done(BackupJob job) {
    return job.disks().stream().mapToLong(BackupJob.Disk::current).sum();
  }
}
