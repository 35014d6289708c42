// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.ImageSizes;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/// One domain, running or not. Safe for any thread. A domain that is gone (transient and stopped,
/// or undefined) answers every call with "domain not found".
///
/// `flags` are libvirt's bits for the verb, see [Flags]; unknown ones are refused as libvirt does.
public final class Domain {
  private final DomainLife life;
  private final JobVerbs jobs;
  private final DiskFacts facts;
  private final SnapshotVerbs snapshots;
  private final DeviceVerbs devices;
  private final TuneVerbs tuning;
  private final MetadataVerbs metadata;
  private final MachineVerbs machine;
  private final SizeVerbs sizes;

  Domain(DomainContext context, String name, UUID uuid) {
    life = new DomainLife(context, name, uuid);
    jobs = new JobVerbs(life, context);
    facts = new DiskFacts(life, context);
    snapshots = new SnapshotVerbs(this, context, jobs);
    devices = new DeviceVerbs(life, context);
    tuning = new TuneVerbs(life);
    metadata = new MetadataVerbs(life);
    machine = new MachineVerbs(life, jobs);
    sizes = new SizeVerbs(life);
  }

  /// For the registry.
  DomainLife life() {
    return life;
  }

  /// virDomainSnapshot*.
  public SnapshotVerbs snapshots() {
    return snapshots;
  }

  /// Plugging disks in and out.
  public DeviceVerbs devices() {
    return devices;
  }

  /// Limits and thresholds of disks.
  public MetadataVerbs metadata() {
    return metadata;
  }

  public TuneVerbs tuning() {
    return tuning;
  }

  /// What a domain without processor and memory answers for them.
  public MachineVerbs machine() {
    return machine;
  }

  /// Processors and memory of the definition.
  public SizeVerbs sizes() {
    return sizes;
  }

  public String name() {
    return life.name();
  }

  public UUID uuid() {
    return life.uuid();
  }

  /// Positive while it runs, else -1.
  public int id() {
    return life.id();
  }

  public DomainRef ref() {
    return life.ref();
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
    run(() -> life.create(flags, connection));
  }

  public void destroy(int flags) throws LibvirtException {
    Flags.check(
        flags, Flags.DESTROY_GRACEFUL | Flags.DESTROY_REMOVE_LOGS, "qemuDomainDestroyFlags");
    run(life::destroy);
  }

