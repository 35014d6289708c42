// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// A client's `<domainbackup>`, held against libvirt's schema.
///
/// Spec: libvirt 9.0.0 `domainbackup.rng`; what is refused is measured.
///
/// @param incremental checkpoint for every disk without its own; empty: full
/// @param server where a pull backup is served; present when it is one
/// @param listed whether the document has `<disks>`; if so, disks it does not name are left out
record BackupXml(
    Optional<BackupServer> server, Optional<String> incremental, boolean listed, List<Disk> disks) {
  /// @param type `file` or `block`
  /// @param mode `full`, `incremental` or empty
  /// @param format empty when not given
  /// @param target absolute path, of the scratch in a pull backup; absent when not given
  /// @param exportName absent when not given
  /// @param exportBitmap absent when not given
  record Disk(
      String name,
      boolean selected,
      String type,
      String mode,
      Optional<String> incremental,
      String format,
      Optional<String> target,
      Optional<String> exportName,
      Optional<String> exportBitmap) {}

  private static final Set<String> FORMATS =
      Set.of(
          "raw", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "fat", "vhd", "ploop", "luks",
          "cow", "qcow", "qcow2", "qed", "vmdk");

  static BackupXml parse(String xml) throws LibvirtException {
    XmlElement root = Xml.parse(xml, "domain_backup", ErrorDomain.DOMAIN, "domainbackup");
    Schema.BACKUP.check(xml);
    SchemaCheck schema = new SchemaCheck("domainbackup");
    schema.attributes(root, Set.of("mode"));
    String mode = root.hasAttribute("mode") ? root.attribute("mode") : "push";
    schema.require(
        mode.equals("push") || mode.equals("pull"),
        "Invalid attribute mode for element domainbackup");
    schema.children(root, Set.of("incremental", "server", "disks"));
    boolean pull = mode.equals("pull");
    if (pull) {
      boolean served = root.child("server").filter(BackupServer::isValid).isPresent();
      schema.requireChild(served, root.child("server").isPresent() ? "server" : "disks");
    } else {
      schema.requireChild(root.child("server").isEmpty(), "server");
    }
    Optional<XmlElement> disks = root.child("disks");
    List<Disk> parsed = new ArrayList<>();
    if (disks.isPresent()) {
      schema.requireChild(!disks.get().children().isEmpty(), "disks");
      for (XmlElement disk : disks.get().children()) {
        schema.requireChild(disk.name().equals("disk"), "disks");
        parsed.add(disk(disk, pull, schema));
      }
    }
    Optional<String> incremental =
        Optional.of(root.childText("incremental").strip()).filter(name -> !name.isEmpty());
    Optional<BackupServer> server =
        pull ? Optional.of(BackupServer.of(root.child("server").orElseThrow())) : Optional.empty();
    BackupXml backup = new BackupXml(server, incremental, disks.isPresent(), parsed);
    backup.checkModes();
    return backup;
  }

  private static Disk disk(XmlElement disk, boolean pull, SchemaCheck schema)
      throws LibvirtException {
    String name = disk.attribute("name");
    boolean selected = !disk.attribute("backup").equals("no");
    String type = disk.attribute("type");
    String mode = disk.attribute("backupmode");
    boolean good = name.matches("[a-zA-Z0-9_.:-]+");
    Set<String> allowed = new HashSet<>(Set.of("name", "backup", "backupmode", "incremental"));
    if (pull) {
      allowed.addAll(Set.of("exportname", "exportbitmap"));
    }
    good &= Set.of("", "full", "incremental").contains(mode);
    good &= !(disk.hasAttribute("backupmode") && mode.isEmpty());
    good &= !(mode.equals("full") && disk.hasAttribute("incremental"));
    if (selected) {
      allowed.add("type");
      good &= !disk.hasAttribute("backup") || disk.attribute("backup").equals("yes");
      boolean untyped = pull && !disk.hasAttribute("type") && !disk.hasAttribute("backup");
      good &= untyped || type.equals("file") || type.equals("block");
    } else {
      good &= disk.children().isEmpty();
    }
    good &= allowed.containsAll(disk.attributes().keySet());
    String store = pull ? "scratch" : "target";
    good &= disk.children(store).size() <= 1 && disk.children("driver").size() <= 1;
    good &=
        disk.children().stream()
            .allMatch(child -> child.name().equals(store) || child.name().equals("driver"));
    Optional<XmlElement> driver = disk.child("driver");
    String format = driver.map(element -> element.attribute("type")).orElse("");
    good &= driver.isEmpty() || (FORMATS.contains(format) && (!pull || format.equals("qcow2")));
    Optional<String> target =
        disk.child(store).map(element -> element.attribute(type.equals("block") ? "dev" : "file"));
    good &= target.isEmpty() || target.get().startsWith("/");
    good &= disk.children(store).stream().allMatch(element -> isStore(element, type));
    schema.requireChild(good, pull ? "server" : "disks");
    if (disk.child(store).flatMap(element -> element.child("encryption")).isPresent()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk '%s': encryption of a backup's images is not supported".formatted(name));
    }
    Optional<String> incremental =
        Optional.of(disk.attribute("incremental")).filter(text -> !text.isEmpty());
    return new Disk(
        name,
        selected,
        type.isEmpty() ? "file" : type,
        mode,
        incremental,
        format,
        target,
        Optional.of(disk.attribute("exportname")).filter(text -> !text.isEmpty()),
        Optional.of(disk.attribute("exportbitmap")).filter(text -> !text.isEmpty()));
  }

  private static boolean isStore(XmlElement store, String type) {
    return Set.of(type.equals("block") ? "dev" : "file").containsAll(store.attributes().keySet())
        && store.children().stream()
            .allMatch(child -> Set.of("seclabel", "encryption").contains(child.name()));
  }

  private void checkModes() throws LibvirtException {
    for (Disk disk : disks) {
      if (disk.selected()
          && disk.mode().equals("incremental")
          && disk.incremental().isEmpty()
          && incremental.isEmpty()) {
        throw ErrorCode.CONFIG_UNSUPPORTED.in(
            ErrorDomain.DOMAIN,
            ("'incremental' backup mode of disk '%s' requires setting 'incremental' field for disk"
                    + " or backup")
                .formatted(disk.name()));
      }
    }
  }

  boolean pull() {
    return server.isPresent();
  }

  /// The checkpoint whose changes a disk's backup holds; empty: all of the disk.
  Optional<String> incrementalOf(Disk disk) {
    if (disk.mode().equals("full")) {
      return Optional.empty();
    }
    return disk.incremental().or(() -> incremental);
  }
}
