// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.StateStore;
import io.tidemark.domain.spi.TransactionAction;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// One domain, running or not. Safe for any thread. A domain that is gone (transient and stopped,
/// or undefined) answers every call with "domain not found".
///
/// `flags` are libvirt's bits for the verb, see [Flags]; unknown ones are refused as libvirt does.
///
/// One lock guards all of it. It is held over calls to the driver and the state store, never while
/// waiting for a job: such waits are on its condition, and what the driver tells comes to a thread
/// of its own ([JobWatch]) that takes the lock.
public final class Domain {
  private static final System.Logger LOG = System.getLogger(Domain.class.getName());

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final DomainContext context;
  private final String name;
  private final UUID uuid;
  private final Checkpoints checkpoints;
  private final BlockCopies copies;
  private final Backups backups;
  private final JobVerbs jobs;
  private final DiskFacts facts;
  // Null for a transient domain.
  private @Nullable Definition persistent;
  // Null while it does not run.
  private @Nullable Session session;
  // Null unless the live record was written by a later program: why it cannot be started.
  private @Nullable String blocked;
  private boolean autostart;
  private boolean gone;
  private DomainState offState = DomainState.SHUTOFF_UNKNOWN;
  private JobStats completed = JobStats.NONE;

  Domain(DomainContext context, String name, UUID uuid) {
    this.context = context;
    this.name = name;
    this.uuid = uuid;
    checkpoints = new Checkpoints(this, context);
    copies = new BlockCopies(this, context);
    backups = new Backups(this, context, checkpoints);
    jobs = new JobVerbs(this, context, copies, backups);
    facts = new DiskFacts(this, context);
  }

  public String name() {
    return name;
  }

  public UUID uuid() {
    return uuid;
  }

  /// Positive while it runs, else -1.
  public int id() {
    lock.lock();
    try {
      Session running = session;
      return running == null ? -1 : running.live().id();
    } finally {
      lock.unlock();
    }
  }

  public DomainRef ref() {
    return new DomainRef(name, uuid, id());
  }

  /// virDomainCreateWithFlags.
  ///
  /// @param connection identity of the client for `START_AUTODESTROY`
  public void create(int flags, Object connection) throws LibvirtException {
    Flags.check(
        flags,
        Flags.START_PAUSED
            | Flags.START_AUTODESTROY
            | Flags.START_BYPASS_CACHE
            | Flags.START_FORCE_BOOT
            | Flags.START_RESET_NVRAM,
        "qemuDomainCreateWithFlags");
    locked(() -> {
      if (session != null) {
        throw ErrorCode.OPERATION_INVALID.because("domain is already running");
      }
      Definition definition = persistent;
      if (definition == null) {
        throw notFound();
      }
      start(definition.copy(), flags, connection);
      return true;
    });
  }

  /// Starts with a definition of its own, the persistent one stays: virDomainCreateXML.
  void createFrom(Definition definition, int flags, Object connection) throws LibvirtException {
    lock.lock();
    try {
      if (gone) {
        throw notFound();
      }
      if (session != null) {
        throw ErrorCode.OPERATION_INVALID.in(
            ErrorDomain.DOMAIN, "domain '%s' is already active".formatted(name));
      }
      try {
        start(definition, flags, connection);
      } finally {
        if (session == null && persistent == null) {
          forgetSelf();
        }
      }
    } finally {
      lock.unlock();
    }
  }