  /// A domain without a CPU has nobody to ask: it stops, flushed, with the reason SHUTDOWN.
  public void shutdown(int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.SHUTDOWN_ACPI_POWER_BTN | Flags.SHUTDOWN_GUEST_AGENT,
        "qemuDomainShutdownFlags");
    run(() -> {
      GuestAgent.refuse(life, flags);
      life.shutdown();
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
    run(() -> life.persistence().undefine(flags));
  }

  public void suspend() throws LibvirtException {
    machine.suspend();
  }

  public void resume() throws LibvirtException {
    machine.resume();
  }

  /// virDomainGetMessages: the jobs that a restart of the daemon ended since the domain started.
  /// libvirt's own kinds, which flags choose, are never there.
  public List<String> messages(int flags) throws LibvirtException {
    Flags.check(flags, Flags.MESSAGES, "qemuDomainGetMessages");
    return life.locked(() ->
        life.runningSession()
            .filter(_ -> flags == 0)
            .map(running -> running.live().lost())
            .orElse(List.of()));
  }

  public String xmlDesc(int flags) throws LibvirtException {
    Flags.check(
        flags,
        Flags.XML_SECURE | Flags.XML_INACTIVE | Flags.XML_UPDATE_CPU | Flags.XML_MIGRATABLE,
        "qemuDomainGetXMLDesc");
    return life.locked(() -> {
      Optional<Session> running = life.runningSession();
      Optional<Definition> definition = life.persistentDefinition();
      boolean inactive = Flags.has(flags, Flags.XML_INACTIVE);
      XmlElement shown;
      if (running.isPresent() && !(inactive && definition.isPresent())) {
        Live live = running.get().live();
        shown = inactive ? DomainXml.inactiveOfTransient(live) : DomainXml.live(live);
      } else {
        shown = definition.orElseThrow(this::notShown).root();
      }
      boolean secure = Flags.has(flags, Flags.XML_SECURE | Flags.XML_MIGRATABLE);
      return Xml.write(secure ? shown : DomainXml.withoutSecrets(shown));
    });
  }

  /// virDomainGetState.
  public DomainState state(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetState");
    return state();
  }

  public DomainState state() throws LibvirtException {
    return life.locked(life::state);
  }

  public DomainInfo info() throws LibvirtException {
    return life.locked(() -> {
      int state = life.state().state();
      return life.definition()
          .map(definition ->
              new DomainInfo(
                  state,
                  definition.memoryKib(),
                  definition.currentMemoryKib(),
                  definition.currentVcpus(),
                  0))
          .orElse(new DomainInfo(state, 0, 0, 0, 0));
    });
  }

  public boolean isActive() throws LibvirtException {
    return life.locked(() -> life.runningSession().isPresent());
  }

  public boolean isPersistent() throws LibvirtException {
    return life.locked(() -> life.persistentDefinition().isPresent());
  }

  /// virDomainIsUpdated: always no, as libvirt answers for QEMU's domains too.
  public boolean isUpdated() throws LibvirtException {
    return life.locked(() -> false);
  }

  public boolean autostart() throws LibvirtException {
    return life.locked(life.persistence()::autostart);
  }

  public void setAutostart(boolean wanted) throws LibvirtException {
    run(() -> life.persistence().setAutostart(wanted));
  }

  /// Why the guest's agent cannot be asked: no guest here has one.
  public LibvirtException noAgent() throws LibvirtException {
    return life.locked(() -> {
      Session running = life.requireActive();
      assert life.isCurrent(running);
      return GuestAgent.missing(life);
    });
  }

  public String osType() throws LibvirtException {
    return life.locked(() -> life.definition().map(Definition::osType).orElse("hvm"));
  }

  /// virDomainGetBlockInfo.
  ///
  /// @param disk target or path of the active layer
  public ImageSizes blockInfo(String disk, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetBlockInfo");
    return life.locked(() -> facts.blockInfo(disk));
  }

  /// virDomainBlockStats; an empty `disk` sums all.
  public BlockStats blockStats(String disk) throws LibvirtException {
    return life.locked(() -> facts.blockStats(disk));
  }

  /// virDomainBlockStatsFlags, all fields.
  public List<TypedParam> blockStatsParams(String disk, int flags) throws LibvirtException {
    Flags.check(flags, 4, "qemuDomainBlockStatsFlags"); // VIR_TYPED_PARAM_STRING_OKAY
    return life.locked(() -> facts.blockStatsParams(disk));
  }

  /// virDomainGetDiskErrors: how many disks may be in error at most.
  public int diskErrorsAtMost(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetDiskErrors");
    return life.locked(() -> life.requireActive().live().disks().size());
  }

  /// virDomainGetDiskErrors: the disks whose requests failed and are held.
  public List<DiskError> diskErrors(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetDiskErrors");
    return life.locked(() -> DiskErrors.of(life.requireActive()));
  }

  /// The domain's part of virConnectGetAllDomainStats: `state.*`, `balloon.*`, `vcpu.*`, `block.*`.
  ///
  /// @param types virDomainStatsTypes, 0 for all
  public List<TypedParam> stats(int types, int flags) throws LibvirtException {
    return life.locked(() -> facts.stats(types, flags));
  }

  /// virDomainBlockCopy.
  public void blockCopy(String disk, String destXml, List<TypedParam> params, int flags)
      throws LibvirtException {
    BlockCopies.Request request = BlockCopyRequest.ofCopy(destXml, params, flags);
    run(() -> life.copies().start(life.requireActive(), disk, request));
  }

  /// virDomainBlockRebase; without COPY it is a pull.
  ///
  /// @param base the destination with COPY; null is libvirt's NULL
  /// @param bandwidth MiB/s, or bytes/s with `REBASE_BANDWIDTH_BYTES`
  public void blockRebase(String disk, @Nullable String base, long bandwidth, int flags)
      throws LibvirtException {
    BlockCopyRequest.Rebase rebase =
        BlockCopyRequest.ofRebase(Optional.ofNullable(base), bandwidth, flags);
    run(() -> {
      Session running = life.requireActive();
      if (rebase.copy().isPresent()) {
        life.copies().start(running, disk, rebase.copy().get());
      } else {
        life.chainJobs().pull(running, disk, rebase.pull().orElseThrow());
      }
    });
  }

  /// virDomainBlockPull.
  ///
  /// @param bandwidth MiB/s, or bytes/s with `REBASE_BANDWIDTH_BYTES`
  public void blockPull(String disk, long bandwidth, int flags) throws LibvirtException {
    Flags.check(flags, Flags.REBASE_BANDWIDTH_BYTES, "qemuDomainBlockPull");
    boolean inBytes = Flags.has(flags, Flags.REBASE_BANDWIDTH_BYTES);
    ChainJobs.PullRequest request =
        new ChainJobs.PullRequest(
            Optional.empty(), false, BlockCopyRequest.bytesPerSecond(bandwidth, inBytes));
    run(() -> life.chainJobs().pull(life.requireActive(), disk, request));
  }

  /// virDomainBlockCommit.
  ///
  /// @param base null is libvirt's NULL: the last image of the chain
  /// @param top null is libvirt's NULL: the active layer
  /// @param bandwidth MiB/s, or bytes/s with `COMMIT_BANDWIDTH_BYTES`
  public void blockCommit(
      String disk, @Nullable String base, @Nullable String top, long bandwidth, int flags)
      throws LibvirtException {
    ChainJobs.CommitRequest request =
        ChainJobs.CommitRequest.of(
            Optional.ofNullable(base), Optional.ofNullable(top), bandwidth, flags);
    run(() -> {
      Optional<Session> running = life.runningSession();
      if (running.isEmpty()) {
        throw life.chainJobs().notRunning(facts.definedTarget(disk), request);
      }
      life.chainJobs().commit(running.get(), disk, request);
    });
  }

  /// virDomainBlockResize.
  ///
  /// @param size KiB, or bytes with `RESIZE_BYTES`; as the wire has it, unsigned
  public void blockResize(String disk, long size, int flags) throws LibvirtException {
    Flags.check(flags, Flags.RESIZE_BYTES, "qemuDomainBlockResize");
    long bytes = DiskFacts.bytes(size, Flags.has(flags, Flags.RESIZE_BYTES));
    run(() -> facts.resize(disk, bytes));
  }

  /// virDomainBlockPeek: bytes of a raw disk, running or not.
  ///
  /// @param offset as the wire has it, unsigned
  public ByteBuffer blockPeek(String disk, long offset, int size, int flags)
      throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainBlockPeek");
    return life.locked(() -> facts.peek(disk, offset, size));
  }

