// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// A client's `<domainbackup>`, held against the schema ([Schema#BACKUP]).
///
/// Spec: libvirt 9.0.0, `docs/formatbackup.rst`; what is refused is measured.
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

  static BackupXml parse(String xml) throws LibvirtException {
    XmlElement root = Xml.parse(xml, "domain_backup", ErrorDomain.DOMAIN, "domainbackup");
    Schema.BACKUP.check(xml);
    boolean pull = root.attribute("mode").equals("pull");
    Optional<XmlElement> disks = root.child("disks");
    List<Disk> parsed = new ArrayList<>();
    for (XmlElement disk : disks.map(XmlElement::children).orElse(List.of())) {
      parsed.add(disk(disk, pull));
    }
    Optional<String> incremental =
        Optional.of(root.childText("incremental").strip()).filter(name -> !name.isEmpty());
    Optional<BackupServer> server =
        pull ? Optional.of(BackupServer.of(root.child("server").orElseThrow())) : Optional.empty();
    BackupXml backup = new BackupXml(server, incremental, disks.isPresent(), parsed);
    backup.checkModes();
    return backup;
  }

  private static Disk disk(XmlElement disk, boolean pull) throws LibvirtException {
    String name = disk.attribute("name");
    boolean selected = !disk.attribute("backup").equals("no");
    String type = disk.attribute("type");
    String format = disk.child("driver").map(driver -> driver.attribute("type")).orElse("");
    Optional<XmlElement> store = disk.child(pull ? "scratch" : "target");
    if (store.flatMap(element -> element.child("encryption")).isPresent()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk '%s': encryption of a backup's images is not supported".formatted(name));
    }
    Optional<String> target =
        store.map(element -> element.attribute(type.equals("block") ? "dev" : "file"));
    Optional<String> incremental =
        Optional.of(disk.attribute("incremental")).filter(text -> !text.isEmpty());
    return new Disk(
        name,
        selected,
        type.isEmpty() ? "file" : type,
        disk.attribute("backupmode"),
        incremental,
        format,
        target,
        Optional.of(disk.attribute("exportname")).filter(text -> !text.isEmpty()),
        Optional.of(disk.attribute("exportbitmap")).filter(text -> !text.isEmpty()));
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
