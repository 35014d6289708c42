// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.StateStore;
import io.tidemark.domain.spi.StateStore.Kind;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Another name for a domain that is shut off, in the state store.
///
/// **Crash order.** Documents of checkpoints and snapshots are written under the new name: a
/// restart removes them, since nobody has that name. Then the definition, which says what it was
/// called: the commit point. Then what is kept under the old name is removed, the definition last:
/// a restart that finds both finishes that. The name stands in each document as well, so that a
/// revert does not bring the old one back.
final class Renaming {
  private final StateStore state;
  private final String from;
  private final String to;

  Renaming(StateStore state, String from, String to) {
    this.state = state;
    this.from = from;
    this.to = to;
  }

  /// Writes all under the new name.
  ///
  /// @throws IOException before the commit point: nothing has changed, but for documents that
  ///   nobody owns and that could not be removed either
  StoredDefinition run(StoredDefinition stored) throws IOException, LibvirtException {
    try {
      return write(stored);
    } catch (IOException | LibvirtException e) {
      try {
        remove(to);
      } catch (IOException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  private StoredDefinition write(StoredDefinition stored) throws IOException, LibvirtException {
    for (Kind kind : List.of(Kind.CHECKPOINT, Kind.SNAPSHOT)) {
      for (StateStore.Document document : of(kind, from)) {
        String name = document.key().substring(from.length());
        state.put(kind, to + name, renamed(document.xml()));
      }
    }
    Definition definition = stored.definition().copy();
    definition.root().childOrNew("name").text(to);
    StoredDefinition next =
        new StoredDefinition(
            definition, stored.autostart(), stored.pendingSnapshot(), Optional.of(from));
    state.put(Kind.DEFINITION, to, next.write());
    return next;
  }

  /// Removes what is kept under the old name, the definition last. Harmless when there is nothing.
  void removeOld() throws IOException {
    remove(from);
    state.remove(Kind.DEFINITION, from);
  }

  private void remove(String name) throws IOException {
    for (Kind kind : List.of(Kind.CHECKPOINT, Kind.SNAPSHOT)) {
      for (StateStore.Document document : of(kind, name)) {
        state.remove(kind, document.key());
      }
    }
  }

  private List<StateStore.Document> of(Kind kind, String name) throws IOException {
    List<StateStore.Document> found = new ArrayList<>();
    for (StateStore.Document document : state.all(kind)) {
      if (document.key().startsWith(name + "/")) {
        found.add(document);
      }
    }
    return found;
  }

  private String renamed(String xml) throws LibvirtException {
    XmlElement root = Xml.parse(xml, "stored document", ErrorDomain.DOMAIN);
    rename(root);
    return Xml.write(root);
  }

  /// In definitions that a document holds, not in what clients keep in those. The depth is that of
  /// a document that was read, so it is bounded.
  private void rename(XmlElement element) {
    if (element.name().equals("domain") || element.name().equals("inactiveDomain")) {
      element.child("name").ifPresent(name -> name.text(to));
    } else if (!element.name().equals("metadata")) {
      element.children().forEach(this::rename);
    }
  }
}
