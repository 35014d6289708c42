// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.HostAccess;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.NodeSpec;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The open images of one domain, by the names the domain room chose.
///
/// A node may lie beneath several others (a shallow copy shares its source's backing chain) and be
/// used by drives and jobs besides; each such use is counted, and a node is closed when it is
/// removed and has none. The graph owns every node: it takes a backing node back before it closes
/// the one above, so no node closes another.
///
/// Not thread-safe: guarded by the domain's lock.
final class NodeGraph {
  /// Open images of one domain, chains included.
  static final int MAX_NODES = 4096;

  /// One open image. `users` counts the nodes above it, the drives whose top it is and the jobs
  /// that read or write it.
  static final class Node {
    private final NodeSpec spec;
    private final FormatNode format;
    private final Optional<WriteMark> mark; // of a file that is written
    private Optional<Node> backing;
    private int users;
    private volatile boolean left; // set by a job's thread
    // While a job writes the image and no drive stands on it.
    private Optional<FollowedBitmaps> bitmaps = Optional.empty();

    private Node(
        NodeSpec spec, FormatNode format, Optional<WriteMark> mark, Optional<Node> backing) {
      this.spec = spec;
      this.format = format;
      this.mark = mark;
      this.backing = backing;
    }

    String name() {
      return spec.name();
    }

    NodeSpec spec() {
      return spec;
    }

    FormatNode format() {
      return format;
    }

    Optional<Node> backing() {
      return backing;
    }

    /// Whether `other` is this node or lies beneath it.
    boolean reaches(Node other) {
      return this == other || (backing.isPresent() && backing.get().reaches(other));
    }

    boolean used() {
      return users > 0;
    }

    /// Takes note that the image now stands on `next`, which the caller has attached.
    void standsOn(Optional<Node> next) {
      next.ifPresent(Node::use);
      backing.ifPresent(Node::release);
      backing = next;
    }

    /// Takes note that requests on it never returned, so that closing it may take as long: nobody
    /// waits for that. May be called from any thread.
    void leave() {
      left = true;
    }

    void use() {
      users++;
    }

    /// Puts `beneath` under a node that has nothing beneath and serves no request yet.
    void stackOn(Node beneath) {
      if (backing.isPresent()) {
        throw new IllegalStateException("node " + name() + " stands on " + backing.get().name());
      }
      format.attachBacking(beneath.format);
      beneath.use();
      backing = Optional.of(beneath);
    }

    /// The image's own bitmaps record from here on what a job writes into it; it is open for
    /// writing.
    ///
    /// @param size that the image is to have, at least its own
    /// @return those bitmaps
    List<DirtyBitmap> followBitmaps(long size) throws DriverException {
      bitmaps.ifPresent(left -> left.resize(size)); // of a job whose end could not store them
      if (bitmaps.isEmpty()) {
        try {
          bitmaps = FollowedBitmaps.begin(format, StoredBitmaps.storesFrom(backing), size);
        } catch (BlockException e) {
          throw DriverErrors.of(e);
        }
      }
      return bitmaps.map(FollowedBitmaps::bitmaps).orElse(List.of());
    }

    Optional<FollowedBitmaps> bitmaps() {
      return bitmaps;
    }

    /// Nobody writes the image any more: its bitmaps are stored, and are what they say. Where that
    /// fails, or requests never returned, they stay in use on disk, and are kept here for the next
    /// job.
    void putBackBitmaps() {
      if (bitmaps.isEmpty() || left) {
        return;
      }
      try {
        bitmaps.get().putBack(format);
        bitmaps = Optional.empty();
      } catch (BlockException e) {
        // Safe because they stay in use there: nobody takes them for clean ones.
        LOG.log(Level.WARNING, "{0}: bitmaps stay in use: {1}", name(), e.getMessage());
      }
    }

    /// A drive stands on the image, and its bitmaps are the drive's.
    void leaveBitmaps() {
      bitmaps = Optional.empty();
    }

    /// Closes this image and none beneath.
    void close() throws BlockException {
      putBackBitmaps();
      Optional<BlockNode> _ = format.detachBacking();
      boolean closed = false;
      try {
        format.close();
        closed = true;
      } finally {
        endMark(closed);
      }
    }

    private void endMark(boolean clean) {
      if (mark.isEmpty()) {
        return;
      }
      try {
        if (clean) {
          mark.get().remove();
        } else {
          mark.get().leave();
        }
      } catch (IOException e) {
        mark.get().leave();
        LOG.log(
            Level.WARNING, "{0}: its mark stays: {1}", spec.storage().location(), e.getMessage());
      }
    }

