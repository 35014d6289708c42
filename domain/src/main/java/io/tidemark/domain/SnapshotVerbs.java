// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.SnapshotDocument.Location;
import io.tidemark.domain.SnapshotDocument.Memory;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What clients ask about a domain's snapshots. Safe for any thread.
///
/// Spec: libvirt 9.0.0 `virDomainSnapshot*`; refusals, their order and words as measured.
public final class SnapshotVerbs {
  private static final int CREATE_FLAGS =
      Flags.SNAPSHOT_REDEFINE
          | Flags.SNAPSHOT_CURRENT
          | Flags.SNAPSHOT_NO_METADATA
          | Flags.SNAPSHOT_HALT
          | Flags.SNAPSHOT_DISK_ONLY
          | Flags.SNAPSHOT_REUSE_EXT
          | Flags.SNAPSHOT_QUIESCE
          | Flags.SNAPSHOT_ATOMIC
          | Flags.SNAPSHOT_LIVE
          | Flags.SNAPSHOT_VALIDATE;

  private static final int LIST_FLAGS =
      Flags.SNAPSHOT_LIST_ROOTS
          | Flags.SNAPSHOT_LIST_METADATA
          | Flags.SNAPSHOT_LIST_LEAVES
          | Flags.SNAPSHOT_LIST_NO_LEAVES
          | Flags.SNAPSHOT_LIST_NO_METADATA
          | Flags.SNAPSHOT_LIST_INACTIVE
          | Flags.SNAPSHOT_LIST_ACTIVE
          | Flags.SNAPSHOT_LIST_DISK_ONLY
          | Flags.SNAPSHOT_LIST_INTERNAL
          | Flags.SNAPSHOT_LIST_EXTERNAL
          | Flags.SNAPSHOT_LIST_TOPOLOGICAL;

  private final Domain owner;
  private final DomainLife life;
  private final DomainContext context;
  private final JobVerbs jobs;

  SnapshotVerbs(Domain owner, DomainContext context, JobVerbs jobs) {
    this.owner = owner;
    this.life = owner.life();
    this.context = context;
    this.jobs = jobs;
  }

  Domain domain() {
    return owner;
  }

  private Snapshots snapshots() {
    return life.snapshots();
  }

  private Snapshot handle(SnapshotDocument document) {
    return new Snapshot(this, document.name());
  }

