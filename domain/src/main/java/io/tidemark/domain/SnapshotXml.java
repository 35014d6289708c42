// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.SnapshotDocument.Disk;
import io.tidemark.domain.SnapshotDocument.Location;
import io.tidemark.domain.SnapshotDocument.Memory;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Reads a client's `<domainsnapshot>`.
///
/// Spec: libvirt `docs/formatsnapshot.rst`; the order of the checks and their words as measured on
/// libvirt 9.0.0.
///
/// @param name empty: made from the time
/// @param memory absent: the usual one
/// @param disks absent locations: the usual one
record SnapshotXml(
    Optional<String> name,
    String description,
    Optional<Memory> memory,
    List<Disk> disks,
    Optional<Past> past) {
  private static final Set<String> DISK_TYPES =
      Set.of("file", "block", "dir", "network", "volume", "nvme", "vhostuser", "vhostvdpa");

  /// What only a redefinition tells.
  record Past(
      long creationTime,
      String state,
      Optional<String> parent,
      Optional<XmlElement> domain,
      Optional<XmlElement> inactiveDomain) {}

  /// How a document is to be read.
  ///
  /// @param redefine it tells of a snapshot that was taken before
  /// @param offline the domain does not run, or only disks are taken
  /// @param validate against the schema first
  record Mode(boolean redefine, boolean offline, boolean validate) {}

  static SnapshotXml parse(String xml, Mode mode) throws LibvirtException {
    XmlElement root = Xml.parse(xml, "domain_snapshot", ErrorDomain.DOMAIN_SNAPSHOT);
    if (mode.validate()) {
      Schema.SNAPSHOT.check(xml);
    }
    if (!root.name().equals("domainsnapshot")) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "expecting root element of 'domainsnapshot', not '%s'".formatted(root.name()));
    }
    Optional<String> name = root.child("name").map(XmlElement::text).filter(t -> !t.isEmpty());
    if (mode.redefine() && name.isEmpty()) {
      throw xmlError("a redefined snapshot must have a name");
    }
    Optional<Past> past = mode.redefine() ? Optional.of(past(root)) : Optional.empty();
    boolean offline = past.map(found -> isOffline(found.state())).orElse(mode.offline());
    return new SnapshotXml(
        name, root.childText("description"), memory(root, offline), disks(root), past);
  }

  private static boolean isOffline(String state) {
    return state.equals(SnapshotDocument.SHUTOFF) || state.equals(SnapshotDocument.DISK_SNAPSHOT);
  }

  private static LibvirtException xmlError(String detail) {
    return ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN_SNAPSHOT, detail);
  }

  private static LibvirtException unsupported(String detail) {
    return ErrorCode.CONFIG_UNSUPPORTED.in(ErrorDomain.DOMAIN_SNAPSHOT, detail);
  }

  private static LibvirtException internal(String detail) {
    return ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN_SNAPSHOT, detail);
  }

  private static Past past(XmlElement root) throws LibvirtException {
    String time = root.childText("creationTime").strip();
    if (!time.matches("[0-9]{1,18}")) {
      throw internal("missing creationTime from existing snapshot");
    }
    Optional<String> parent =
        root.child("parent").map(found -> found.childText("name")).filter(t -> !t.isEmpty());
    String state = root.childText("state");
    if (state.isEmpty()) {
      throw xmlError("missing state from existing snapshot");
    }
    if (!SnapshotDocument.STATES.contains(state)) {
      throw unsupported("Invalid state '%s' in domain snapshot XML".formatted(state));
    }
    // A domain without a type is what very old documents have: it tells nothing.
    Optional<XmlElement> domain = root.child("domain").filter(found -> found.hasAttribute("type"));
    Optional<XmlElement> inactive =
        root.child("inactiveDomain").map(found -> SnapshotDocument.renamed(found, "domain"));
    return new Past(Long.parseLong(time), state, parent, domain, inactive);
  }

  private static Optional<Memory> memory(XmlElement root, boolean offline) throws LibvirtException {
    Optional<XmlElement> element = root.child("memory");
    if (element.isEmpty()) {
      return Optional.empty();
    }
    XmlElement memory = element.get();
    Optional<String> file =
        memory.hasAttribute("file") ? Optional.of(memory.attribute("file")) : Optional.empty();
    Optional<Location> location = Optional.empty();
    if (memory.hasAttribute("snapshot")) {
      location =
          Location.of(memory.attribute("snapshot")).filter(found -> found != Location.MANUAL);
      if (location.isEmpty()) {
        throw invalid("snapshot", "memory", memory.attribute("snapshot"));
      }
    } else if (file.isPresent()) {
      location = Optional.of(Location.EXTERNAL);
    }
    boolean external = location.equals(Optional.of(Location.EXTERNAL));
    if (external && file.isEmpty()) {
      throw xmlError("external memory snapshots require a filename");
    }
    if (!external && file.isPresent()) {
      throw xmlError("memory filename '%s' requires external snapshot".formatted(file.get()));
    }
    if (offline && location.filter(found -> found != Location.NO).isPresent()) {
      throw xmlError("memory state cannot be saved with offline or disk-only snapshot");
    }
    if (file.filter(path -> !path.startsWith("/")).isPresent()) {
      throw xmlError("memory snapshot file path (%s) must be absolute".formatted(file.get()));
    }
    return location.map(found -> new Memory(found, file));
  }

  private static LibvirtException invalid(String attribute, String element, String value) {
    return ErrorCode.XML_ERROR.in(
        ErrorDomain.XML,
        "Invalid value for attribute '%s' in element '%s': '%s'."
            .formatted(attribute, element, value));
  }

  private static List<Disk> disks(XmlElement root) throws LibvirtException {
    List<Disk> disks = new ArrayList<>();
    for (XmlElement disk : root.child("disks").map(XmlElement::children).orElse(List.of())) {
      disks.add(disk(disk));
    }
    return disks;
  }

  private static Disk disk(XmlElement element) throws LibvirtException {
    String name = element.attribute("name");
    if (name.isEmpty()) {
      throw internal("missing name from disk snapshot element");
    }
    Optional<Location> location = Optional.empty();
    if (element.hasAttribute("snapshot")) {
      location = Location.of(element.attribute("snapshot"));
      if (location.isEmpty()) {
        throw invalid("snapshot", "disk", element.attribute("snapshot"));
      }
    }
    String type = element.hasAttribute("type") ? element.attribute("type") : "file";
    if (!DISK_TYPES.contains(type)) {
      throw invalid("type", "disk", type);
    }
    if (!Set.of("file", "block", "network").contains(type)) {
      throw xmlError("unsupported disk snapshot type '%s'".formatted(type));
    }
    Optional<XmlElement> source =
        element
            .child("source")
            .filter(
                found -> found.attributes().values().stream().anyMatch(value -> !value.isEmpty()));
    Optional<String> format =
        element.child("driver").map(driver -> driver.attribute("type")).filter(t -> !t.isEmpty());
    if (format.isPresent() && !DiskCheck.isFormat(format.get())) {
      throw unsupported("unknown disk snapshot driver '%s'".formatted(format.get()));
    }
    Disk disk = new Disk(name, location, type, format, source.map(XmlElement::copy));
    Optional<String> path = disk.path();
    if (location.isEmpty() && (path.isPresent() || format.isPresent())) {
      disk = disk.at(Location.EXTERNAL);
    }
    if (path.filter(found -> !found.startsWith("/")).isPresent()) {
      throw xmlError("disk snapshot image path '%s' must be absolute".formatted(path.get()));
    }
    if (path.isPresent()) {
      DiskElement.path(path.get());
    }
    return disk;
  }
}
