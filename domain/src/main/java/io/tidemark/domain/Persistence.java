// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;
import java.lang.System.Logger.Level;

/// What of a domain outlives its run: that it is defined, whether the daemon starts it, its name.
///
/// Clients are told when the store has it. Where the store cannot be written the definition is what
/// it was. Checkpoints and snapshots of a domain shut off are dropped before the definition that
/// they belong to; those of one that runs stay until it ends ([DomainLife]).
///
/// Called with the domain's lock held, but for [#define], which takes it.
final class Persistence {
  private static final System.Logger LOG = System.getLogger(Persistence.class.getName());

  private final DomainLife life;

  Persistence(DomainLife life) {
    this.life = life;
  }

  private StoredState stored() {
    return life.stored();
  }

  /// Takes the definition away; a domain that runs goes on as a transient one.
  void undefine(int flags) throws LibvirtException {
    if (stored().definition() == null) {
      throw ErrorCode.OPERATION_INVALID.because("cannot undefine transient domain");
    }
    if (life.runningSession().isEmpty()) {
      dropMoments(
          Flags.has(flags, Flags.UNDEFINE_SNAPSHOTS_METADATA),
          Flags.has(flags, Flags.UNDEFINE_CHECKPOINTS_METADATA));
    }
    try {
      stored().remove();
    } catch (IOException e) {
      throw life.upkeep().cannotWrite(e);
    }
    life.lifecycle(Lifecycle.UNDEFINED);
    life.goIfNothingIsLeft();
  }

  /// Gives way to a domain of another name. Refused while it runs.
  ///
  /// @return what it was, under the new name
  StoredDefinition renamed(Renaming renaming) throws LibvirtException {
    Definition definition = stored().definition();
    if (life.runningSession().isPresent() || definition == null) {
      throw ErrorCode.OPERATION_INVALID.because("cannot rename active domain");
    }
    life.refuseIfBlocked();
    StoredDefinition next;
    try {
      next = renaming.run(stored().stored());
    } catch (IOException e) {
      throw life.upkeep().cannotWrite(e);
    }
    try {
      renaming.removeOld();
    } catch (IOException e) {
      LOG.log(Level.ERROR, life.name() + ": what is left under its old name", e);
    }
    life.lifecycle(Lifecycle.UNDEFINED_RENAMED);
    life.goFor();
    return next;
  }

  private void dropMoments(boolean withSnapshots, boolean withCheckpoints) throws LibvirtException {
    refuseLeft(life.snapshots().tree().size(), "snapshots", withSnapshots);
    refuseLeft(life.checkpoints().tree().size(), "checkpoints", withCheckpoints);
    life.snapshots().dropMetadata();
    life.checkpoints().dropMetadata();
  }

  private static void refuseLeft(int count, String what, boolean dropped) throws LibvirtException {
    if (count > 0 && !dropped) {
      throw ErrorCode.OPERATION_INVALID.because(
          "cannot delete inactive domain with %d %s".formatted(count, what));
    }
  }

  /// Whether the daemon starts it.
  boolean autostart() {
    return stored().autostart();
  }

  void setAutostart(boolean wanted) throws LibvirtException {
    if (stored().definition() == null) {
      throw ErrorCode.OPERATION_INVALID.because("cannot set autostart for transient domain");
    }
    try {
      stored().setAutostart(wanted);
    } catch (IOException e) {
      throw life.upkeep().cannotWrite(e);
    }
  }

  /// Makes or replaces the persistent definition. Takes the lock.
  void define(Definition definition) throws LibvirtException {
    life.run(() -> {
      Definition before = stored().definition();
      try {
        stored().redefine(definition);
      } catch (IOException e) {
        life.goIfNothingIsLeft();
        throw life.upkeep().cannotWrite(e);
      }
      life.lifecycle(before == null ? Lifecycle.DEFINED_ADDED : Lifecycle.DEFINED_UPDATED);
    });
  }
}
