// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The checkpoints, or the snapshots, of a domain and who descends from whom. Guarded by the
/// domain's lock.
///
/// A document whose parent is missing counts as a root, so that a crash between two documents
/// leaves nothing unreachable.
final class MomentTree<M extends Moment> {
  private final Map<String, M> byName = new LinkedHashMap<>();

  boolean isEmpty() {
    return byName.isEmpty();
  }

  int size() {
    return byName.size();
  }

  Collection<M> all() {
    return byName.values();
  }

  Optional<M> find(String name) {
    return Optional.ofNullable(byName.get(name));
  }

  void put(M moment) {
    byName.put(moment.name(), moment);
  }

  void remove(String name) {
    byName.remove(name);
  }

  void clear() {
    byName.clear();
  }

  Optional<M> parent(M moment) {
    return moment.parent().flatMap(this::find);
  }

  List<M> children(M moment) {
    return byName.values().stream()
        .filter(other -> other.parent().filter(moment.name()::equals).isPresent())
        .toList();
  }

  private List<M> roots() {
    return byName.values().stream().filter(moment -> parent(moment).isEmpty()).toList();
  }

  /// Where the next checkpoint goes: the leaf that was made last.
  Optional<M> current() {
    List<M> all = new ArrayList<>(byName.values());
    return all.reversed().stream()
        .filter(moment -> children(moment).isEmpty())
        .max(Comparator.comparingLong(Moment::creationTime));
  }

  /// Parents before children.
  List<M> topological() {
    List<M> sorted = new ArrayList<>();
    roots().forEach(root -> collect(root, sorted));
    return sorted;
  }

  /// All beneath, parents before children, itself not.
  List<M> descendants(M moment) {
    List<M> sorted = new ArrayList<>();
    children(moment).forEach(child -> collect(child, sorted));
    return sorted;
  }

  /// Without recursion: a chain of checkpoints may be long. Never visits one twice, whatever the
  /// documents say of their parents.
  private void collect(M from, List<M> into) {
    java.util.Deque<M> open = new java.util.ArrayDeque<>();
    java.util.Set<String> seen = new java.util.HashSet<>();
    open.push(from);
    while (!open.isEmpty()) {
      M next = open.pop();
      if (seen.add(next.name())) {
        into.add(next);
        children(next).reversed().forEach(open::push);
      }
    }
  }

  /// Whether `name` is `other` or lies beneath it.
  boolean descends(M moment, M other) {
    return moment.name().equals(other.name())
        || descendants(other).stream().anyMatch(found -> found.name().equals(moment.name()));
  }

  /// By the bits that libvirt gives both kinds: ROOTS and DESCENDANTS, LEAVES, NO_LEAVES. Parents
  /// before children.
  ///
  /// @param start empty: the whole domain
  List<M> list(Optional<M> start, int flags) {
    boolean deep = Flags.has(flags, Flags.CHECKPOINT_LIST_DESCENDANTS);
    List<M> found;
    if (start.isPresent()) {
      found = deep ? descendants(start.get()) : children(start.get());
    } else {
      found = deep ? roots() : topological(); // the same bit means ROOTS here
    }
    boolean leaves = Flags.has(flags, Flags.CHECKPOINT_LIST_LEAVES);
    boolean noLeaves = Flags.has(flags, Flags.CHECKPOINT_LIST_NO_LEAVES);
    return found.stream()
        .filter(moment -> !leaves || children(moment).isEmpty())
        .filter(moment -> !noLeaves || !children(moment).isEmpty())
        .toList();
  }
}
