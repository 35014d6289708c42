// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// A persistent definition as the state store keeps it: the domain's document, and beside it what
/// the document has no place for.
///
/// @param autostart whether the daemon starts it
record StoredDefinition(Definition definition, boolean autostart) {
  /// Version of the layout. A higher one is refused and left alone.
  static final int VERSION = 1;

  private static final String ROOT = "definitionstatus";

  static String write(Definition definition, boolean autostart) {
    return Xml.write(
        new XmlElement(ROOT)
            .attribute("version", VERSION)
            .attribute("autostart", autostart ? "yes" : "no")
            .add(definition.root().copy()));
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
    return new StoredDefinition(definition, root.attribute("autostart").equals("yes"));
  }
}
