// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// A checkpoint as it is remembered and written.
///
/// Spec: libvirt 9.0.0 `domaincheckpoint.rng` and measured output: name, description, parent,
/// creationTime, disks, domain.
///
/// @param parent empty for a root
/// @param creationTime seconds since the epoch
/// @param domain inactive form of the domain at that moment
record CheckpointDocument(
    String name,
    String description,
    Optional<String> parent,
    long creationTime,
    List<Disk> disks,
    XmlElement domain)
    implements Moment {
  /// @param bitmap whether the disk has one, named as the checkpoint
  record Disk(String target, boolean bitmap) {}

  /// What a client asks for.
  ///
  /// @param name absent: made from the time
  /// @param disks absent: all that can
  record Request(Optional<String> name, String description, Optional<List<RequestedDisk>> disks) {}

  /// @param name target or path
  /// @param bitmapName as given, absent when not
  record RequestedDisk(String name, boolean bitmap, Optional<String> bitmapName) {}

  /// Layout of the stored document.
  static final int VERSION = 1;

  private static final String STORED = "checkpointstatus";

  static Request parse(String xml) throws LibvirtException {
    XmlElement root =
        Xml.parse(xml, "domain_checkpoint", ErrorDomain.DOMAIN_CHECKPOINT, "domaincheckpoint");
    SchemaCheck schema = new SchemaCheck("domaincheckpoint");
    schema.attributes(root, Set.of());
    schema.children(
        root, Set.of("name", "description", "parent", "creationTime", "disks", "domain"));
    Optional<String> name = root.child("name").map(XmlElement::text);
    schema.requireChild(name.isEmpty() || isName(name.get()), "name");
    String time = root.childText("creationTime");
    schema.requireChild(time.isEmpty() || time.matches("[0-9]{1,19}"), "creationTime");
    Optional<List<RequestedDisk>> disks = Optional.empty();
    Optional<XmlElement> list = root.child("disks");
    if (list.isPresent()) {
      List<RequestedDisk> requested = new ArrayList<>();
      for (XmlElement disk : list.get().children()) {
        schema.requireChild(disk.name().equals("disk"), "disks");
        requested.add(disk(disk, schema));
      }
      disks = Optional.of(requested);
    }
    return new Request(name, root.childText("description"), disks);
  }

  private static RequestedDisk disk(XmlElement disk, SchemaCheck schema) throws LibvirtException {
    String mode = disk.hasAttribute("checkpoint") ? disk.attribute("checkpoint") : "bitmap";
    boolean good = !disk.attribute("name").isEmpty() && disk.children().isEmpty();
    good &= Set.of("name", "checkpoint", "bitmap", "size").containsAll(disk.attributes().keySet());
    good &= mode.equals("bitmap") || (mode.equals("no") && !disk.hasAttribute("bitmap"));
    good &= !disk.hasAttribute("size") || disk.attribute("size").matches("[0-9]{1,19}");
    schema.requireChild(good, "disks");
    Optional<String> bitmap =
        disk.hasAttribute("bitmap") ? Optional.of(disk.attribute("bitmap")) : Optional.empty();
    return new RequestedDisk(disk.attribute("name"), mode.equals("bitmap"), bitmap);
  }

  private static boolean isName(String name) {
    return name.matches("[A-Za-z0-9_-][A-Za-z0-9_.-]*");
  }

  /// Which disks get a bitmap, in the domain's order; refuses what libvirt refuses.
  static List<Disk> align(Request request, String name, Live live) throws LibvirtException {
    Set<String> selected = new HashSet<>();
    if (request.disks().isPresent()) {
      Set<String> named = new HashSet<>();
      for (RequestedDisk asked : request.disks().get()) {
        LiveDisk disk =
            live.find(asked.name())
                .orElseThrow(() ->
                    ErrorCode.CONFIG_UNSUPPORTED.in(
                        ErrorDomain.DOMAIN_CHECKPOINT,
                        "no disk named '%s'".formatted(asked.name())));
        if (!named.add(disk.target())) {
          throw ErrorCode.CONFIG_UNSUPPORTED.in(
              ErrorDomain.DOMAIN_CHECKPOINT, "disk '%s' specified twice".formatted(disk.target()));
        }
        if (asked.bitmap()) {
          selected.add(disk.target());
        }
        if (asked.bitmapName().filter(given -> !given.equals(name)).isPresent()) {
          throw ErrorCode.CONFIG_UNSUPPORTED.because(
              "bitmap for disk '%s' must match checkpoint name '%s'"
                  .formatted(disk.target(), name));
        }
      }
    } else {
      live.disks().stream()
          .filter(disk -> disk.hasMedium() && !disk.element().readOnly())
          .forEach(disk -> selected.add(disk.target()));
    }
    List<Disk> disks = new ArrayList<>();
    for (LiveDisk disk : live.disks()) {
      boolean bitmap = selected.contains(disk.target());
      if (bitmap) {
        BlockJobs.checkSupported(disk);
      }
      if (bitmap && (!disk.hasMedium() || !disk.active().format().equals("qcow2"))) {
        throw ErrorCode.CONFIG_UNSUPPORTED.because(
            "checkpoint for disk %s unsupported for storage type %s"
                .formatted(disk.target(), disk.hasMedium() ? disk.active().format() : "none"));
      }
      disks.add(new Disk(disk.target(), bitmap));
    }
    return disks;
  }

  CheckpointDocument withParent(Optional<String> other) {
    return new CheckpointDocument(name, description, other, creationTime, disks, domain);
  }

  List<String> bitmapTargets() {
    return disks.stream().filter(Disk::bitmap).map(Disk::target).toList();
  }

  /// The document as clients see it.
  ///
  /// @param sizes bytes by disk, for those that have one to show
  XmlElement toXml(boolean withDomain, java.util.Map<String, Long> sizes) {
    XmlElement root = new XmlElement("domaincheckpoint");
    root.add("name", name);
    if (!description.isEmpty()) {
      root.add("description", description);
    }
    parent.ifPresent(above -> root.add("parent").add("name", above));
    root.add("creationTime", creationTime);
    if (!disks.isEmpty()) {
      XmlElement list = root.add("disks");
      for (Disk disk : disks) {
        XmlElement element =
            list.add("disk")
                .attribute("name", disk.target())
                .attribute("checkpoint", disk.bitmap() ? "bitmap" : "no");
        if (disk.bitmap()) {
          element.attribute("bitmap", name);
        }
        Long size = sizes.get(disk.target());
        if (size != null) {
          element.attribute("size", size);
        }
      }
    }
    if (withDomain) {
      root.add(domain.copy());
    }
    return root;
  }

  String stored() {
    return Xml.write(
        new XmlElement(STORED).attribute("version", VERSION).add(toXml(true, java.util.Map.of())));
  }

  static CheckpointDocument ofStored(String xml) throws LibvirtException {
    XmlElement outer = Xml.parse(xml, STORED, ErrorDomain.DOMAIN_CHECKPOINT, STORED);
    if (!outer.attribute("version").equals(String.valueOf(VERSION))) {
      throw ErrorCode.INTERNAL_ERROR.in(
          ErrorDomain.DOMAIN_CHECKPOINT,
          "stored checkpoint of version %s, this program knows %d"
              .formatted(outer.attribute("version"), VERSION));
    }
    try {
      XmlElement root = outer.child("domaincheckpoint").orElseThrow();
      return new CheckpointDocument(
          root.childText("name"),
          root.childText("description"),
          root.child("parent").map(parent -> parent.childText("name")),
          Long.parseLong(root.childText("creationTime")),
          root.child("disks").map(CheckpointDocument::storedDisks).orElse(List.of()),
          root.child("domain").orElseThrow());
    } catch (IllegalArgumentException | java.util.NoSuchElementException e) {
      throw new LibvirtException(
          ErrorCode.INTERNAL_ERROR,
          ErrorDomain.DOMAIN_CHECKPOINT,
          "stored checkpoint: " + e.getMessage(),
          e);
    }
  }

  private static List<Disk> storedDisks(XmlElement disks) {
    return disks.children("disk").stream()
        .map(
            disk -> new Disk(disk.attribute("name"), disk.attribute("checkpoint").equals("bitmap")))
        .toList();
  }
}
