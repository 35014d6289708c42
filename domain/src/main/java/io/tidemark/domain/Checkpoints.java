// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.StateStore;
import io.tidemark.domain.spi.TransactionAction;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Checkpoints of one domain. Every method is called with the domain's lock held.
///
/// A checkpoint is a bitmap of its name in each of its disks and a document. Every bitmap records
/// from its checkpoint on until it is removed, as libvirt 9.0.0 has it (measured): the bytes since
/// a checkpoint are those of its bitmap alone, and deleting one is removing it.
///
/// **Crash order of creating.** (1) The live record names the checkpoint as pending; (2) the
/// transaction adds the bitmaps, durably claimed in their images; (3) the document is written: the
/// checkpoint exists; (4) the live record no longer names it. A restart between 1 and 3 removes the
/// bitmaps.
///
/// **Crash order of deleting.** (1) Bitmaps are removed; (2) children get the parent; (3) the
/// document is removed. A restart between 1 and 3 shows the checkpoint still; increments from it
/// are refused (109), deleting it with METADATA_ONLY works.
final class Checkpoints {
  private static final System.Logger LOG = System.getLogger(Checkpoints.class.getName());

  /// Granularity of the bitmaps (QEMU's default).
  static final int GRANULARITY_BYTES = 64 << 10;

  /// Most checkpoints of a domain: each costs a bitmap in memory for each disk.
  static final int MAX_CHECKPOINTS = 1024;

  /// Longest name that still makes a file name in the state folder.
  private static final int MAX_NAME_BYTES = 200;

  private final MomentTree<CheckpointDocument> tree = new MomentTree<>();
  private final DomainLife domain;
  private final DomainContext context;
  // Null until it is asked for, see current(), and when there is none.
  private @Nullable String current;

