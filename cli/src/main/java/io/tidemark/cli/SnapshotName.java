// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.SnapshotStore;
import java.util.Optional;

/// An internal snapshot as `-l` names it: an id or a name, or `snapshot.id=…,snapshot.name=…`.
///
/// @param either an id or a name; empty when `id` or `name` says it
record SnapshotName(Optional<String> either, Optional<String> id, Optional<String> name) {
  private static final String ID = "snapshot.id=";
  private static final String NAME = "snapshot.name=";

  static SnapshotName parse(String text) throws CommandException {
    if (!text.startsWith("snapshot.")) {
      return new SnapshotName(Optional.of(text), Optional.empty(), Optional.empty());
    }
    Optional<String> id = Optional.empty();
    Optional<String> name = Optional.empty();
    for (String part : text.split(",", -1)) {
      if (part.startsWith(ID)) {
        id = Optional.of(part.substring(ID.length()));
      } else if (part.startsWith(NAME)) {
        name = Optional.of(part.substring(NAME.length()));
      } else {
        throw new CommandException(
            "-l '" + text + "': '" + part + "' is neither snapshot.id=… nor snapshot.name=…");
      }
    }
    return new SnapshotName(Optional.empty(), id, name);
  }

  /// The snapshot's disk.
  BlockNode view(FormatNode image) throws BlockException, CommandException {
    SnapshotStore snapshots =
        image
            .snapshots()
            .orElseThrow(() ->
                new CommandException(
                    image.name() + ": format '" + image.format() + "' has no internal snapshots"));
    if (either.isPresent()) {
      return snapshots.view(either.get());
    }
    for (InternalSnapshot one : snapshots.list()) {
      if (one.id().equals(id.orElse(one.id())) && one.name().equals(name.orElse(one.name()))) {
        return snapshots.view(one.id());
      }
    }
    throw new CommandException(image.name() + ": has no such snapshot: " + this);
  }

  @Override
  public String toString() {
    return either.orElseGet(
        () -> id.map(i -> "id " + i + " ").orElse("") + name.map(n -> "name " + n).orElse(""));
  }
}
