// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.TransactionAction;
import io.tidemark.domain.spi.ViewExportSpec;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Backups of one domain: from the checks of virDomainBackupBegin ([BackupPlan]) to the last event.
/// Every method is called with the domain's lock held.
///
/// **Pull.** Scratch images are made under random names, their identities recorded, and named as
/// the client wants it, so that a restart removes these files and no other of that name; the server
/// listens, the transaction starts bitmaps and views at one instant, the views are offered. It
/// lasts until its client ends it; then the server stops, the views are given up, and the scratch
/// files go. A restart finds the live record: it removes the scratch files and reports the job
/// failed, since what the guest overwrote meanwhile is not kept.
///
/// **Push.** A target is written as `.NAME.<random>.tidemark-partial` in its folder and gets its
/// name when all disks are complete, so no file is ever there that claims to be a backup and is
/// not.
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

  private final DomainLife domain;
  private final DomainContext context;
  private final Checkpoints checkpoints;
  private final BackupImages images;

  Backups(DomainLife domain, DomainContext context, Checkpoints checkpoints) {
    this.domain = domain;
    this.context = context;
    this.checkpoints = checkpoints;
    this.images = new BackupImages(domain, context);
  }

  /// Starts a backup, the domain being active and free of another one.
  ///
  /// @param served the document's server with its name looked up, see [BackupServer#resolved]
  void begin(
      Session session,
      BackupXml xml,
      Optional<CheckpointDocument.Request> checkpoint,
      Optional<BackupServer> served,
      boolean reuse)
      throws LibvirtException {
    Live live = session.live();
    Optional<CheckpointDocument> made =
        checkpoint.isPresent()
            ? Optional.of(checkpoints.prepare(session, checkpoint.get()))
            : Optional.empty();
    String suffix =
        made.map(CheckpointDocument::name)
            .orElse(String.valueOf(context.environment().clock().instant().getEpochSecond()));
    BackupJob job =
        new BackupPlan(domain, context, session, xml, made.map(CheckpointDocument::name))
            .job(suffix, reuse);
    live.backup(job);
    if (made.isPresent()) {
      live.pendingCheckpoint(
          new Live.PendingCheckpoint(made.get().name(), made.get().bitmapTargets()));
    }
    boolean started = false;
    try {
      run(session, job, made, served);
      started = true;
    } finally {
      if (!started && live.backup() == job) {
        undo(session, job);
      }
    }
  }

  private void run(
      Session session,
      BackupJob job,
      Optional<CheckpointDocument> checkpoint,
      Optional<BackupServer> served)
      throws LibvirtException {
    Live live = session.live();
    record(live);
    for (BackupJob.Disk disk : job.disks()) {
      images.make(session, live.disk(disk.target()), disk, !job.pull());
    }
    if (job.pull()) {
      record(live); // the scratches' identities
    }
    for (BackupJob.Disk disk : job.disks()) {
      images.open(session, disk, !job.pull());
    }
    if (served.isPresent()) {
      listen(session, served.get());
    }
    List<TransactionAction> actions = new ArrayList<>();
    if (checkpoint.isPresent()) {
      actions.addAll(Checkpoints.additions(checkpoint.get()));
    }
    for (BackupJob.Disk disk : job.disks()) {
      actions.addAll(actions(session, live.disk(disk.target()), disk, job.pull()));
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
    if (job.pull()) {
      offer(session, job);
    }
    session.watch().poke();
  }

  private void record(Live live) throws LibvirtException {
    try {
      domain.stored().putLive(live);
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    }
  }

  private static void listen(Session session, BackupServer server) throws LibvirtException {
    try {
      session.driver().startViewServer(server.spec());
    } catch (DriverException e) {
      throw DriverErrors.toClient("start the backup's server", e);
    }
  }

  private static void offer(Session session, BackupJob job) throws LibvirtException {
    for (BackupJob.Disk disk : job.disks()) {
      Optional<String> bitmap =
          disk.incremental().isPresent() ? disk.offer().bitmap() : Optional.empty();
      try {
        session.driver().exportView(new ViewExportSpec(disk.jobId(), disk.offer().name(), bitmap));
      } catch (DriverException e) {
        throw DriverErrors.toClient("offer disk '%s'".formatted(disk.target()), e);
      }
    }
  }

  /// A disk's part of the transaction. An increment copies what a bitmap of its own marks, so that
  /// checkpoints may come and go meanwhile.
  private List<TransactionAction> actions(
      Session session, LiveDisk source, BackupJob.Disk disk, boolean pull) {
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
        pull
            ? new TransactionAction.StartView(
                disk.target(), disk.jobId(), disk.node().nodeName(), bitmap)
            : new TransactionAction.StartBackup(
                disk.target(), disk.jobId(), disk.node().nodeName(), bitmap, 0));
    return actions;
  }

  /// Takes back what was prepared; jobs that run are ended instead, and their end clears up.
  private void undo(Session session, BackupJob job) {
    if (job.started()) {
      job.withdraw();
      job.fail("its begin failed"); // its copies may all have ended by now: they are not published
      end(session, job);
      while (session.live().backup() == job) {
        domain.changed().awaitUninterruptibly();
      }
      return;
    }
    session.driver().stopViewServer();
    for (BackupJob.Disk disk : job.disks()) {
      domain.upkeep().removeNode(session, disk.node().nodeName());
    }
    images.remove(job);
    session.live().backup(null);
    session.live().pendingCheckpoint(null);
    domain.stored().putLiveOrLog(session.live());
    domain.signal();
  }

  /// Asks all jobs to end.
  void abort(Session session, BackupJob job) {
    if (job.phase() == BackupJob.Phase.RUNNING) {
      job.askAbort();
      end(session, job);
    }
  }

  private void end(Session session, BackupJob job) {
    session.driver().stopViewServer(); // so that no client reads a view that is not kept any more
    cancelAll(session, job);
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
    for (Ended one : ended) {
      one.disk().end(one.how());
      if (one.how() == BlockJobStatus.FAILED) {
        job.fail(one.why());
      }
    }
    if (job.allEnded()) {
      finish(session, job);
      return;
    }
    for (Ended one : ended) {
      if (one.how() == BlockJobStatus.FAILED) {
        tell(session, one.disk());
      }
      if (one.how() != BlockJobStatus.COMPLETED && job.cancelOthersNow()) {
        end(session, job);
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

  /// Tells clients how a disk ended, once.
  private void tell(Session session, BackupJob.Disk disk) {
    BlockJobStatus how = disk.outcome();
    String path = session.live().find(disk.target()).map(found -> found.active().file()).orElse("");
    if (how != null && disk.tellNow()) {
      domain.blockJobEvent(disk.target(), path, BlockJobType.BACKUP, how);
    }
  }

  /// All jobs have ended. libvirt tells of the last disk first, and of the backup before the first.
  private void finish(Session session, BackupJob job) {
    session.driver().stopViewServer();
    images.close(session, job);
    if (job.pull()) {
      images.remove(job);
    } else {
      if (job.succeeded()) {
        commit(session, job);
      }
      if (!job.succeeded()) {
        job.disks().stream()
            .filter(disk -> disk.outcome() == BlockJobStatus.COMPLETED)
            .forEach(disk -> disk.end(BlockJobStatus.FAILED));
        images.remove(job);
      }
    }
    removeBitmaps(session, job);
    session.live().backup(null);
    domain.stored().putLiveOrLog(session.live());
    if (job.withdrawn()) {
      job.disks().forEach(disk -> tell(session, disk));
    } else {
      List<BackupJob.Disk> untold =
          job.disks().reversed().stream().filter(disk -> !disk.told()).toList();
      for (BackupJob.Disk disk : untold.subList(0, Math.max(0, untold.size() - 1))) {
        tell(session, disk);
      }
      completed(job);
      untold.forEach(disk -> tell(session, disk));
    }
    domain.signal();
  }

  private void commit(Session session, BackupJob job) {
    job.phase(BackupJob.Phase.PUBLISHING);
    try {
      domain.stored().putLive(session.live());
    } catch (IOException e) {
      LOG.log(Level.ERROR, domain.name() + ": live record", e);
      job.fail("cannot write the live record: " + e.getMessage());
      return;
    }
    images.publish(job);
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
    images.remove(job);
    JobStats stats = BackupStats.domainEnded(job, now());
    domain.completed(stats);
    domain.event(new DomainEvent.JobCompleted(domain.ref(), stats.params()));
  }

  /// After a restart of the daemon: goes on behind the commit point, cleans up before it.
  void recover(BackupJob job) {
    if (job.phase() == BackupJob.Phase.PUBLISHING) {
      images.publish(job);
      job.disks().forEach(disk -> disk.end(BlockJobStatus.COMPLETED));
    } else {
      job.fail("the daemon ended during the backup");
    }
    if (!job.succeeded()) {
      images.remove(job);
      LOG.log(
          Level.WARNING, "{0}: backup failed: {1}", domain.name(), String.valueOf(job.failure()));
    }
    completed(job);
  }

  private void completed(BackupJob job) {
    JobStats stats = BackupStats.completed(job, now());
    domain.completed(stats);
    domain.event(new DomainEvent.JobCompleted(domain.ref(), stats.params()));
  }

  /// Statistics of a backup that runs.
  JobStats stats(BackupJob job) {
    return BackupStats.running(job, now());
  }

  JobInfo info(BackupJob job) {
    return BackupStats.info(job, now());
  }

  private Instant now() {
    return context.environment().clock().instant();
  }
}
