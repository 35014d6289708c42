// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.UUID;

/// The live record: one document that says what a running domain is. Replacing it is the single
/// commit point of every change to a running domain.
///
/// It holds the live definition, each disk's open chain with its numbers, the next number, state,
/// block jobs (with `phase='changed'` once the chain is what they make of it), the backup with the
/// files it writes, a checkpoint that is about to be made, and jobs that restarts have ended.
final class LiveRecord {
  /// Version of the layout. A higher one is refused and left alone.
  static final int VERSION = 2;

  private static final String ROOT = "domstatus";

  private LiveRecord() {}

  /// A record that this program must not touch.
  static final class NewerVersionException extends Exception {
    private static final long serialVersionUID = 1L;
    private final String uuid;
    private final String version;

    NewerVersionException(String uuid, String version) {
      super("live record of version %s, this program knows %d".formatted(version, VERSION));
      this.uuid = uuid;
      this.version = version;
    }

    String uuid() {
      return uuid;
    }

    String version() {
      return version;
    }
  }

  static String write(Live live) {
    XmlElement root =
        new XmlElement(ROOT)
            .attribute("version", VERSION)
            .attribute("uuid", live.definition().uuid())
            .attribute("id", live.id())
            .attribute("state", live.state().name())
            .attribute("nextIndex", live.nextIndex())
            .attribute("autodestroy", live.autodestroy() ? "yes" : "no");
    root.add(live.definition().root().copy());
    for (LiveDisk disk : live.disks()) {
      XmlElement element =
          root.add("disk")
              .attribute("target", disk.target())
              .attribute("explicitBacking", disk.explicitBacking() ? "yes" : "no")
              .attribute("terminated", disk.terminated() ? "yes" : "no");
      disk.layers().forEach(layer -> element.add(Layer.toXml(layer)));
      BlockJob job = disk.job();
      if (job != null) {
        element.add(JobRecord.write(job));
      }
    }
    BackupJob backup = live.backup();
    if (backup != null) {
      root.add(backup.toRecord());
    }
    live.lost().forEach(job -> root.add("lost").attribute("job", job));
    Live.PendingCheckpoint pending = live.pendingCheckpoint();
    if (pending != null) {
      XmlElement element = root.add("pendingCheckpoint").attribute("name", pending.name());
      pending.targets().forEach(target -> element.add("disk").attribute("target", target));
    }
    Live.PendingSnapshot snapshot = live.pendingSnapshot();
    if (snapshot != null) {
      root.add("pendingSnapshot")
          .attribute("metadata", snapshot.metadata() ? "yes" : "no")
          .add(new SnapshotDocument.Stored(snapshot.snapshot(), true).toXml());
    }
    return Xml.write(root);
  }

  /// Reads a record back; jobs are as they were when it was written.
  ///
  /// @throws NewerVersionException when a later program wrote it
  /// @throws LibvirtException when it cannot be understood
  static Live read(String xml) throws LibvirtException, NewerVersionException {
    XmlElement root = Xml.parse(xml, ROOT, ErrorDomain.DOMAIN, ROOT);
    if (!root.attribute("version").equals(String.valueOf(VERSION))) {
      throw new NewerVersionException(root.attribute("uuid"), root.attribute("version"));
    }
    try {
      return readVersion2(root);
    } catch (IllegalArgumentException
        | java.util.NoSuchElementException
        | java.time.DateTimeException e) {
      throw new LibvirtException(
          ErrorCode.INTERNAL_ERROR, ErrorDomain.DOMAIN, "live record: " + e.getMessage(), e);
    }
  }

  private static Live readVersion2(XmlElement root) throws LibvirtException {
    Definition definition = Definition.ofStored(root.child("domain").orElseThrow().copy());
    UUID unused = definition.uuid(); // checks that it is one
    if (!unused.toString().equals(root.attribute("uuid"))) {
      throw new IllegalArgumentException("uuid " + unused + " is not " + root.attribute("uuid"));
    }
    List<LiveDisk> disks = new ArrayList<>();
    for (DiskElement element : definition.disks()) {
      XmlElement saved =
          root.children("disk").stream()
              .filter(disk -> disk.attribute("target").equals(element.target()))
              .findFirst()
              .orElseThrow();
      LiveDisk disk =
          new LiveDisk(
              element, Layer.allOf(saved), saved.attribute("explicitBacking").equals("yes"));
      disk.terminated(!saved.attribute("terminated").equals("no"));
      saved.child("job").ifPresent(job -> disk.job(JobRecord.read(job)));
      disks.add(disk);
    }
    Live live =
        new Live(
            Integer.parseInt(root.attribute("id")),
            definition,
            disks,
            root.attribute("autodestroy").equals("yes"),
            Integer.parseInt(root.attribute("nextIndex")),
            DomainState.valueOf(root.attribute("state")));
    root.children("lost").forEach(job -> live.remember(job.attribute("job")));
    root.child("backup").ifPresent(backup -> live.backup(BackupJob.ofRecord(backup)));
    root.child("pendingCheckpoint")
        .ifPresent(pending ->
            live.pendingCheckpoint(
                new Live.PendingCheckpoint(
                    pending.attribute("name"),
                    pending.children("disk").stream()
                        .map(disk -> disk.attribute("target"))
                        .toList())));
    Optional<XmlElement> snapshot = root.child("pendingSnapshot");
    if (snapshot.isPresent()) {
      XmlElement stored = snapshot.get().children().getFirst();
      live.pendingSnapshot(
          new Live.PendingSnapshot(
              SnapshotDocument.Stored.ofElement(stored).document(),
              snapshot.get().attribute("metadata").equals("yes")));
    }
    return live;
  }
}
