// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Set;

/// What libvirt's schema of a snapshot allows, for VALIDATE.
///
/// Spec: libvirt 9.0.0 `domainsnapshot.rng`.
final class SnapshotSchema {
  private static final SchemaCheck CHECK = new SchemaCheck("domainsnapshot");

  private static final Set<String> CHILDREN =
      Set.of(
          "name",
          "description",
          "state",
          "creationTime",
          "memory",
          "disks",
          "active",
          "domain",
          "inactiveDomain",
          "parent",
          "cookie");

  private SnapshotSchema() {}

  static void check(XmlElement root) throws LibvirtException {
    CHECK.require(
        root.name().equals("domainsnapshot"),
        "Expecting element domainsnapshot, got " + root.name());
    CHECK.attributes(root, Set.of());
    CHECK.children(root, CHILDREN);
    for (XmlElement child : root.children()) {
      CHECK.requireChild(isGood(child), child.name());
    }
  }

  private static boolean isGood(XmlElement child) {
    return switch (child.name()) {
      case "state" ->
          SnapshotDocument.STATES.contains(child.text()) && !child.text().equals("nostate");
      case "memory" -> isMemory(child);
      case "disks" -> child.children().stream().allMatch(SnapshotSchema::isDisk);
      case "parent" -> child.children().size() == 1 && !child.childText("name").isEmpty();
      case "active" -> Set.of("0", "1").contains(child.text());
      default -> true;
    };
  }

  private static boolean isMemory(XmlElement memory) {
    if (!Set.of("snapshot", "file").containsAll(memory.attributes().keySet())) {
      return false;
    }
    return switch (memory.attribute("snapshot")) {
      case "no", "internal" -> !memory.hasAttribute("file");
      case "external", "" -> memory.attribute("file").startsWith("/");
      default -> false;
    };
  }

  private static boolean isDisk(XmlElement disk) {
    if (!disk.name().equals("disk")
        || disk.attribute("name").isEmpty()
        || !Set.of("name", "snapshot", "type").containsAll(disk.attributes().keySet())
        || !Set.of("driver", "source", "seclabel")
            .containsAll(disk.children().stream().map(XmlElement::name).toList())) {
      return false;
    }
    return switch (disk.attribute("snapshot")) {
      case "no", "internal", "manual" -> disk.children().isEmpty() && !disk.hasAttribute("type");
      case "external", "" ->
          (!disk.hasAttribute("type")
                  || Set.of("file", "block", "network").contains(disk.attribute("type")))
              && disk.children().stream().allMatch(SnapshotSchema::isOverlay);
      default -> false;
    };
  }

  private static boolean isOverlay(XmlElement part) {
    if (part.name().equals("driver")) {
      return part.children("metadata_cache").size() == part.children().size()
          && (part.attributes().isEmpty() || part.attributes().keySet().equals(Set.of("type")));
    }
    String path = part.attribute("file") + part.attribute("dev");
    return !part.name().equals("source") || path.isEmpty() || path.startsWith("/");
  }
}
