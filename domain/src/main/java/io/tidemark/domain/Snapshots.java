// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The remembered snapshots of one domain: documents, tree, which is current. Every method is
/// called with the domain's lock held.
///
/// **Which is current** stands in the documents. On disk the new current one is written before the
/// old one loses the mark, and a parent takes it before its child is removed; so of two that carry
/// it the one further from the root counts.
final class Snapshots {
  private static final System.Logger LOG = System.getLogger(Snapshots.class.getName());

  /// Most snapshots of a domain.
  static final int MAX_SNAPSHOTS = 1024;

  /// Longest name that still makes a file name in the state folder, escaped.
  private static final int MAX_NAME_BYTES = 200;

  private final MomentTree<SnapshotDocument> tree = new MomentTree<>();
  private final DomainLife domain;
  private final DomainContext context;
  // Null when no snapshot is current.
  private @Nullable String current;

  Snapshots(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  MomentTree<SnapshotDocument> tree() {
    return tree;
  }

  Optional<SnapshotDocument> current() {
    return Optional.ofNullable(current).flatMap(tree::find);
  }

  SnapshotDocument find(String name) throws LibvirtException {
    return tree.find(name)
        .orElseThrow(() ->
            ErrorCode.NO_DOMAIN_SNAPSHOT.because(
                "no domain snapshot with matching name '%s'".formatted(name)));
  }

  /// Those that the flags of virDomainListAllSnapshots choose, parents before children.
  List<SnapshotDocument> list(Optional<SnapshotDocument> start, int flags) {
    return tree.list(start, flags).stream()
        .filter(snapshot -> hasMetadata(flags) && stateFits(snapshot, flags))
        .filter(snapshot -> placeFits(snapshot, flags))
        .toList();
  }

  private static boolean placeFits(SnapshotDocument snapshot, int flags) {
    int wanted = flags & (Flags.SNAPSHOT_LIST_INTERNAL | Flags.SNAPSHOT_LIST_EXTERNAL);
    return wanted == 0
        || Flags.has(
            wanted,
            snapshot.isExternal() ? Flags.SNAPSHOT_LIST_EXTERNAL : Flags.SNAPSHOT_LIST_INTERNAL);
  }

  /// Every snapshot that is known here has metadata.
  private static boolean hasMetadata(int flags) {
    return Flags.has(flags, Flags.SNAPSHOT_LIST_METADATA)
        || !Flags.has(flags, Flags.SNAPSHOT_LIST_NO_METADATA);
  }

  private static boolean stateFits(SnapshotDocument snapshot, int flags) {
    int wanted =
        flags
            & (Flags.SNAPSHOT_LIST_INACTIVE
                | Flags.SNAPSHOT_LIST_ACTIVE
                | Flags.SNAPSHOT_LIST_DISK_ONLY);
    int is =
        switch (snapshot.state()) {
          case SnapshotDocument.SHUTOFF -> Flags.SNAPSHOT_LIST_INACTIVE;
          case SnapshotDocument.DISK_SNAPSHOT -> Flags.SNAPSHOT_LIST_DISK_ONLY;
          default -> Flags.SNAPSHOT_LIST_ACTIVE;
        };
    return wanted == 0 || Flags.has(wanted, is);
  }

  /// Refuses a name that is taken, and one more than there may be.
  void requireNew(String name) throws LibvirtException {
    if (tree.find(name).isPresent()) {
      throw ErrorCode.OPERATION_FAILED.in(
          ErrorDomain.DOMAIN, "domain moment %s already exists".formatted(name));
    }
    requireRoom(name);
  }

  private void requireRoom(String name) throws LibvirtException {
    if (name.getBytes(java.nio.charset.StandardCharsets.UTF_8).length > MAX_NAME_BYTES) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "unable to save metadata for snapshot " + name); // longer than a file name may be
    }
    if (tree.size() >= MAX_SNAPSHOTS) {
      throw ErrorCode.OPERATION_FAILED.because(
          "domain has %d snapshots, limit is %d".formatted(tree.size(), MAX_SNAPSHOTS));
    }
  }

  /// Writes the document of a snapshot that the persistent definition's change committed.
  void finishPending() {
    Optional<SnapshotDocument> pending = domain.stored().pendingSnapshot();
    Definition definition = domain.stored().definition();
    if (pending.isEmpty() || definition == null) {
      return;
    }
    try {
      put(pending.get(), true);
      domain.stored().redefine(definition);
    } catch (IOException e) {
      LOG.log(Level.ERROR, "%s: snapshot %s".formatted(domain.name(), pending.get().name()), e);
    }
  }

  /// Remembers a snapshot, durably, and makes it the current one if asked.
  void put(SnapshotDocument snapshot, boolean asCurrent) throws IOException {
    Optional<SnapshotDocument> before = current();
    write(snapshot, asCurrent || snapshot.name().equals(current));
    tree.put(snapshot);
    if (asCurrent) {
      current = snapshot.name();
      before.filter(old -> !old.name().equals(snapshot.name())).ifPresent(this::writeOrLog);
    }
  }

  private void write(SnapshotDocument snapshot, boolean asCurrent) throws IOException {
    context
        .state()
        .put(
            StateStore.Kind.SNAPSHOT,
            key(snapshot.name()),
            new SnapshotDocument.Stored(snapshot, asCurrent).write());
  }

  /// For a change of a mark that a restart settles anyway.
  private void writeOrLog(SnapshotDocument snapshot) {
    try {
      write(snapshot, snapshot.name().equals(current));
    } catch (IOException e) {
      LOG.log(Level.WARNING, "%s: snapshot %s".formatted(domain.name(), snapshot.name()), e);
    }
  }

  private String key(String snapshot) {
    return domain.name() + "/" + snapshot;
  }

  LibvirtException cannotSave(String name, IOException cause) {
    return new LibvirtException(
        ErrorCode.INTERNAL_ERROR,
        ErrorDomain.HYPERVISOR,
        "internal error: unable to save metadata for snapshot " + name + ": " + cause.getMessage(),
        cause);
  }

  /// Makes another one current, or none.
  void makeCurrent(Optional<SnapshotDocument> next) throws IOException {
    Optional<SnapshotDocument> before = current();
    if (before.map(SnapshotDocument::name).equals(next.map(SnapshotDocument::name))) {
      return;
    }
    if (next.isPresent()) {
      write(next.get(), true);
    }
    current = next.map(SnapshotDocument::name).orElse(null);
    before.ifPresent(this::writeOrLog);
  }

  /// Forgets one; its children get its parent, which becomes current if it was.
  void remove(SnapshotDocument snapshot) throws LibvirtException {
    try {
      for (SnapshotDocument child : tree.children(snapshot)) {
        put(child.withParent(snapshot.parent()), false);
      }
      if (snapshot.name().equals(current)) {
        makeCurrent(tree.parent(snapshot));
      }
      context.state().remove(StateStore.Kind.SNAPSHOT, key(snapshot.name()));
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    }
    tree.remove(snapshot.name());
  }

  /// Takes back the making of a snapshot, whether or not its document was written.
  void forget(SnapshotDocument snapshot) {
    try {
      if (tree.find(snapshot.name()).isPresent()) {
        remove(snapshot);
      } else {
        context.state().remove(StateStore.Kind.SNAPSHOT, key(snapshot.name()));
      }
    } catch (IOException | LibvirtException e) {
      LOG.log(Level.WARNING, "%s: snapshot %s".formatted(domain.name(), snapshot.name()), e);
    }
  }

  /// Forgets all; files stay.
  void dropMetadata() {
    for (SnapshotDocument snapshot : List.copyOf(tree.all())) {
      try {
        context.state().remove(StateStore.Kind.SNAPSHOT, key(snapshot.name()));
      } catch (IOException e) {
        LOG.log(Level.WARNING, "%s: snapshot %s".formatted(domain.name(), snapshot.name()), e);
      }
    }
    tree.clear();
    current = null;
  }

  /// At the daemon's start, in any order; [#settleCurrent] after the last.
  void restore(SnapshotDocument.Stored stored) {
    tree.put(stored.document());
    if (stored.current()) {
      restoredCurrent.add(stored.document().name());
    }
  }

  private final List<String> restoredCurrent = new ArrayList<>();

  void settleCurrent() {
    List<String> order = tree.topological().stream().map(SnapshotDocument::name).toList();
    current =
        restoredCurrent.stream()
            .max(java.util.Comparator.comparingInt(order::indexOf))
            .orElse(null);
    restoredCurrent.clear();
  }

  /// Takes up a snapshot of earlier as a client tells it.
  SnapshotDocument redefine(SnapshotXml request, boolean diskOnly, boolean asCurrent)
      throws LibvirtException {
    SnapshotXml.Past past = request.past().orElseThrow();
    String name = request.name().orElseThrow();
    requireParent(name, past);
    boolean disks = past.state().equals(SnapshotDocument.DISK_SNAPSHOT);
    if (diskOnly && !disks) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN_SNAPSHOT,
          "disk-only flag for snapshot %s requires disk-snapshot state".formatted(name));
    }
    Optional<XmlElement> document = past.domain();
    if (document.isPresent()) {
      requireDomain(name, document.get());
    }
    Optional<SnapshotDocument> other = tree.find(name);
    if (other.isPresent()) {
      requireSameKind(name, past, other.get());
      document = document.or(other.get()::domain);
    }
    XmlElement described =
        document.orElseThrow(() ->
            ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN_SNAPSHOT, "missing domain in snapshot"));
    boolean offline = disks || past.state().equals(SnapshotDocument.SHUTOFF);
    SnapshotDocument.Memory memory =
        request
            .memory()
            .orElse(
                offline
                    ? SnapshotDocument.Memory.NONE
                    : new SnapshotDocument.Memory(
                        SnapshotDocument.Location.INTERNAL, Optional.empty()));
    boolean external =
        disks
            || memory.location() == SnapshotDocument.Location.EXTERNAL
            || request.disks().stream()
                .anyMatch(disk -> disk.is(SnapshotDocument.Location.EXTERNAL));
    SnapshotDisks alignment =
        new SnapshotDisks(
            context.images(),
            name,
            external ? SnapshotDocument.Location.EXTERNAL : SnapshotDocument.Location.INTERNAL,
            !external);
    SnapshotDocument snapshot =
        new SnapshotDocument(
            name,
            request.description(),
            past.parent(),
            past.creationTime(),
            past.state(),
            memory,
            alignment.align(request.disks(), Definition.ofStored(described).disks()),
            document,
            past.inactiveDomain());
    if (other.isEmpty()) {
      requireRoom(name);
    }
    try {
      put(snapshot, asCurrent);
    } catch (IOException e) {
      throw cannotSave(name, e);
    }
    return snapshot;
  }

  private void requireParent(String name, SnapshotXml.Past past) throws LibvirtException {
    if (past.parent().isEmpty()) {
      return;
    }
    String parent = past.parent().get();
    if (parent.equals(name)) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "cannot set moment %s as its own parent".formatted(name));
    }
    SnapshotDocument above =
        tree.find(parent)
            .orElseThrow(() ->
                ErrorCode.INVALID_ARG.in(
                    ErrorDomain.DOMAIN,
                    "parent %s for moment %s not found".formatted(parent, name)));
    Optional<SnapshotDocument> old = tree.find(name);
    if (old.isPresent() && tree.descends(above, old.get())) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "parent %s would create cycle to %s".formatted(parent, name));
    }
  }

  private void requireDomain(String name, XmlElement document) throws LibvirtException {
    if (document.childText("name").isEmpty()) {
      throw new LibvirtException(ErrorCode.NO_NAME, ErrorDomain.DOMAIN, "missing name information");
    }
    if (!Uuids.parse(document.childText("uuid").strip()).equals(Optional.of(domain.uuid()))) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN_SNAPSHOT,
          "definition for snapshot %s must use uuid %s".formatted(name, domain.uuid()));
    }
  }

  private static void requireSameKind(String name, SnapshotXml.Past past, SnapshotDocument other)
      throws LibvirtException {
    boolean offline =
        past.state().equals(SnapshotDocument.SHUTOFF)
            || past.state().equals(SnapshotDocument.DISK_SNAPSHOT);
    if (offline != other.isOffline()) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN_SNAPSHOT,
          "cannot change between online and offline snapshot state in snapshot " + name);
    }
    if (past.state().equals(SnapshotDocument.DISK_SNAPSHOT)
        != other.state().equals(SnapshotDocument.DISK_SNAPSHOT)) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN_SNAPSHOT,
          "cannot change between disk only and full system in snapshot " + name);
    }
  }
}