  Checkpoints(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  MomentTree<CheckpointDocument> tree() {
    return tree;
  }

  private static String key(String domain, String checkpoint) {
    return domain + "/" + checkpoint;
  }

  /// Checks a request and makes its document, nothing else.
  CheckpointDocument prepare(Session session, CheckpointDocument.Request request)
      throws LibvirtException {
    long now = context.environment().clock().instant().getEpochSecond();
    String name = request.name().orElse(String.valueOf(now));
    List<CheckpointDocument.Disk> disks = CheckpointDocument.align(request, name, session.live());
    if (tree.find(name).isPresent()) {
      throw ErrorCode.OPERATION_FAILED.in(
          ErrorDomain.DOMAIN, "domain moment %s already exists".formatted(name));
    }
    checkRoom(name);
    return new CheckpointDocument(
        name,
        request.description(),
        current().map(CheckpointDocument::name),
        now,
        disks,
        Optional.of(session.live().definition().root().copy()));
  }

  /// The one that the next checkpoint comes after. Not kept over a restart of the daemon: then it
  /// is the leaf that was made last.
  private Optional<CheckpointDocument> current() {
    if (current == null) {
      current = tree.current().map(CheckpointDocument::name).orElse(null);
    }
    return Optional.ofNullable(current).flatMap(tree::find);
  }

  /// virDomainCheckpointCreateXML with REDEFINE: remembers a checkpoint that is already in the
  /// images, or changes what is remembered of it. Bitmaps are neither made nor removed.
  ///
  /// @param validate REDEFINE_VALIDATE: each disk must have the bitmap, in order
  /// @return its name
  String redefine(CheckpointDocument.Request request, boolean validate) throws LibvirtException {
    CheckpointDocument document = new CheckpointRedefinition(domain, context, tree).check(request);
    if (validate) {
      checkBitmaps(document, domain.requireActive());
    }
    boolean known = tree.find(document.name()).isPresent();
    if (!known) {
      checkRoom(document.name());
    }
    boolean next =
        !known && current().map(CheckpointDocument::name).equals(document.parent()); // libvirt
    try {
      putDocument(document);
    } catch (IOException e) {
      throw notSaved(document.name(), e);
    }
    tree.put(document);
    if (next) {
      current = document.name();
    }
    return document.name();
  }

  private void checkBitmaps(CheckpointDocument document, Session session) throws LibvirtException {
    for (String target : document.bitmapTargets()) {
      Optional<LiveDisk> disk =
          session.live().disks().stream().filter(one -> one.target().equals(target)).findFirst();
      if (disk.isPresent()
          && domain
              .upkeep()
              .bitmap(session, disk.get(), document.name())
              .filter(bitmap -> !bitmap.inconsistent() && bitmap.recording())
              .isEmpty()) {
        throw ErrorCode.CHECKPOINT_INCONSISTENT.because(
            "missing or broken bitmap '%s' for disk '%s'".formatted(document.name(), target));
      }
    }
  }

  private void checkRoom(String name) throws LibvirtException {
    if (name.length() > MAX_NAME_BYTES) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "unable to save metadata for checkpoint " + name); // longer than a file name may be
    }
    if (tree.size() >= MAX_CHECKPOINTS) {
      throw ErrorCode.OPERATION_FAILED.because(
          "domain has %d checkpoints, limit is %d".formatted(tree.size(), MAX_CHECKPOINTS));
    }
  }

  private void putDocument(CheckpointDocument document) throws IOException {
    context
        .state()
        .put(StateStore.Kind.CHECKPOINT, key(domain.name(), document.name()), document.stored());
  }

  private static LibvirtException notSaved(String checkpoint, IOException cause) {
    return new LibvirtException(
        ErrorCode.INTERNAL_ERROR,
        ErrorDomain.HYPERVISOR,
        "internal error: unable to save metadata for checkpoint %s: %s"
            .formatted(checkpoint, cause.getMessage()),
        cause);
  }

  static List<TransactionAction> additions(CheckpointDocument checkpoint) {
    List<TransactionAction> actions = new ArrayList<>();
    for (String target : checkpoint.bitmapTargets()) {
      actions.add(
          new TransactionAction.AddBitmap(target, checkpoint.name(), GRANULARITY_BYTES, true));
    }
    return actions;
  }

  void create(Session session, CheckpointDocument checkpoint) throws LibvirtException {
    Live live = session.live();
    List<TransactionAction> actions = additions(checkpoint);
    live.pendingCheckpoint(
        new Live.PendingCheckpoint(checkpoint.name(), checkpoint.bitmapTargets()));
    try {
      domain.stored().putLive(session.live());
    } catch (IOException e) {
      live.pendingCheckpoint(null);
      throw domain.upkeep().cannotWrite(e);
    }
    try {
      if (!actions.isEmpty()) {
        session.driver().transaction(actions);
      }
    } catch (DriverException e) {
      live.pendingCheckpoint(null);
      domain.stored().putLiveOrLog(session.live());
      throw DriverErrors.toClient("execute the checkpoint's transaction", e);
    }
    commit(session, checkpoint);
  }

  /// The bitmaps are there: writes the document, or takes the bitmaps away again.
  void commit(Session session, CheckpointDocument checkpoint) throws LibvirtException {
    try {
      putDocument(checkpoint);
      tree.put(checkpoint);
      current = checkpoint.name();
    } catch (IOException e) {
      checkpoint
          .bitmapTargets()
          .forEach(target -> domain.upkeep().removeBitmap(session, target, checkpoint.name()));
      removeDocument(checkpoint.name()); // it may be there all the same
      throw notSaved(checkpoint.name(), e);
    } finally {
      session.live().pendingCheckpoint(null);
      domain.stored().putLiveOrLog(session.live());
    }
  }

  CheckpointDocument find(String name) throws LibvirtException {
    return tree.find(name)
        .orElseThrow(() ->
            ErrorCode.NO_DOMAIN_CHECKPOINT.because(
                "no domain checkpoint with matching name '%s'".formatted(name)));
  }

  String xmlDesc(String name, int flags, Optional<Session> session) throws LibvirtException {
    CheckpointDocument document = find(name);
    Map<String, Long> sizes = new HashMap<>();
    if (Flags.has(flags, Flags.CHECKPOINT_XML_SIZE)) {
      Session running = session.orElseThrow(DomainLife::notRunning);
      for (String target : document.bitmapTargets()) {
        running
            .live()
            .find(target)
            .flatMap(disk -> domain.upkeep().bitmap(running, disk, name))
            .filter(bitmap -> !bitmap.inconsistent())
            .map(BitmapState::dirtyBytes)
            .ifPresent(bytes -> sizes.put(target, bytes));
      }
    }
    return Xml.write(document.toXml(shownDomain(document, flags), sizes));
  }

  private static Optional<XmlElement> shownDomain(CheckpointDocument document, int flags) {
    if (Flags.has(flags, Flags.CHECKPOINT_XML_NO_DOMAIN)) {
      return Optional.empty();
    }
    return Flags.has(flags, Flags.CHECKPOINT_XML_SECURE)
        ? document.domain()
        : document.domain().map(DomainXml::withoutSecrets);
  }

  void delete(String name, int flags, Optional<Session> session) throws LibvirtException {
    CheckpointDocument document = find(name);
    List<CheckpointDocument> doomed = new ArrayList<>();
    boolean withChildren = Flags.has(flags, Flags.CHECKPOINT_DELETE_CHILDREN);
    boolean onlyChildren = Flags.has(flags, Flags.CHECKPOINT_DELETE_CHILDREN_ONLY);
    if (withChildren || onlyChildren) {
      doomed.addAll(tree.descendants(document).reversed()); // leaves first
    }
    if (!onlyChildren) {
      doomed.add(document);
    }
    for (CheckpointDocument one : doomed) {
      deleteOne(one, Flags.has(flags, Flags.CHECKPOINT_DELETE_METADATA_ONLY), session);
    }
  }

  private void deleteOne(
      CheckpointDocument document, boolean metadataOnly, Optional<Session> session)
      throws LibvirtException {
    if (!metadataOnly && session.isPresent()) {
      removeBitmaps(document, session.get());
    }
    for (CheckpointDocument child : tree.children(document)) {
      CheckpointDocument moved = child.withParent(document.parent());
      try {
        putDocument(moved);
      } catch (IOException e) {
        throw domain.upkeep().cannotWrite(e);
      }
      tree.put(moved);
    }
    try {
      context.state().remove(StateStore.Kind.CHECKPOINT, key(domain.name(), document.name()));
    } catch (IOException e) {
      throw domain.upkeep().cannotWrite(e);
    }
    tree.remove(document.name());
    if (document.name().equals(current)) {
      current = document.parent().filter(parent -> tree.find(parent).isPresent()).orElse(null);
    }
  }

  private void removeBitmaps(CheckpointDocument document, Session session) throws LibvirtException {
    List<TransactionAction> actions = new ArrayList<>();
    for (String target : document.bitmapTargets()) {
      Optional<LiveDisk> disk = session.live().find(target);
      if (disk.isEmpty()) {
        continue; // the disk is gone and its bitmap with it
      }
      if (domain.upkeep().bitmap(session, disk.get(), document.name()).isEmpty()) {
        throw ErrorCode.INTERNAL_ERROR.because(
            "bitmap '%s' not found in backing chain of '%s'".formatted(document.name(), target));
      }
      actions.add(new TransactionAction.RemoveBitmap(target, document.name()));
    }
    if (actions.isEmpty()) {
      return;
    }
    try {
      session.driver().transaction(actions);
    } catch (DriverException e) {
      throw DriverErrors.toClient("remove the bitmaps of checkpoint " + document.name(), e);
    }
  }

  /// Forgets all; bitmaps stay in their images.
  void dropMetadata() {
    List.copyOf(tree.all()).forEach(document -> removeDocument(document.name()));
    tree.clear();
    current = null;
  }

  private void removeDocument(String name) {
    try {
      context.state().remove(StateStore.Kind.CHECKPOINT, key(domain.name(), name));
    } catch (IOException e) {
      LOG.log(Level.WARNING, "%s: document of checkpoint %s".formatted(domain.name(), name), e);
    }
  }

  /// After a restart: a checkpoint that was about to be made and has no document did not happen.
  void recover(Session session) {
    Live.PendingCheckpoint pending = session.live().pendingCheckpoint();
    if (pending == null) {
      return;
    }
    if (tree.find(pending.name()).isEmpty()) {
      pending
          .targets()
          .forEach(target -> domain.upkeep().removeBitmap(session, target, pending.name()));
    }
    session.live().pendingCheckpoint(null);
  }
}
