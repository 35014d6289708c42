// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A checkpoint as it is remembered and written.
///
/// Spec: libvirt 9.0.0, measured output: name, description, parent, creationTime, disks, domain.
///
/// @param parent empty for a root
/// @param creationTime seconds since the epoch
/// @param domain inactive form of the domain at that moment, with its secrets; empty when the
///   client that redefined the checkpoint gave none
record CheckpointDocument(
    String name,
    String description,
    Optional<String> parent,
    long creationTime,
    List<Disk> disks,
    Optional<XmlElement> domain)
    implements Moment {
  /// @param target of a redefined checkpoint without a domain: whatever the client calls it
  /// @param bitmap its name; empty when the disk has none
  record Disk(String target, Optional<String> bitmap) {}

  /// What a client asks for.
  ///
  /// @param name absent: made from the time
  /// @param disks absent: all that can
  /// @param past only looked at when a checkpoint is redefined
  record Request(
      Optional<String> name, String description, Optional<List<RequestedDisk>> disks, Past past) {}

  /// What a document says of a checkpoint that was there before.
  record Past(Optional<Long> creationTime, Optional<String> parent, Optional<XmlElement> domain) {}

  /// @param name target or path
  /// @param bitmapName as given, absent when not
  record RequestedDisk(String name, boolean bitmap, Optional<String> bitmapName) {
    Optional<String> bitmapOr(String checkpoint) {
      return bitmap ? bitmapName.or(() -> Optional.of(checkpoint)) : Optional.empty();
    }
  }

  /// Layout of the stored document.
  static final int VERSION = 1;

  private static final String STORED = "checkpointstatus";

  static Request parse(String xml) throws LibvirtException {
    XmlElement root =
        Xml.parse(xml, "domain_checkpoint", ErrorDomain.DOMAIN_CHECKPOINT, "domaincheckpoint");
    Schema.CHECKPOINT.check(xml);
    Optional<String> name = root.child("name").map(XmlElement::text);
    Optional<List<RequestedDisk>> disks =
        root.child("disks")
            .map(list -> list.children().stream().map(CheckpointDocument::disk).toList());
    Past past =
        new Past(
            seconds(root.childText("creationTime").strip()),
            root.child("parent")
                .map(parent -> parent.childText("name"))
                .filter(parent -> !parent.isEmpty()),
            root.child("domain"));
    return new Request(name, root.childText("description"), disks, past);
  }

  /// What does not fit is as if it was not given, as libvirt has it.
  private static Optional<Long> seconds(String text) {
    try {
      return Optional.of(Long.parseLong(text));
    } catch (NumberFormatException _) {
      return Optional.empty();
    }
  }

  private static RequestedDisk disk(XmlElement disk) {
    Optional<String> bitmap =
        disk.hasAttribute("bitmap") ? Optional.of(disk.attribute("bitmap")) : Optional.empty();
    return new RequestedDisk(
        disk.attribute("name"), !disk.attribute("checkpoint").equals("no"), bitmap);
  }

  /// Which disks of a running domain get a bitmap, in the domain's order; refuses what libvirt
  /// refuses.
  static List<Disk> align(Request request, String name, Live live) throws LibvirtException {
    List<Disk> disks = align(request, name, live.disks().stream().map(LiveDisk::element).toList());
    for (Disk aligned : disks) {
      if (aligned.bitmap().isEmpty()) {
        continue;
      }
      if (!aligned.bitmap().get().equals(name)) {
        throw ErrorCode.CONFIG_UNSUPPORTED.because(
            "bitmap for disk '%s' must match checkpoint name '%s'"
                .formatted(aligned.target(), name));
      }
      LiveDisk disk = live.disk(aligned.target());
      BlockJobs.checkSupported(disk);
      if (!disk.hasMedium() || !disk.active().format().equals("qcow2")) {
        throw ErrorCode.CONFIG_UNSUPPORTED.because(
            "checkpoint for disk %s unsupported for storage type %s"
                .formatted(disk.target(), disk.hasMedium() ? disk.active().format() : "none"));
      }
    }
    return disks;
  }

  /// The disks of a document in the order of its domain, with libvirt's defaults.
  static List<Disk> align(Request request, String name, List<DiskElement> domain)
      throws LibvirtException {
    if (domain.isEmpty()) {
      throw unsupported("domain must have at least one disk to perform checkpoints");
    }
    Map<String, Optional<String>> bitmaps = new HashMap<>();
    for (RequestedDisk asked : request.disks().orElse(List.of())) {
      String target =
          domain.stream()
              .filter(disk -> disk.isCalled(asked.name()))
              .findFirst()
              .orElseThrow(() -> unsupported("no disk named '%s'".formatted(asked.name())))
              .target();
      if (bitmaps.put(target, asked.bitmapOr(name)) != null) {
        throw unsupported("disk '%s' specified twice".formatted(asked.name()));
      }
    }
    List<Disk> disks = new ArrayList<>();
    for (DiskElement disk : domain) {
      Optional<String> unlisted =
          request.disks().isEmpty() && disk.source().isPresent() && !disk.readOnly()
              ? Optional.of(name)
              : Optional.empty();
      disks.add(new Disk(disk.target(), bitmaps.getOrDefault(disk.target(), unlisted)));
    }
    return disks;
  }

  private static LibvirtException unsupported(String why) {
    return ErrorCode.CONFIG_UNSUPPORTED.in(ErrorDomain.DOMAIN_CHECKPOINT, why);
  }

  CheckpointDocument withParent(Optional<String> other) {
    return new CheckpointDocument(name, description, other, creationTime, disks, domain);
  }

  List<String> bitmapTargets() {
    return disks.stream().filter(disk -> disk.bitmap().isPresent()).map(Disk::target).toList();
  }

  /// The document as clients see it.
  ///
  /// @param shownDomain what is shown of [#domain]
  /// @param sizes bytes by disk, for those that have one to show
  XmlElement toXml(Optional<XmlElement> shownDomain, Map<String, Long> sizes) {
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
                .attribute("checkpoint", disk.bitmap().isPresent() ? "bitmap" : "no");
        disk.bitmap().ifPresent(bitmap -> element.attribute("bitmap", bitmap));
        Long size = sizes.get(disk.target());
        if (size != null) {
          element.attribute("size", size);
        }
      }
    }
    shownDomain.ifPresent(found -> root.add(found.copy()));
    return root;
  }

  String stored() {
    return Xml.write(
        new XmlElement(STORED).attribute("version", VERSION).add(toXml(domain, Map.of())));
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
          root.child("domain"));
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
        .map(disk ->
            new Disk(
                disk.attribute("name"),
                disk.attribute("checkpoint").equals("bitmap")
                    ? Optional.of(disk.attribute("bitmap"))
                    : Optional.empty()))
        .toList();
  }
}