  /// virDomainBlockJobAbort. Without ASYNC it returns when the job is over.
  public void blockJobAbort(String disk, int flags) throws LibvirtException {
    run(() -> jobs.abort(disk, flags));
  }

  /// virDomainGetBlockJobInfo; empty when the disk has no job.
  public Optional<BlockJobInfo> blockJobInfo(String disk, int flags) throws LibvirtException {
    return life.locked(() -> jobs.info(disk, flags));
  }

  public void blockJobSetSpeed(String disk, long bandwidth, int flags) throws LibvirtException {
    run(() -> jobs.setSpeed(disk, bandwidth, flags));
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
    return life.locked(() -> {
      if (Flags.has(flags, Flags.CHECKPOINT_REDEFINE)) {
        boolean validate = Flags.has(flags, Flags.CHECKPOINT_REDEFINE_VALIDATE);
        CheckpointDocument.Request request = CheckpointDocument.parse(xml);
        return new Checkpoint(this, life.checkpoints().redefine(request, validate));
      }
      Session running =
          life.runningSession()
              .orElseThrow(() ->
                  ErrorCode.OPERATION_UNSUPPORTED.because(
                      "cannot create checkpoint for inactive domain"));
      CheckpointDocument.Request request = CheckpointDocument.parse(xml);
      CheckpointDocument made = life.checkpoints().prepare(running, request);
      life.checkpoints().create(running, made);
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
    return life.locked(() -> wrap(life.checkpoints().tree().list(Optional.empty(), flags)));
  }

  List<Checkpoint> checkpointChildren(String parent, int flags) throws LibvirtException {
    Flags.check(flags, CHECKPOINT_LIST_FLAGS, "qemuDomainCheckpointListAllChildren");
    return life.locked(() ->
        wrap(life.checkpoints().tree().list(Optional.of(life.checkpoints().find(parent)), flags)));
  }

  private List<Checkpoint> wrap(List<CheckpointDocument> documents) {
    return documents.stream().map(document -> new Checkpoint(this, document.name())).toList();
  }

  public Checkpoint checkpointLookupByName(String checkpoint, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainCheckpointLookupByName");
    return life.locked(() -> new Checkpoint(this, life.checkpoints().find(checkpoint).name()));
  }

  Checkpoint checkpointParent(String child, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainCheckpointGetParent");
    return life.locked(() -> {
      CheckpointDocument document = life.checkpoints().find(child);
      return life.checkpoints()
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
    return life.locked(() -> life.checkpoints().xmlDesc(checkpoint, flags, life.runningSession()));
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
    run(() -> {
      if (life.runningSession().isEmpty()
          && !Flags.has(flags, Flags.CHECKPOINT_DELETE_METADATA_ONLY)) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "cannot delete checkpoint for inactive domain");
      }
      life.checkpoints().delete(checkpoint, flags, life.runningSession());
    });
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
    Optional<BackupServer> served = backup.server().map(BackupServer::resolved);
    boolean reuse = Flags.has(flags, Flags.BACKUP_REUSE_EXTERNAL);
    run(() -> {
      jobs.awaitNoBackup();
      Session running = life.runningSession().orElseThrow(Domain::noBackupOfInactive);
      life.backups().begin(running, backup, checkpoint, served, reuse);
    });
  }

  private static LibvirtException noBackupOfInactive() {
    return ErrorCode.OPERATION_UNSUPPORTED.because(
        "cannot perform disk backup for inactive domain");
  }

  public String backupXmlDesc(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuBackupGetXMLDesc");
    return life.locked(() -> jobs.backupXmlDesc());
  }

  public JobInfo jobInfo() throws LibvirtException {
    return life.locked(() -> jobs.jobInfo());
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
    return life.locked(() -> {
      if (!Flags.has(flags, Flags.JOB_STATS_COMPLETED)) {
        return jobs.jobStats();
      }
      JobStats last = life.completed();
      if (!keep) {
        life.completed(JobStats.NONE);
      }
      return last;
    });
  }

  /// virDomainAbortJobFlags: asks a backup to end; returns before it has.
  public void abortJob(int flags) throws LibvirtException {
    Flags.check(flags, Flags.ABORT_JOB_POSTCOPY, "qemuDomainAbortJobFlags");
    run(() -> {
      if (Flags.has(flags, Flags.ABORT_JOB_POSTCOPY)) {
        Session _ = life.requireActive();
        throw ErrorCode.OPERATION_INVALID.because(
            "current job is not outgoing migration in post-copy mode");
      }
      jobs.abortJob();
    });
  }

  private LibvirtException notShown() {
    return ErrorCode.OPERATION_INVALID.because(
        life.blockedBecause().orElse("domain has no definition"));
  }

  private void run(DomainLife.Verb verb) throws LibvirtException {
    life.run(verb);
  }
}
