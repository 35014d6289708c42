// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Optional;

/// A persistent definition as the state store keeps it: the domain's document, and beside it what
/// the document has no place for.
///
/// @param autostart whether the daemon starts it
/// @param pendingSnapshot taken while it was shut off; its document may not be written yet
/// @param renamedFrom what it was called before; what is left under that name goes
record StoredDefinition(
    Definition definition,
    boolean autostart,
    Optional<SnapshotDocument> pendingSnapshot,
    Optional<String> renamedFrom) {
  /// Version of the layout. A higher one is refused and left alone.
  static final int VERSION = 1;

  private static final String ROOT = "definitionstatus";

  String write() {
    XmlElement root =
        new XmlElement(ROOT)
            .attribute("version", VERSION)
            .attribute("autostart", autostart ? "yes" : "no")
            .add(definition.root().copy());
    renamedFrom.ifPresent(name -> root.attribute("renamedFrom", name));
    pendingSnapshot.ifPresent(snapshot ->
        root.add("pendingSnapshot").add(new SnapshotDocument.Stored(snapshot, true).toXml()));
    return Xml.write(root);
  }

  static StoredDefinition read(String xml) throws LibvirtException {
    XmlElement root = Xml.parse(xml, ROOT, ErrorDomain.DOMAIN, ROOT);
    if (!root.attribute("version").equals(String.valueOf(VERSION))) {
      throw ErrorCode.INTERNAL_ERROR.in(
          ErrorDomain.DOMAIN,
          "definition of version %s, this program knows %d"
              .formatted(root.attribute("version"), VERSION));
    }
    XmlElement domain =
        root.child("domain")
            .orElseThrow(
                () -> ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN, "definition is empty"));
    Definition definition = Definition.ofStored(domain);
    if (definition.name().isEmpty() || Uuids.parse(domain.childText("uuid")).isEmpty()) {
      throw ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN, "definition has no name or no uuid");
    }
    Optional<SnapshotDocument> pending = Optional.empty();
    Optional<XmlElement> snapshot =
        root.child("pendingSnapshot").flatMap(found -> found.children().stream().findFirst());
    if (snapshot.isPresent()) {
      pending = Optional.of(SnapshotDocument.Stored.ofElement(snapshot.get()).document());
    }
    return new StoredDefinition(
        definition,
        root.attribute("autostart").equals("yes"),
        pending,
        Optional.of(root.attribute("renamedFrom")).filter(name -> !name.isEmpty()));
  }
}