  private void start(Definition definition, int flags, Object connection) throws LibvirtException {
    if (blocked != null) {
      throw ErrorCode.OPERATION_INVALID.because(blocked);
    }
    boolean paused = Flags.has(flags, Flags.START_PAUSED);
    boolean autodestroy = Flags.has(flags, Flags.START_AUTODESTROY);
    Live live =
        new Launch(context)
            .prepare(
                definition,
                autodestroy,
                paused ? DomainState.PAUSED_USER : DomainState.RUNNING_BOOTED);
    JobWatch watch = new JobWatch();
    RunningDomain driver;
    try {
      DomainDriver type = driverOf(definition);
      type.check(live.launchSpec());
      driver = type.launch(live.launchSpec(), watch);
    } catch (DriverException e) {
      throw DriverErrors.toClient("start domain '%s'".formatted(name), e);
    }
    Session started =
        new Session(live, driver, watch, autodestroy ? Optional.of(connection) : Optional.empty());
    try {
      putLive(started);
    } catch (IOException e) {
      stopDriver(started);
      removeLive();
      throw cannotWrite(e);
    }
    session = started;
    completed = JobStats.NONE;
    watch.start(name, () -> look(watch));
    if (paused) {
      lifecycle(Lifecycle.STARTED_BOOTED);
      lifecycle(Lifecycle.SUSPENDED_PAUSED);
    } else {
      lifecycle(Lifecycle.RESUMED_UNPAUSED);
      lifecycle(Lifecycle.STARTED_BOOTED);
    }
  }

