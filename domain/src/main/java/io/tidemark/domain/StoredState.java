// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// What the state store holds of one domain: its persistent definition, which is kept in memory
/// too, and the live record of its run. Called with the domain's lock held.
final class StoredState {
  private static final System.Logger LOG = System.getLogger(StoredState.class.getName());

  private final DomainContext context;
  private final String name;
  // Null for a transient domain.
  private @Nullable Definition definition;
  // Null but between the commit of a snapshot of the domain shut off and its document.
  private @Nullable SnapshotDocument pendingSnapshot;
  private boolean autostart;
  private boolean owed; // a pivot's change could not be written

  StoredState(DomainContext context, String name) {
    this.context = context;
    this.name = name;
  }

  @Nullable Definition definition() {
    return definition;
  }

  boolean autostart() {
    return autostart;
  }

  Optional<SnapshotDocument> pendingSnapshot() {
    return Optional.ofNullable(pendingSnapshot);
  }

  /// What the store held at the daemon's start.
  void restore(StoredDefinition stored) {
    definition = stored.definition();
    autostart = stored.autostart();
    pendingSnapshot = stored.pendingSnapshot().orElse(null);
  }

  void setAutostart(boolean wanted) throws IOException {
    boolean before = autostart;
    autostart = wanted;
    try {
      put();
    } catch (IOException e) {
      autostart = before;
      throw e;
    }
  }

  /// Makes another definition the persistent one, durably; on failure the old one stays.
  void redefine(Definition next) throws IOException {
    redefine(next, Optional.empty());
  }

  /// As [#redefine(Definition)].
  ///
  /// @param pending a snapshot of the domain shut off whose commit point this is
  void redefine(Definition next, Optional<SnapshotDocument> pending) throws IOException {
    Definition before = definition;
    SnapshotDocument pendingBefore = pendingSnapshot;
    definition = next;
    pendingSnapshot = pending.orElse(null);
    try {
      put();
    } catch (IOException e) {
      definition = before;
      pendingSnapshot = pendingBefore;
      throw e;
    }
  }

  void remove() throws IOException {
    context.state().remove(StateStore.Kind.DEFINITION, name);
    definition = null;
    autostart = false;
  }

  private StoredDefinition stored(Definition known) {
    return new StoredDefinition(known, autostart, pendingSnapshot(), Optional.empty());
  }

  /// As the store holds it; only with a definition.
  StoredDefinition stored() {
    return stored(java.util.Objects.requireNonNull(definition));
  }

  private void put() throws IOException {
    Definition known = definition;
    if (known != null) {
      context.state().put(StateStore.Kind.DEFINITION, name, stored(known).write());
    }
    owed = false;
  }

  /// For a pivot, which is not taken back any more. What cannot be written is owed: it is tried
  /// again with each change of the live record and when the domain ends.
  void putOrLog() {
    try {
      put();
    } catch (IOException e) {
      owed = true;
      LOG.log(Level.ERROR, name + ": definition", e);
    }
  }

  /// Writes the definition if it is owed.
  ///
  /// @return whether none is owed now
  boolean pay() {
    if (owed) {
      putOrLog();
    }
    return !owed;
  }

  /// Replaces the live record.
  void putLive(Live live) throws IOException {
    pay();
    context.state().put(StateStore.Kind.LIVE, name, LiveRecord.write(live));
  }

  /// For changes that a restart derives anyway from the record that is there.
  void putLiveOrLog(Live live) {
    try {
      putLive(live);
    } catch (IOException e) {
      LOG.log(Level.ERROR, name + ": live record", e);
    }
  }

  void removeLive() {
    try {
      context.state().remove(StateStore.Kind.LIVE, name);
    } catch (IOException e) {
      LOG.log(Level.ERROR, name + ": live record", e);
    }
  }
}
