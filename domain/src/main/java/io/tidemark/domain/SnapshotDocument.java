// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// A snapshot as it is remembered and written.
///
/// Spec: libvirt 9.0.0 `domainsnapshot.rng` and measured output: name, description, state, parent,
/// creationTime, memory, disks, domain, inactiveDomain.
///
/// @param parent empty for a root
/// @param creationTime seconds since the epoch
/// @param state of the domain when it was taken, in libvirt's word; [#DISK_SNAPSHOT] when only
///   disks of a running domain were
/// @param disks in the domain's order
/// @param domain inactive form of what ran, or of what would have; absent when a client's document
///   has none
/// @param inactiveDomain the persistent definition where it differs from what ran
record SnapshotDocument(
    String name,
    String description,
    Optional<String> parent,
    long creationTime,
    String state,
    Memory memory,
    List<Disk> disks,
    Optional<XmlElement> domain,
    Optional<XmlElement> inactiveDomain)
    implements Moment {
  static final String DISK_SNAPSHOT = "disk-snapshot";
  static final String SHUTOFF = "shutoff";

  /// The states that a document may tell. Spec: libvirt `virDomainSnapshotState`.
  static final Set<String> STATES =
      Set.of(
          "nostate",
          "running",
          "blocked",
          "paused",
          "shutdown",
          SHUTOFF,
          "crashed",
          "pmsuspended",
          DISK_SNAPSHOT);

  /// Where a disk or the memory is kept.
  enum Location {
    NO("no"),
    INTERNAL("internal"),
    EXTERNAL("external"),
    /// By the client itself, disks only.
    MANUAL("manual");

    private final String word;

    Location(String word) {
      this.word = word;
    }

    String word() {
      return word;
    }

    /// Empty for a word that is none of them.
    static Optional<Location> of(String word) {
      for (Location location : values()) {
        if (location.word.equals(word)) {
          return Optional.of(location);
        }
      }
      return Optional.empty();
    }
  }

  /// @param file absolute path of external memory
  record Memory(Location location, Optional<String> file) {
    static final Memory NONE = new Memory(Location.NO, Optional.empty());
  }

  /// A disk of a snapshot.
  ///
  /// @param name target; in a client's request also the path of the source
  /// @param location absent in a request: the usual one
  /// @param type `file`, `block` or `network`
  /// @param format of the overlay, absent: not said
  /// @param source of the overlay as `<source>`; absent: not said
  record Disk(
      String name,
      Optional<Location> location,
      String type,
      Optional<String> format,
      Optional<XmlElement> source) {
    boolean is(Location wanted) {
      return location.equals(Optional.of(wanted));
    }

    /// Path of the overlay.
    Optional<String> path() {
      return source
          .map(element -> element.attribute(type.equals("block") ? "dev" : "file"))
          .filter(path -> !path.isEmpty());
    }

    static Disk of(String name, Location location) {
      return new Disk(name, Optional.of(location), "file", Optional.empty(), Optional.empty());
    }

    Disk named(String target) {
      return new Disk(target, location, type, format, source);
    }

    Disk at(Location where) {
      return new Disk(name, Optional.of(where), type, format, source);
    }

    Disk inFile(String file) {
      return new Disk(
          name,
          location,
          type,
          format,
          Optional.of(new XmlElement("source").attribute("file", file)));
    }

    Disk as(String overlayFormat) {
      return new Disk(name, location, type, Optional.of(overlayFormat), source);
    }
  }

  boolean isExternal() {
    return memory.location() == Location.EXTERNAL
        || disks.stream().anyMatch(disk -> disk.is(Location.EXTERNAL));
  }

  /// Taken with the domain shut off or of its disks alone: no memory to go back to.
  boolean isOffline() {
    return state.equals(SHUTOFF) || state.equals(DISK_SNAPSHOT);
  }

  List<Disk> external() {
    return disks.stream().filter(disk -> disk.is(Location.EXTERNAL)).toList();
  }

  SnapshotDocument withParent(Optional<String> other) {
    return new SnapshotDocument(
        name, description, other, creationTime, state, memory, disks, domain, inactiveDomain);
  }

  SnapshotDocument withDisks(List<Disk> others) {
    return new SnapshotDocument(
        name, description, parent, creationTime, state, memory, others, domain, inactiveDomain);
  }

  SnapshotDocument withDomain(Optional<XmlElement> other, Optional<XmlElement> inactive) {
    return new SnapshotDocument(
        name, description, parent, creationTime, state, memory, disks, other, inactive);
  }

  /// The document as clients see it.
  XmlElement toXml() {
    XmlElement root = new XmlElement("domainsnapshot");
    root.add("name", name);
    if (!description.isEmpty()) {
      root.add("description", description);
    }
    root.add("state", state);
    parent.ifPresent(above -> root.add("parent").add("name", above));
    root.add("creationTime", creationTime);
    XmlElement saved = root.add("memory").attribute("snapshot", memory.location().word());
    memory.file().ifPresent(file -> saved.attribute("file", file));
    if (!disks.isEmpty()) {
      XmlElement list = root.add("disks");
      disks.forEach(disk -> list.add(toXml(disk)));
    }
    domain.ifPresent(found -> root.add(found.copy()));
    inactiveDomain.ifPresent(found -> root.add(renamed(found, "inactiveDomain")));
    return root;
  }

  private static XmlElement toXml(Disk disk) {
    XmlElement element = new XmlElement("disk").attribute("name", disk.name());
    disk.location().ifPresent(location -> element.attribute("snapshot", location.word()));
    if (disk.is(Location.EXTERNAL)) {
      element.attribute("type", disk.type());
      disk.format().ifPresent(format -> element.add("driver").attribute("type", format));
      disk.source().ifPresent(source -> element.add(source.copy()));
    }
    return element;
  }

  /// A copy under another name.
  static XmlElement renamed(XmlElement element, String name) {
    XmlElement copy = new XmlElement(name);
    element.attributes().forEach(copy::attribute);
    element.children().forEach(child -> copy.add(child.copy()));
    return copy;
  }

  /// Layout of the stored document.
  static final int VERSION = 1;

  private static final String STORED = "snapshotstatus";

  /// A snapshot as the state store keeps it.
  ///
  /// @param current whether the next one is its child
  record Stored(SnapshotDocument document, boolean current) {
    String write() {
      return Xml.write(toXml());
    }

    XmlElement toXml() {
      return new XmlElement(STORED)
          .attribute("version", VERSION)
          .attribute("current", current ? "yes" : "no")
          .add(document.toXml());
    }

    static Stored read(String xml) throws LibvirtException {
      return ofElement(Xml.parse(xml, STORED, ErrorDomain.DOMAIN_SNAPSHOT, STORED));
    }

    static Stored ofElement(XmlElement outer) throws LibvirtException {
      if (!outer.attribute("version").equals(String.valueOf(VERSION))) {
        throw ErrorCode.INTERNAL_ERROR.in(
            ErrorDomain.DOMAIN_SNAPSHOT,
            "stored snapshot of version %s, this program knows %d"
                .formatted(outer.attribute("version"), VERSION));
      }
      try {
        return new Stored(
            stored(outer.child("domainsnapshot").orElseThrow()),
            outer.attribute("current").equals("yes"));
      } catch (IllegalArgumentException | java.util.NoSuchElementException e) {
        throw new LibvirtException(
            ErrorCode.INTERNAL_ERROR,
            ErrorDomain.DOMAIN_SNAPSHOT,
            "stored snapshot: " + e.getMessage(),
            e);
      }
    }
  }

  private static SnapshotDocument stored(XmlElement root) {
    XmlElement memory = root.child("memory").orElseThrow();
    List<Disk> disks = new ArrayList<>();
    for (XmlElement disk : root.child("disks").map(XmlElement::children).orElse(List.of())) {
      disks.add(
          new Disk(
              disk.attribute("name"),
              Location.of(disk.attribute("snapshot")),
              disk.hasAttribute("type") ? disk.attribute("type") : "file",
              disk.child("driver").map(driver -> driver.attribute("type")),
              disk.child("source")));
    }
    return new SnapshotDocument(
        root.childText("name"),
        root.childText("description"),
        root.child("parent").map(parent -> parent.childText("name")),
        Long.parseLong(root.childText("creationTime")),
        root.childText("state"),
        new Memory(
            Location.of(memory.attribute("snapshot")).orElseThrow(),
            memory.hasAttribute("file") ? Optional.of(memory.attribute("file")) : Optional.empty()),
        disks,
        root.child("domain"),
        root.child("inactiveDomain").map(found -> renamed(found, "domain")));
  }
}