  private DomainDriver driverOf(Definition definition) throws LibvirtException {
    DomainDriver driver = context.drivers().get(definition.type());
    if (driver == null) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "no driver runs domains of virt type '%s'".formatted(definition.type()));
    }
    return driver;
  }

  public void destroy(int flags) throws LibvirtException {
    Flags.check(
        flags, Flags.DESTROY_GRACEFUL | Flags.DESTROY_REMOVE_LOGS, "qemuDomainDestroyFlags");
    locked(() -> {
      requireActive();
      end(DomainState.SHUTOFF_DESTROYED, Lifecycle.STOPPED_DESTROYED, null);
      return true;
    });
  }

  /// A domain without a CPU has nobody to ask: it stops, flushed, with the reason SHUTDOWN.
  public void shutdown(int flags) throws LibvirtException {
    Flags.check(flags, 1 | 2, "qemuDomainShutdownFlags"); // ACPI_POWER_BTN, GUEST_AGENT
    locked(() -> {
      if (session == null) {
        throw ErrorCode.OPERATION_INVALID.because("domain is not running");
      }
      lifecycle(Lifecycle.SHUTDOWN_FINISHED);
      end(DomainState.SHUTOFF_SHUTDOWN, Lifecycle.STOPPED_SHUTDOWN, null);
      return true;
    });
  }

  public void undefine(int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.UNDEFINE_MANAGED_SAVE
            | Flags.UNDEFINE_SNAPSHOTS_METADATA
            | Flags.UNDEFINE_CHECKPOINTS_METADATA
            | Flags.UNDEFINE_NVRAM
            | Flags.UNDEFINE_KEEP_NVRAM
            | Flags.UNDEFINE_TPM
            | Flags.UNDEFINE_KEEP_TPM,
        "qemuDomainUndefineFlags");
    locked(() -> {
      if (persistent == null) {
        throw ErrorCode.OPERATION_INVALID.because("cannot undefine transient domain");
      }
      if (session == null && !checkpoints.tree().isEmpty()) {
        if (!Flags.has(flags, Flags.UNDEFINE_CHECKPOINTS_METADATA)) {
          throw ErrorCode.OPERATION_INVALID.because(
              "cannot delete inactive domain with %d checkpoints"
                  .formatted(checkpoints.tree().size()));
        }
        checkpoints.dropMetadata();
      }
      try {
        context.state().remove(StateStore.Kind.DEFINITION, name);
      } catch (IOException e) {
        throw cannotWrite(e);
      }
      persistent = null;
      autostart = false;
      lifecycle(Lifecycle.UNDEFINED);
      if (session == null) {
        forgetSelf();
      }
      return true;
    });
  }

  public void suspend() throws LibvirtException {
    locked(() -> {
      Session running = requireActive();
      if (!running.live().state().isPaused()) {
        try {
          running.driver().suspend();
        } catch (DriverException e) {
          throw DriverErrors.toClient("suspend", e);
        }
        running.live().state(DomainState.PAUSED_USER);
        putLiveOrLog(running);
        lifecycle(Lifecycle.SUSPENDED_PAUSED);
      }
      return true;
    });
  }

  public void resume() throws LibvirtException {
    locked(() -> {
      Session running = requireActive();
      if (!running.live().state().isPaused()) {
        throw ErrorCode.OPERATION_INVALID.because("domain is already running");
      }
      try {
        running.driver().resume();
      } catch (DriverException e) {
        throw DriverErrors.toClient("resume", e);
      }
      running.live().state(DomainState.RUNNING_UNPAUSED);
      putLiveOrLog(running);
      lifecycle(Lifecycle.RESUMED_UNPAUSED);
      return true;
    });
  }

  public String xmlDesc(int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.XML_SECURE | Flags.XML_INACTIVE | Flags.XML_UPDATE_CPU | Flags.XML_MIGRATABLE,
        "qemuDomainGetXMLDesc");
    return locked(() -> {
      Session running = session;
      Definition definition = persistent;
      boolean inactive = Flags.has(flags, Flags.XML_INACTIVE);
      if (running != null && !(inactive && definition != null)) {
        return Xml.write(
            inactive
                ? DomainXml.inactiveOfTransient(running.live())
                : DomainXml.live(running.live()));
      }
      if (definition == null) {
        throw ErrorCode.OPERATION_INVALID.because(String.valueOf(blocked));
      }
      return Xml.write(definition.root());
    });
  }

  public DomainState state() throws LibvirtException {
    return locked(() -> {
      Session running = session;
      return running == null ? offState : running.live().state();
    });
  }

  public DomainInfo info() throws LibvirtException {
    return locked(() -> {
      Session running = session;
      Definition definition = running != null ? running.live().definition() : persistent;
      int state = running != null ? running.live().state().state() : offState.state();
      return definition == null
          ? new DomainInfo(state, 0, 0, 0, 0)
          : new DomainInfo(
              state, definition.memoryKib(), definition.currentMemoryKib(), definition.vcpus(), 0);
    });
  }

  public boolean isActive() throws LibvirtException {
    return locked(() -> session != null);
  }

  public boolean isPersistent() throws LibvirtException {
    return locked(() -> persistent != null);
  }

  /// Whether the definition differs from what runs and is only taken up at the next start (libvirt
  /// says so only of networks' and pools' relatives; domains of QEMU answer no).
  public boolean isUpdated() throws LibvirtException {
    return locked(() -> false);
  }

  public boolean autostart() throws LibvirtException {
    return locked(() -> autostart);
  }

  public void setAutostart(boolean wanted) throws LibvirtException {
    locked(() -> {
      if (persistent == null) {
        throw ErrorCode.OPERATION_INVALID.because("cannot set autostart for transient domain");
      }
      boolean before = autostart;
      autostart = wanted;
      try {
        putDefinition();
      } catch (IOException e) {
        autostart = before;
        throw cannotWrite(e);
      }
      return true;
    });
  }

  public String osType() throws LibvirtException {
    return locked(() -> {
      Session running = session;
      Definition definition = running != null ? running.live().definition() : persistent;
      return definition == null ? "hvm" : definition.osType();
    });
  }

  /// virDomainGetBlockInfo.
  ///
  /// @param disk target or path of the active layer
  public ImageSizes blockInfo(String disk, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetBlockInfo");
    return locked(() -> facts.blockInfo(disk));
  }

  /// virDomainBlockStats; an empty `disk` sums all.
  public BlockStats blockStats(String disk) throws LibvirtException {
    return locked(() -> facts.blockStats(disk));
  }

  /// virDomainBlockStatsFlags, all fields.
  public List<TypedParam> blockStatsParams(String disk, int flags) throws LibvirtException {
    Flags.check(flags, 4, "qemuDomainBlockStatsFlags"); // VIR_TYPED_PARAM_STRING_OKAY
    return locked(() -> facts.blockStatsParams(disk));
  }

  /// The domain's part of virConnectGetAllDomainStats: `state.*`, `balloon.*`, `vcpu.*`, `block.*`.
  ///
  /// @param types virDomainStatsTypes, 0 for all
  public List<TypedParam> stats(int types, int flags) throws LibvirtException {
    return locked(() -> facts.stats(types, flags));
  }

  /// virDomainBlockCopy.
  public void blockCopy(String disk, String destXml, List<TypedParam> params, int flags)
      throws LibvirtException {
    BlockCopies.Request request = BlockCopyRequest.ofCopy(destXml, params, flags);
    locked(() -> {
      copies.start(requireActive(), disk, request);
      return true;
    });
  }

  /// virDomainBlockRebase; without COPY it is a pull.
  ///
  /// @param base the destination with COPY; null is libvirt's NULL
  /// @param bandwidth MiB/s, or bytes/s with `REBASE_BANDWIDTH_BYTES`
  public void blockRebase(String disk, @Nullable String base, long bandwidth, int flags)
      throws LibvirtException {
    Optional<BlockCopies.Request> request =
        BlockCopyRequest.ofRebase(Optional.ofNullable(base), bandwidth, flags);
    locked(() -> {
      Session running = requireActive();
      if (request.isEmpty()) {
        BlockCopies.checkIdle(running.live().disk(disk), running.live());
        throw ErrorCode.NO_SUPPORT.because("virDomainBlockRebase");
      }
      copies.start(running, disk, request.get());
      return true;
    });
  }

  /// virDomainBlockJobAbort. Without ASYNC it returns when the job is over.
  public void blockJobAbort(String disk, int flags) throws LibvirtException {
    locked(() -> {
      jobs.abort(disk, flags);
      return true;
    });
  }

  /// virDomainGetBlockJobInfo; empty when the disk has no job.
  public Optional<BlockJobInfo> blockJobInfo(String disk, int flags) throws LibvirtException {
    return locked(() -> jobs.info(disk, flags));
  }

  public void blockJobSetSpeed(String disk, long bandwidth, int flags) throws LibvirtException {
    locked(() -> {
      jobs.setSpeed(disk, bandwidth, flags);
      return true;
    });
  }

  public Checkpoint checkpointCreateXml(String xml, int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.CHECKPOINT_REDEFINE | Flags.CHECKPOINT_REDEFINE_VALIDATE,
        "qemuCheckpointCreateXML");
    if (Flags.has(flags, Flags.CHECKPOINT_REDEFINE_VALIDATE)
        && !Flags.has(flags, Flags.CHECKPOINT_REDEFINE)) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.DOMAIN_CHECKPOINT,
          "Flag 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE' is required by flag"
              + " 'VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE'");
    }
    return locked(() -> {
      if (Flags.has(flags, Flags.CHECKPOINT_REDEFINE)) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "redefining a checkpoint is not supported yet");
      }
      Session running = session;
      if (running == null) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "cannot create checkpoint for inactive domain");
      }
      CheckpointDocument.Request request = CheckpointDocument.parse(xml);
      CheckpointDocument made = checkpoints.prepare(running, request);
      checkpoints.create(running, made);
      return new Checkpoint(this, made.name());
    });
  }

  private static final int CHECKPOINT_LIST_FLAGS =
      Flags.CHECKPOINT_LIST_ROOTS
          | Flags.CHECKPOINT_LIST_TOPOLOGICAL
          | Flags.CHECKPOINT_LIST_LEAVES
          | Flags.CHECKPOINT_LIST_NO_LEAVES;

  /// virDomainListAllCheckpoints, parents before children.
  public List<Checkpoint> checkpoints(int flags) throws LibvirtException {
    Flags.check(flags, CHECKPOINT_LIST_FLAGS, "qemuDomainListAllCheckpoints");
    return locked(() -> wrap(checkpoints.tree().list(Optional.empty(), flags)));
  }

  List<Checkpoint> checkpointChildren(String parent, int flags) throws LibvirtException {
    Flags.check(flags, CHECKPOINT_LIST_FLAGS, "qemuDomainCheckpointListAllChildren");
    return locked(
        () -> wrap(checkpoints.tree().list(Optional.of(checkpoints.find(parent)), flags)));
  }

  private List<Checkpoint> wrap(List<CheckpointDocument> documents) {
    return documents.stream().map(document -> new Checkpoint(this, document.name())).toList();
  }

  public Checkpoint checkpointLookupByName(String checkpoint, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainCheckpointLookupByName");
    return locked(() -> new Checkpoint(this, checkpoints.find(checkpoint).name()));
  }

  Checkpoint checkpointParent(String child, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainCheckpointGetParent");
    return locked(() -> {
      CheckpointDocument document = checkpoints.find(child);
      return checkpoints
          .tree()
          .parent(document)
          .map(parent -> new Checkpoint(this, parent.name()))
          .orElseThrow(() ->
              ErrorCode.NO_DOMAIN_CHECKPOINT.because(
                  "checkpoint '%s' does not have a parent".formatted(child)));
    });
  }

  String checkpointXmlDesc(String checkpoint, int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.CHECKPOINT_XML_SECURE | Flags.CHECKPOINT_XML_NO_DOMAIN | Flags.CHECKPOINT_XML_SIZE,
        "qemuCheckpointGetXMLDesc");
    return locked(() -> checkpoints.xmlDesc(checkpoint, flags, Optional.ofNullable(session)));
  }

  void checkpointDelete(String checkpoint, int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.CHECKPOINT_DELETE_CHILDREN
            | Flags.CHECKPOINT_DELETE_METADATA_ONLY
            | Flags.CHECKPOINT_DELETE_CHILDREN_ONLY,
        "qemuCheckpointDelete");
    if (Flags.has(flags, Flags.CHECKPOINT_DELETE_CHILDREN)
        && Flags.has(flags, Flags.CHECKPOINT_DELETE_CHILDREN_ONLY)) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.DOMAIN_CHECKPOINT,
          "Flags 'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN' and"
              + " 'VIR_DOMAIN_CHECKPOINT_DELETE_CHILDREN_ONLY' are mutually exclusive");
    }
    locked(() -> {
      if (session == null && !Flags.has(flags, Flags.CHECKPOINT_DELETE_METADATA_ONLY)) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "cannot delete checkpoint for inactive domain");
      }
      checkpoints.delete(checkpoint, flags, Optional.ofNullable(session));
      return true;
    });
  }

  boolean hasCheckpoints() {
    lock.lock();
    try {
      return !checkpoints.tree().isEmpty();
    } finally {
      lock.unlock();
    }
  }

  /// virDomainBackupBegin.
  ///
  /// @param checkpointXml a checkpoint to make at the same instant; null for none
  public void backupBegin(String backupXml, @Nullable String checkpointXml, int flags)
      throws LibvirtException {
    Flags.check(flags, Flags.BACKUP_REUSE_EXTERNAL, "qemuBackupBegin");
    BackupXml backup = BackupXml.parse(backupXml);
    Optional<CheckpointDocument.Request> checkpoint =
        checkpointXml == null
            ? Optional.empty()
            : Optional.of(CheckpointDocument.parse(checkpointXml));
    locked(() -> {
      if (session == null) {
        throw noBackupOfInactive();
      }
      jobs.awaitNoBackup();
      Session running = session;
      if (running == null) {
        throw noBackupOfInactive();
      }
      backups.begin(running, backup, checkpoint, Flags.has(flags, Flags.BACKUP_REUSE_EXTERNAL));
      return true;
    });
  }

  private static LibvirtException noBackupOfInactive() {
    return ErrorCode.OPERATION_UNSUPPORTED.because(
        "cannot perform disk backup for inactive domain");
  }

  public String backupXmlDesc(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuBackupGetXMLDesc");
    return locked(() -> jobs.backupXmlDesc());
  }

  public JobInfo jobInfo() throws LibvirtException {
    return locked(() -> jobs.jobInfo());
  }

  public JobStats jobStats(int flags) throws LibvirtException {
    Flags.check(
        flags, Flags.JOB_STATS_COMPLETED | Flags.JOB_STATS_KEEP_COMPLETED, "qemuDomainGetJobStats");
    boolean keep = Flags.has(flags, Flags.JOB_STATS_KEEP_COMPLETED);
    if (keep && !Flags.has(flags, Flags.JOB_STATS_COMPLETED)) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.DOMAIN,
          "Flag 'VIR_DOMAIN_JOB_STATS_COMPLETED' is required by flag"
              + " 'VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED'");
    }
    return locked(() -> {
      if (Flags.has(flags, Flags.JOB_STATS_COMPLETED)) {
        JobStats last = completed;
        if (!keep) {
          completed = JobStats.NONE;
        }
        return last;
      }
      return jobs.jobStats();
    });
  }

  /// virDomainAbortJobFlags: asks a backup to end; returns before it has.
  public void abortJob(int flags) throws LibvirtException {
    Flags.check(flags, 1, "qemuDomainAbortJobFlags"); // POSTCOPY, which no job here has
    locked(() -> {
      jobs.abortJob();
      return true;
    });
  }

  // ---- for the registry

  /// Makes or replaces the persistent definition.
  void define(Definition definition) throws LibvirtException {
    lock.lock();
    try {
      if (gone) {
        throw notFound();
      }
      Definition before = persistent;
      persistent = definition;
      try {
        putDefinition();
      } catch (IOException e) {
        persistent = before;
        if (before == null && session == null) {
          forgetSelf();
        }
        throw cannotWrite(e);
      }
      lifecycle(before == null ? Lifecycle.DEFINED_ADDED : Lifecycle.DEFINED_UPDATED);
    } finally {
      lock.unlock();
    }
  }

  boolean isGone() {
    lock.lock();
    try {
      return gone;
    } finally {
      lock.unlock();
    }
  }

  /// Reads the stored definition, at the daemon's start.
  void restoreDefinition(Definition definition, boolean starts) {
    lock.lock();
    try {
      persistent = definition;
      autostart = starts;
    } finally {
      lock.unlock();
    }
  }

  void restoreCheckpoint(CheckpointDocument document) {
    lock.lock();
    try {
      checkpoints.tree().put(document);
    } finally {
      lock.unlock();
    }
  }

  /// The live record is of a later program: it is left alone, and so is the domain.
  void block(String why) {
    lock.lock();
    try {
      blocked = why;
    } finally {
      lock.unlock();
    }
  }

  /// Takes up what ran when the last daemon ended, finishing or undoing what it was in the middle
  /// of (see [BlockCopies], [Backups], [Checkpoints]).
  void restoreLive(Live live) {
    lock.lock();
    try {
      for (LiveDisk disk : live.disks()) {
        CopyJob copy = disk.copy();
        if (copy != null && copy.phase() == CopyJob.Phase.PIVOTED) {
          copies.updateDefinition(disk, copy);
        }
      }
      if (live.autodestroy()) {
        LOG.log(Level.INFO, "{0}: its connection ended with the daemon, so it is stopped", name);
        dropRecovered(live, DomainState.SHUTOFF_DESTROYED);
        return;
      }
      JobWatch watch = new JobWatch();
      RunningDomain driver;
      try {
        driver = driverOf(live.definition()).reattach(live.launchSpec(), watch);
      } catch (LibvirtException | DriverException e) {
        LOG.log(
            Level.ERROR,
            "%s: cannot be taken up again; its disks were %s"
                .formatted(name, live.disks().stream().map(LiveDisk::layers).toList()),
            e);
        dropRecovered(live, DomainState.SHUTOFF_FAILED);
        return;
      }
      Session taken = new Session(live, driver, watch, Optional.empty());
      session = taken;
      recoverJobs(taken);
      watch.start(name, () -> look(watch));
    } finally {
      lock.unlock();
    }
  }

  private void recoverJobs(Session taken) {
    Live live = taken.live();
    checkpoints.recover(taken);
    List<LiveDisk> copied = live.disks().stream().filter(disk -> disk.copy() != null).toList();
    for (LiveDisk disk : copied) {
      CopyJob copy = disk.copy();
      boolean pivoted = copy != null && copy.phase() == CopyJob.Phase.PIVOTED;
      disk.copy(null);
      if (!pivoted) {
        LOG.log(
            Level.WARNING,
            "{0}: block copy of {1} failed: the daemon ended during it",
            name,
            disk.target());
      }
      blockJobEvent(
          disk.target(),
          disk.active().file(),
          BlockJobType.COPY,
          pivoted ? BlockJobStatus.COMPLETED : BlockJobStatus.FAILED);
    }
    BackupJob backup = live.backup();
    if (backup != null) {
      backups.recover(backup);
      live.backup(null);
    }
    putLiveOrLog(taken);
  }

  /// What ran is not taken up: only what it left is cleared.
  private void dropRecovered(Live live, DomainState off) {
    BackupJob backup = live.backup();
    if (backup != null) {
      backups.recover(backup);
    }
    offState = off;
    removeLive();
    if (persistent == null) {
      checkpoints.dropMetadata();
      forgetSelf();
    }
  }

  /// Lets go for a restart of the daemon; the record stays.
  void detach() {
    lock.lock();
    try {
      Session running = session;
      if (running != null) {
        running.watch().close();
        try {
          running.driver().detach();
        } catch (DriverException e) {
          LOG.log(Level.ERROR, name + ": detach", e);
        }
        session = null;
        releaseWaiters(running);
      }
    } finally {
      lock.unlock();
    }
  }

  void connectionClosed(Object connection) {
    lock.lock();
    try {
      Session running = session;
      if (running != null
          && running.owner().filter(owner -> owner.equals(connection)).isPresent()) {
        end(DomainState.SHUTOFF_DESTROYED, Lifecycle.STOPPED_DESTROYED, null);
      }
    } finally {
      lock.unlock();
    }
  }

  // ---- for the parts of a domain, with the lock held

  static LibvirtException notRunning() {
    return ErrorCode.OPERATION_INVALID.in(ErrorDomain.DOMAIN, "domain is not running");
  }

  Session requireActive() throws LibvirtException {
    Session running = session;
    if (running == null) {
      throw notRunning();
    }
    return running;
  }

  Optional<Session> runningSession() {
    return Optional.ofNullable(session);
  }

  Optional<Definition> persistentDefinition() {
    return Optional.ofNullable(persistent);
  }

  DomainState offState() {
    return offState;
  }

  void completed(JobStats stats) {
    completed = stats;
  }

  Condition changed() {
    return changed;
  }

  void signal() {
    changed.signalAll();
  }

  void event(DomainEvent event) {
    context.events().accept(event);
  }

  private void lifecycle(Lifecycle change) {
    event(new DomainEvent.LifecycleChanged(ref(), change));
  }

  void blockJobEvent(String target, String path, BlockJobType type, BlockJobStatus status) {
    event(new DomainEvent.BlockJob(ref(), path, type, status));
    event(new DomainEvent.BlockJob2(ref(), target, type, status));
  }

  LibvirtException cannotWrite(IOException cause) {
    return new LibvirtException(
        ErrorCode.INTERNAL_ERROR,
        ErrorDomain.HYPERVISOR,
        "internal error: unable to save state of domain '%s': %s"
            .formatted(name, cause.getMessage()),
        cause);
  }

  void putLive(Session of) throws IOException {
    context.state().put(StateStore.Kind.LIVE, name, LiveRecord.write(of.live()));
  }

  /// For changes that a restart derives anyway from the record that is there.
  void putLiveOrLog(Session of) {
    try {
      putLive(of);
    } catch (IOException e) {
      LOG.log(Level.ERROR, name + ": live record", e);
    }
  }

  private void removeLive() {
    try {
      context.state().remove(StateStore.Kind.LIVE, name);
    } catch (IOException e) {
      LOG.log(Level.ERROR, name + ": live record", e);
    }
  }

  private void putDefinition() throws IOException {
    Definition definition = persistent;
    if (definition != null) {
      context
          .state()
          .put(StateStore.Kind.DEFINITION, name, StoredDefinition.write(definition, autostart));
    }
  }

  void putDefinitionOrLog() {
    try {
      putDefinition();
    } catch (IOException e) {
      LOG.log(Level.ERROR, name + ": definition", e);
    }
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

  void deleteFile(Path file) {
    try {
      context.images().delete(file);
    } catch (DriverException e) {
      Level level = e.kind() == DriverException.Kind.MISSING_FILE ? Level.DEBUG : Level.WARNING;
      LOG.log(level, "%s: remove %s".formatted(name, file), e);
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

  /// Ends a domain whose record cannot be trusted to say what its guest writes to.
  void stopForSafety(Session of, String why) {
    if (isCurrent(of)) {
      LOG.log(Level.ERROR, "{0}: stopped: {1}", name, why);
      end(DomainState.SHUTOFF_FAILED, Lifecycle.STOPPED_FAILED, why);
    }
  }

  // ---- jobs

  private void look(JobWatch watch) {
    lock.lock();
    try {
      Session running = session;
      if (running == null || running.watch() != watch) {
        return;
      }
      Optional<String> stopped = watch.stopReason();
      if (stopped.isPresent()) {
        LOG.log(Level.ERROR, "{0}: ended by itself: {1}", name, stopped.get());
        end(DomainState.SHUTOFF_CRASHED, Lifecycle.STOPPED_FAILED, stopped.get());
      } else {
        observe(running);
      }
    } catch (RuntimeException | Error e) {
      LOG.log(Level.ERROR, name + ": looking after jobs", e);
    } finally {
      lock.unlock();
    }
  }

  private boolean isCurrent(Session of) {
    Session running = session;
    return running != null && running.watch() == of.watch();
  }

  /// Brings all jobs to where the driver says they are.
  void observe(Session running) {
    List<JobState> states = running.driver().jobs();
    List<String> known = new ArrayList<>();
    for (LiveDisk disk : running.live().disks()) {
      CopyJob copy = disk.copy();
      if (copy != null && isCurrent(running)) {
        known.add(copy.id());
        copies.observe(running, disk, copy, find(states, copy.id()));
      }
    }
    BackupJob backup = running.live().backup();
    if (backup != null && isCurrent(running)) {
      backup.disks().forEach(disk -> known.add(disk.jobId()));
      backups.observe(running, backup, states);
    }
    for (JobState state : states) {
      if (isCurrent(running)
          && state.status() == DriverJobStatus.CONCLUDED
          && !known.contains(state.id())) {
        dismissUnknown(running, state.id());
      }
    }
  }

  private static Optional<JobState> find(List<JobState> states, String id) {
    return states.stream().filter(state -> state.id().equals(id)).findFirst();
  }

  private void dismissUnknown(Session running, String id) {
    try {
      running.driver().dismissJob(id);
    } catch (DriverException e) {
      LOG.log(Level.DEBUG, name + ": dismiss " + id, e);
    }
  }

  // ---- the end

  /// Stops a running domain. Its bitmaps are stored before its record goes.
  ///
  /// @param why reason of an end that nobody asked for
  private void end(DomainState off, Lifecycle change, @Nullable String why) {
    Session running = session;
    if (running == null) {
      return;
    }
    running.watch().close();
    stopDriver(running);
    BackupJob backup = running.live().backup();
    if (backup != null) {
      backups.domainEnded(backup, why);
    }
    removeLive();
    lifecycle(change); // with the id it had
    session = null;
    offState = off;
    releaseWaiters(running);
    if (persistent == null) {
      checkpoints.dropMetadata();
      forgetSelf();
    }
  }

  private void stopDriver(Session running) {
    try {
      running.driver().stop();
    } catch (DriverException e) {
      LOG.log(Level.ERROR, name + ": stopped, but not all was flushed", e);
    }
  }

  private void releaseWaiters(Session running) {
    for (LiveDisk disk : running.live().disks()) {
      CopyJob copy = disk.copy();
      if (copy != null) {
        copy.end(BlockJobStatus.CANCELED, "");
      }
    }
    running.live().backup(null);
    signal();
  }

  private void forgetSelf() {
    gone = true;
    context.forget().accept(this);
  }

  private LibvirtException notFound() {
    return ErrorCode.NO_DOMAIN.because(
        "no domain with matching uuid '%s' (%s)".formatted(uuid, name));
  }

  /// A verb's body.
  @FunctionalInterface
  private interface Body<T> {
    T run() throws LibvirtException;
  }

  private <T> T locked(Body<T> body) throws LibvirtException {
    lock.lock();
    try {
      if (gone) {
        throw notFound();
      }
      return body.run();
    } finally {
      lock.unlock();
    }
  }
}