    void release() {
      if (--users < 0) {
        throw new IllegalStateException("node " + name() + " released more often than used");
      }
    }
  }

  private static final Logger LOG = System.getLogger(NodeGraph.class.getName());

  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);
  private final Path logDir;
  private final Path markDir;
  private final Map<String, Node> nodes = new HashMap<>();

  NodeGraph(Path logDir, Path markDir) {
    this.logDir = logDir;
    this.markDir = markDir;
  }

  Node get(String name) throws DriverException {
    Node node = nodes.get(name);
    if (node == null) {
      throw DriverErrors.notFound("node", name);
    }
    return node;
  }

  boolean has(String name) {
    return nodes.containsKey(name);
  }

  /// Opens an image and, first, what lies beneath it; a name beneath that is there already is used
  /// as it is. On failure nothing that this call opened stays open.
  Node add(NodeSpec spec) throws DriverException {
    if (nodes.containsKey(spec.name())) {
      throw DriverErrors.generic("node " + spec.name() + " is there already");
    }
    List<NodeSpec> fresh = freshPart(spec);
    Optional<Node> beneath =
        Optional.ofNullable(
            fresh.getLast().backing().map(NodeSpec::name).map(nodes::get).orElse(null));
    var opened = new ArrayList<Node>();
    try {
      for (NodeSpec layer : fresh.reversed()) {
        Node node = open(layer, beneath);
        opened.add(node);
        nodes.put(layer.name(), node);
        beneath = Optional.of(node);
      }
      settle(opened.subList(0, opened.size() - 1));
      return opened.getLast();
    } catch (DriverException | RuntimeException | Error e) {
      for (Node node : opened.reversed()) {
        closeQuietly(node, e);
      }
      throw e;
    }
  }

  /// Makes durable what a killed process left unwritten of images that now lie beneath another: it
  /// may have written one of them as the top until a snapshot was recorded. A flush of the guest
  /// promises that too, and reaches the top only from here on. What cannot be settled is logged,
  /// and is read all the same.
  private void settle(List<Node> beneath) {
    for (Node node : beneath) {
      try {
        settle(node);
      } catch (IOException e) {
        LOG.log(
            Level.ERROR,
            "%s: what a killed process wrote is not durable: %s"
                .formatted(node.spec().storage().location(), e.getMessage()));
      }
    }
  }

  /// The mark goes when all is durable: a death before leaves it for the next start.
  private void settle(Node node) throws IOException {
    FormatNode format = node.format();
    Optional<Path> path = node.spec().storage().path();
    boolean left = path.isPresent() && WriteMark.isLeft(markDir, path.get());
    if (format.isAheadOfFile()) {
      format.reopen(false);
      format.reopen(true);
    } else if (left) {
      HostImages.sync(path.get());
    }
    if (left) {
      WriteMark.settled(markDir, path.get());
    }
  }

  /// The specs of a chain, top first, whose nodes are not there yet.
  private List<NodeSpec> freshPart(NodeSpec spec) throws DriverException {
    var fresh = new ArrayList<NodeSpec>();
    Optional<NodeSpec> next = Optional.of(spec);
    while (next.isPresent() && !nodes.containsKey(next.get().name())) {
      NodeSpec layer = next.get();
      if (fresh.stream().anyMatch(seen -> seen.name().equals(layer.name()))) {
        throw DriverErrors.generic("node " + layer.name() + " lies beneath itself");
      }
      fresh.add(layer);
      next = layer.backing();
    }
    if (fresh.size() > ImageOpener.MAX_DEPTH || nodes.size() + fresh.size() > MAX_NODES) {
      throw new DriverException(
          Kind.UNSUPPORTED,
          spec.storage().location()
              + ": a chain of "
              + fresh.size()
              + " images, at most "
              + ImageOpener.MAX_DEPTH
              + " in a chain and "
              + MAX_NODES
              + " in a domain are opened");
    }
    return fresh;
  }

  private Node open(NodeSpec spec, Optional<Node> backing) throws DriverException {
    // A read-only image may have been left by a killed process as well: its log is read too.
    OpenOptions options =
        (spec.readOnly() ? OpenOptions.reading() : OpenOptions.readWrite())
            .withRunDir(logDir)
            .with(durability(spec.worth()))
            .with(access(spec.way()));
    if (backing.isPresent() && spec.format().equals("raw")) {
      throw DriverErrors.generic(
          "node "
              + spec.name()
              + ": "
              + spec.storage().location()
              + " is raw and has no backing file");
    }
    Optional<WriteMark> mark = mark(spec);
    boolean open = false;
    try {
      FormatNode format =
          opener.openLayer(HostImages.of(spec.storage()), Optional.of(spec.format()), options);
      open = true;
      backing.ifPresent(beneath -> {
        format.attachBacking(beneath.format());
        beneath.use();
      });
      return new Node(spec, format, mark, backing);
    } catch (BlockException e) {
      if (spec.storage().path().filter(Files::notExists).isPresent()) {
        throw new DriverException(
            Kind.MISSING_FILE, spec.storage().location() + ": no such file", e);
      }
      throw DriverErrors.of(e);
    } finally {
      if (!open && mark.isPresent()) {
        undo(mark.get());
      }
    }
  }

  private Optional<WriteMark> mark(NodeSpec spec) throws DriverException {
    Optional<Path> path = spec.storage().path();
    if (spec.readOnly() || path.isEmpty() || Files.notExists(path.get())) {
      return Optional.empty();
    }
    try {
      return Optional.of(WriteMark.make(markDir, path.get()));
    } catch (IOException e) {
      throw DriverErrors.of(path.get() + ": cannot be marked as open in " + markDir, e);
    }
  }

  private static void undo(WriteMark mark) {
    try {
      mark.undo();
    } catch (IOException e) {
      LOG.log(Level.WARNING, "a mark stays: " + e.getMessage());
    }
  }

  private static Durability durability(NodeSpec.Worth worth) {
    return switch (worth) {
      case DISK -> Durability.ACKNOWLEDGED;
      case ONCE_FLUSHED -> Durability.FLUSHED;
      case NONE -> Durability.UNSAFE;
    };
  }

  private static HostAccess access(NodeSpec.Way way) {
    return switch (way) {
      case CACHED -> HostAccess.CACHED;
      case DIRECT -> HostAccess.DIRECT;
      case DIRECT_QUEUED -> HostAccess.DIRECT_QUEUED;
    };
  }

  /// Closes a node that nothing uses, and the nodes beneath it that then have no use.
  ///
  /// @throws DriverException when it is in use; or, everything being closed, the first failure of a
  ///   close
  void remove(String name) throws DriverException {
    Node top = get(name);
    if (top.users > 0) {
      throw DriverErrors.generic("node " + name + " is in use");
    }
    Optional<DriverException> failure = Optional.empty();
    Optional<Node> next = Optional.of(top);
    while (next.isPresent() && next.get().users == 0) {
      Node node = next.get();
      failure = first(failure, close(node));
      next = node.backing();
    }
    if (failure.isPresent()) {
      throw failure.get();
    }
  }

  /// Closes every node, upper ones first, whatever uses them.
  List<DriverException> closeAll() {
    var failures = new ArrayList<DriverException>();
    while (!nodes.isEmpty()) {
      Node top =
          nodes.values().stream()
              .filter(node ->
                  nodes.values().stream()
                      .noneMatch(above -> above.backing.equals(Optional.of(node))))
              .findAny()
              .orElseThrow();
      close(top).ifPresent(failures::add);
    }
    return failures;
  }

  /// Takes every backing node back, so that no node closes what lies beneath it. Only when nothing
  /// uses the nodes any more.
  void detachAll() {
    for (Node node : nodes.values()) {
      Optional<BlockNode> _ = node.format.detachBacking();
    }
  }

  /// Leaves a node to whoever still uses it: it is theirs to close.
  void abandon(Node node) {
    nodes.remove(node.name());
    node.mark.ifPresent(WriteMark::leave);
  }

  private Optional<DriverException> close(Node node) {
    nodes.remove(node.name());
    node.backing.ifPresent(Node::release);
    if (node.left) {
      closeAside(node);
      return Optional.empty();
    }
    try {
      node.close();
      return Optional.empty();
    } catch (BlockException e) {
      return Optional.of(DriverErrors.of(e));
    }
  }

  /// The image stays open, and locked, for as long as its storage hangs.
  private static void closeAside(Node node) {
    Thread.ofPlatform()
        .daemon()
        .name("close-" + node.name())
        .start(() -> {
          try {
            node.close();
          } catch (BlockException e) {
            LOG.log(Level.WARNING, "{0}: {1}", node.name(), e.getMessage());
          }
        });
  }

  private void closeQuietly(Node node, Throwable because) {
    close(node).ifPresent(because::addSuppressed);
  }

  private static Optional<DriverException> first(
      Optional<DriverException> known, Optional<DriverException> next) {
    if (known.isPresent() && next.isPresent()) {
      known.get().addSuppressed(next.get());
    }
    return known.isPresent() ? known : next;
  }
}