  /// virDomainSnapshotCreateXML.
  public Snapshot create(String xml, int flags) throws LibvirtException {
    checkCreateFlags(flags);
    return life.locked(() -> {
      boolean running = life.runningSession().isPresent();
      if (Flags.has(flags, Flags.SNAPSHOT_HALT) && life.persistentDefinition().isEmpty()) {
        throw ErrorCode.OPERATION_INVALID.because("cannot halt after transient domain snapshot");
      }
      if (!running && !life.checkpoints().tree().isEmpty()) {
        // Nobody would carry the bitmaps over into the overlay.
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "cannot perform block operations while checkpoint exists");
      }
      boolean diskOnly = Flags.has(flags, Flags.SNAPSHOT_DISK_ONLY);
      boolean redefine = Flags.has(flags, Flags.SNAPSHOT_REDEFINE);
      SnapshotXml request =
          SnapshotXml.parse(
              xml,
              new SnapshotXml.Mode(
                  redefine, diskOnly || !running, Flags.has(flags, Flags.SNAPSHOT_VALIDATE)));
      if (!Flags.has(flags, Flags.SNAPSHOT_NO_METADATA)) {
        checkName(request.name().orElse(""));
      }
      boolean external =
          request.memory().filter(memory -> memory.location() == Location.EXTERNAL).isPresent();
      if (Flags.has(flags, Flags.SNAPSHOT_LIVE) && (!running || !external)) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "live snapshot creation is supported only during full system snapshots");
      }
      if (redefine) {
        return handle(
            snapshots().redefine(request, diskOnly, Flags.has(flags, Flags.SNAPSHOT_CURRENT)));
      }
      jobs.awaitNoBackup();
      return handle(take(request, flags));
    });
  }

  private static void checkCreateFlags(int flags) throws LibvirtException {
    Flags.require(
        flags,
        Flags.SNAPSHOT_CURRENT,
        "VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT",
        Flags.SNAPSHOT_REDEFINE,
        "VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE",
        ErrorDomain.DOMAIN_SNAPSHOT);
    Flags.exclusive(
        flags,
        Flags.SNAPSHOT_REDEFINE,
        "VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE",
        Flags.SNAPSHOT_NO_METADATA,
        "VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA",
        ErrorDomain.DOMAIN_SNAPSHOT);
    Flags.check(flags, CREATE_FLAGS, "qemuSnapshotCreateXML");
    Flags.require(
        flags,
        Flags.SNAPSHOT_QUIESCE,
        "VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE",
        Flags.SNAPSHOT_DISK_ONLY,
        "VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY",
        ErrorDomain.HYPERVISOR);
    Flags.exclusive(
        flags,
        Flags.SNAPSHOT_LIVE,
        "VIR_DOMAIN_SNAPSHOT_CREATE_LIVE",
        Flags.SNAPSHOT_REDEFINE,
        "VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE",
        ErrorDomain.HYPERVISOR);
  }

  private static void checkName(String name) throws LibvirtException {
    String why = name.contains("/") ? "contain '/'" : name.startsWith(".") ? "start with '.'" : "";
    if (!why.isEmpty()) {
      throw new LibvirtException(
          ErrorCode.XML_DETAIL,
          ErrorDomain.HYPERVISOR,
          "invalid snapshot name '%s': name can't %s".formatted(name, why));
    }
  }

  private SnapshotDocument take(SnapshotXml request, int flags) throws LibvirtException {
    Optional<Session> running = life.runningSession();
    SnapshotDocument snapshot = describe(request, flags, running);
    boolean reuse = Flags.has(flags, Flags.SNAPSHOT_REUSE_EXT);
    boolean metadata = !Flags.has(flags, Flags.SNAPSHOT_NO_METADATA);
    prepare(snapshot, running, reuse);
    if (metadata) {
      snapshots().requireNew(snapshot.name());
    }
    ExternalSnapshot external = new ExternalSnapshot(life, context, snapshot, reuse, metadata);
    if (running.isEmpty()) {
      Definition definition = life.persistentDefinition().orElseThrow();
      if (snapshot.isExternal()) {
        external.takeOfShutOff(definition);
      } else {
        new InternalSnapshot(life, context).take(snapshot, metadata);
      }
      return snapshot;
    }
    if (!Flags.has(flags, Flags.SNAPSHOT_DISK_ONLY)) {
      throw noMemory(running.get(), snapshot, Flags.has(flags, Flags.SNAPSHOT_LIVE));
    }
    if (Flags.has(flags, Flags.SNAPSHOT_QUIESCE)) {
      throw GuestAgent.missing(life);
    }
    external.takeOfRunning(running.get());
    if (Flags.has(flags, Flags.SNAPSHOT_HALT)) {
      life.halt();
    }
    return snapshot;
  }

  /// A domain without a CPU has no memory to keep, and to leave it out would not be what was asked.
  private LibvirtException noMemory(Session running, SnapshotDocument snapshot, boolean live)
      throws LibvirtException {
    if (snapshot.memory().location() == Location.EXTERNAL && running.live().hasBlockJob()) {
      if (!live && !running.live().state().isPaused()) {
        owner.suspend(); // libvirt holds the guest before it finds the job, and clients see it
        owner.resume();
      }
      return ErrorCode.OPERATION_INVALID.because("domain has active block job");
    }
    return ErrorCode.OPERATION_UNSUPPORTED.because(
        "a running domain of type '%s' has no memory to take a snapshot of; only disk-only"
                .formatted(running.live().definition().type())
            + " snapshots are supported");
  }

  private SnapshotDocument describe(SnapshotXml request, int flags, Optional<Session> running)
      throws LibvirtException {
    long now = context.environment().clock().instant().getEpochSecond();
    String name = request.name().orElse(String.valueOf(now));
    boolean diskOnly = Flags.has(flags, Flags.SNAPSHOT_DISK_ONLY);
    Optional<Memory> asked = request.memory();
    boolean external = asked.filter(memory -> memory.location() == Location.EXTERNAL).isPresent();
    String state = SnapshotDocument.SHUTOFF;
    Memory memory = Memory.NONE;
    if (running.isPresent()) {
      state =
          diskOnly
              ? SnapshotDocument.DISK_SNAPSHOT
              : running.get().live().state().isPaused() ? "paused" : "running";
      if (!diskOnly && asked.filter(found -> found.location() == Location.NO).isPresent()) {
        throw ErrorCode.OPERATION_UNSUPPORTED.because(
            "internal snapshot of a running VM must include the memory state");
      }
      if (!diskOnly) {
        memory = asked.orElse(new Memory(Location.INTERNAL, Optional.empty()));
      }
    }
    Location usual = diskOnly || external ? Location.EXTERNAL : Location.INTERNAL;
    Definition shown =
        running
            .map(session -> session.live().definition())
            .or(life::persistentDefinition)
            .orElseThrow();
    List<Disk> disks = new ArrayList<>();
    for (Disk disk :
        new SnapshotDisks(context.images(), name, usual, usual == Location.INTERNAL)
            .align(request.disks(), shown.disks())) {
      boolean settled = !disk.is(Location.EXTERNAL) || disk.format().isPresent();
      disks.add(settled ? disk : disk.as("qcow2"));
    }
    return new SnapshotDocument(
        name,
        request.description(),
        snapshots().current().map(SnapshotDocument::name),
        now,
        state,
        memory,
        disks,
        Optional.of(shown.root().copy()),
        running.isPresent()
            ? life.persistentDefinition().map(definition -> definition.root().copy())
            : Optional.empty());
  }

  private void prepare(SnapshotDocument snapshot, Optional<Session> running, boolean reuse)
      throws LibvirtException {
    Definition definition = life.definition().orElseThrow();
    boolean leavesOut = false;
    int internal = 0;
    for (Disk disk : snapshot.disks()) {
      if (!disk.is(Location.NO) && running.isPresent()) {
        BlockJobs.checkIdle(running.get().live().disk(disk.name()), running.get().live());
      }
      DiskElement element = definition.disk(disk.name()).orElseThrow();
      if (disk.is(Location.EXTERNAL)) {
        ExternalSnapshot.check(life, disk, reuse);
        if (element.source().isEmpty()) {
          throw ExternalSnapshot.noMedium(disk);
        }
      } else if (disk.is(Location.INTERNAL)) {
        internal++;
        if (snapshot.state().equals(SnapshotDocument.DISK_SNAPSHOT)) {
          throw ErrorCode.CONFIG_UNSUPPORTED.because(
              "active qemu domains require external disk snapshots; disk %s requested internal"
                  .formatted(disk.name()));
        }
        if (!element.format().equals("qcow2")) {
          throw ErrorCode.CONFIG_UNSUPPORTED.because(
              "internal snapshot for disk %s unsupported for storage type %s"
                  .formatted(disk.name(), element.format()));
        }
      } else if (disk.is(Location.NO)) {
        leavesOut |= element.source().isPresent() && !element.readOnly();
      }
    }
    checkMixture(snapshot, internal, leavesOut);
  }

  private static void checkMixture(SnapshotDocument snapshot, int internal, boolean leavesOut)
      throws LibvirtException {
    int external = snapshot.external().size();
    Location memory = snapshot.memory().location();
    if (internal == 0 && external == 0 && memory == Location.NO) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because("nothing selected for snapshot");
    }
    if ((memory == Location.INTERNAL && internal == 0) || (internal > 0 && leavesOut)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "internal and full system snapshots require all disks to be selected for snapshot");
    }
    if (internal > 0 && (external > 0 || memory == Location.EXTERNAL)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "mixing internal and external targets for a snapshot is not yet supported");
    }
  }

  /// virDomainListAllSnapshots, parents before children.
  public List<Snapshot> list(int flags) throws LibvirtException {
    return list(flags, "qemuDomainListAllSnapshots");
  }

  /// virDomainSnapshotNum and virDomainSnapshotListNames.
  public List<String> names(int flags) throws LibvirtException {
    return list(flags, "qemuDomainSnapshotNum").stream().map(Snapshot::name).toList();
  }

  private List<Snapshot> list(int flags, String function) throws LibvirtException {
    Flags.check(flags, LIST_FLAGS, function);
    return life.locked(
        () -> snapshots().list(Optional.empty(), flags).stream().map(this::handle).toList());
  }

  List<Snapshot> children(String parent, int flags, String function) throws LibvirtException {
    Flags.check(flags, LIST_FLAGS, function);
    return life.locked(() ->
        snapshots().list(Optional.of(snapshots().find(parent)), flags).stream()
            .map(this::handle)
            .toList());
  }

  public Snapshot lookupByName(String name, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSnapshotLookupByName");
    return life.locked(() -> handle(snapshots().find(name)));
  }

  public boolean hasCurrent(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainHasCurrentSnapshot");
    return life.locked(() -> snapshots().current().isPresent());
  }

  public Snapshot current(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSnapshotCurrent");
    return life.locked(() ->
        handle(
            snapshots()
                .current()
                .orElseThrow(() ->
                    ErrorCode.NO_DOMAIN_SNAPSHOT.because(
                        "the domain does not have a current snapshot"))));
  }

  Snapshot parent(String child, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSnapshotGetParent");
    return life.locked(() ->
        snapshots()
            .tree()
            .parent(snapshots().find(child))
            .map(this::handle)
            .orElseThrow(() ->
                ErrorCode.NO_DOMAIN_SNAPSHOT.because(
                    "snapshot '%s' does not have a parent".formatted(child))));
  }

  String xmlDesc(String name, int flags) throws LibvirtException {
    Flags.check(flags, Flags.SNAPSHOT_XML_SECURE, "qemuDomainSnapshotGetXMLDesc");
    return life.locked(() -> Xml.write(snapshots().find(name).toXml()));
  }

  boolean isCurrent(String name, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSnapshotIsCurrent");
    return life.locked(() -> {
      SnapshotDocument found = snapshots().find(name);
      return snapshots()
          .current()
          .filter(current -> current.name().equals(found.name()))
          .isPresent();
    });
  }

  boolean hasMetadata(String name, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSnapshotHasMetadata");
    return life.locked(() -> snapshots().tree().find(snapshots().find(name).name()).isPresent());
  }

  void delete(String name, int flags) throws LibvirtException {
    Flags.exclusive(
        flags,
        Flags.SNAPSHOT_DELETE_CHILDREN,
        "VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN",
        Flags.SNAPSHOT_DELETE_CHILDREN_ONLY,
        "VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY",
        ErrorDomain.DOMAIN_SNAPSHOT);
    Flags.check(
        flags,
        Flags.SNAPSHOT_DELETE_CHILDREN
            | Flags.SNAPSHOT_DELETE_METADATA_ONLY
            | Flags.SNAPSHOT_DELETE_CHILDREN_ONLY,
        "qemuSnapshotDelete");
    life.run(() -> {
      jobs.awaitNoBackup();
      new SnapshotDeletion(life, context).delete(snapshots().find(name), flags);
    });
  }

  void revert(String name, int flags) throws LibvirtException {
    Flags.exclusive(
        flags,
        Flags.SNAPSHOT_REVERT_RUNNING,
        "VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING",
        Flags.SNAPSHOT_REVERT_PAUSED,
        "VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED",
        ErrorDomain.DOMAIN_SNAPSHOT);
    Flags.check(
        flags,
        Flags.SNAPSHOT_REVERT_RUNNING
            | Flags.SNAPSHOT_REVERT_PAUSED
            | Flags.SNAPSHOT_REVERT_FORCE
            | Flags.SNAPSHOT_REVERT_RESET_NVRAM,
        "qemuSnapshotRevert");
    life.run(() -> {
      SnapshotDocument snapshot = snapshots().find(name);
      jobs.awaitNoBackup();
      new SnapshotRevert(life, context).run(snapshot, flags);
    });
  }
}
