// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The checkpoints of a domain and who descends from whom. Guarded by the domain's lock.
///
/// A document whose parent is missing counts as a root, so that a crash between two documents
/// leaves nothing unreachable.
final class CheckpointTree {
  private final Map<String, CheckpointDocument> byName = new LinkedHashMap<>();

  boolean isEmpty() {
    return byName.isEmpty();
  }

  int size() {
    return byName.size();
  }

  Collection<CheckpointDocument> all() {
    return byName.values();
  }

  Optional<CheckpointDocument> find(String name) {
    return Optional.ofNullable(byName.get(name));
  }

  void put(CheckpointDocument document) {
    byName.put(document.name(), document);
  }

  void remove(String name) {
    byName.remove(name);
  }

  void clear() {
    byName.clear();
  }

  Optional<CheckpointDocument> parent(CheckpointDocument document) {
    return document.parent().flatMap(this::find);
  }

  List<CheckpointDocument> children(CheckpointDocument document) {
    return byName.values().stream()
        .filter(other -> other.parent().filter(document.name()::equals).isPresent())
        .toList();
  }

  private List<CheckpointDocument> roots() {
    return byName.values().stream().filter(document -> parent(document).isEmpty()).toList();
  }

  /// Where the next checkpoint goes: the leaf that was made last.
  Optional<CheckpointDocument> current() {
    List<CheckpointDocument> all = new ArrayList<>(byName.values());
    return all.reversed().stream()
        .filter(document -> children(document).isEmpty())
        .max(Comparator.comparingLong(CheckpointDocument::creationTime));
  }

  /// Parents before children.
  List<CheckpointDocument> topological() {
    List<CheckpointDocument> sorted = new ArrayList<>();
    roots().forEach(root -> collect(root, sorted));
    return sorted;
  }

  /// All beneath, parents before children, itself not.
  List<CheckpointDocument> descendants(CheckpointDocument document) {
    List<CheckpointDocument> sorted = new ArrayList<>();
    children(document).forEach(child -> collect(child, sorted));
    return sorted;
  }

  /// Without recursion: a chain of checkpoints may be long. Never visits one twice, whatever the
  /// documents say of their parents.
  private void collect(CheckpointDocument from, List<CheckpointDocument> into) {
    java.util.Deque<CheckpointDocument> open = new java.util.ArrayDeque<>();
    java.util.Set<String> seen = new java.util.HashSet<>();
    open.push(from);
    while (!open.isEmpty()) {
      CheckpointDocument next = open.pop();
      if (seen.add(next.name())) {
        into.add(next);
        children(next).reversed().forEach(open::push);
      }
    }
  }

  /// @param start null flags apply to the whole domain
  List<CheckpointDocument> list(Optional<CheckpointDocument> start, int flags) {
    boolean deep = Flags.has(flags, Flags.CHECKPOINT_LIST_DESCENDANTS);
    List<CheckpointDocument> found;
    if (start.isPresent()) {
      found = deep ? descendants(start.get()) : children(start.get());
    } else {
      found = deep ? roots() : topological(); // the same bit means ROOTS here
    }
    boolean leaves = Flags.has(flags, Flags.CHECKPOINT_LIST_LEAVES);
    boolean noLeaves = Flags.has(flags, Flags.CHECKPOINT_LIST_NO_LEAVES);
    return found.stream()
        .filter(document -> !leaves || children(document).isEmpty())
        .filter(document -> !noLeaves || !children(document).isEmpty())
        .toList();
  }
}
