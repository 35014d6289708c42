// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A push backup of a running domain. Guarded by the domain's lock.
final class BackupJob {
  /// Where its files stand.
  enum Phase {
    /// Targets are incomplete.
    RUNNING,
    /// All targets are complete, flushed and closed; what is left is to give them their names. A
    /// restart goes on from here.
    PUBLISHING
  }

  /// One disk of it.
  static final class Disk {
    private final String target;
    private final String jobId;
    private final Layer node;
    private final String finalFile;
    private final boolean ours;
    private final Optional<String> incremental;
    // Null while its job runs.
    private @Nullable BlockJobStatus outcome;
    private boolean published;
    private long current;
    private long total;

    /// @param node what the job writes: a partial file, or the client's own with REUSE_EXTERNAL
    /// @param ours whether the file is made by this backup, so is published or removed at the end
    /// @param incremental checkpoint it counts from; empty: full
    Disk(
        String target,
        String jobId,
        Layer node,
        String finalFile,
        boolean ours,
        Optional<String> incremental) {
      this.target = target;
      this.jobId = jobId;
      this.node = node;
      this.finalFile = finalFile;
      this.ours = ours;
      this.incremental = incremental;
    }

    String target() {
      return target;
    }

    String jobId() {
      return jobId;
    }

    Layer node() {
      return node;
    }

    String finalFile() {
      return finalFile;
    }

    boolean ours() {
      return ours;
    }

    Optional<String> incremental() {
      return incremental;
    }

    /// Name of the bitmap that holds what is to be copied, for the time of the job.
    String bitmap() {
      return "backup-" + target;
    }

    @Nullable BlockJobStatus outcome() {
      return outcome;
    }

    void end(BlockJobStatus how) {
      outcome = how;
    }

    /// The file has its name.
    void markPublished() {
      published = true;
    }

    boolean published() {
      return published;
    }

    void progress(long done, long all) {
      current = done;
      total = all;
    }

    long current() {
      return current;
    }

    long total() {
      return total;
    }
  }

  private final Instant start;
  private final Optional<String> incremental;
  private final List<Disk> disks;
  private final List<String> notSelected;
  private Phase phase = Phase.RUNNING;
  private boolean started;
  private boolean abortAsked;
  private boolean othersCancelled;
  // Null until something fails.
  private @Nullable String failure;

  /// @param notSelected disks of the domain that are left out
  BackupJob(
      Instant start, Optional<String> incremental, List<Disk> disks, List<String> notSelected) {
    this.start = start;
    this.incremental = incremental;
    this.disks = List.copyOf(disks);
    this.notSelected = List.copyOf(notSelected);
  }

  Instant start() {
    return start;
  }

  List<Disk> disks() {
    return disks;
  }

  Optional<Disk> disk(String target) {
    return disks.stream().filter(disk -> disk.target().equals(target)).findFirst();
  }

  boolean runsOn(String target) {
    return disk(target).filter(disk -> disk.outcome() == null).isPresent();
  }

  Phase phase() {
    return phase;
  }

  void phase(Phase next) {
    phase = next;
  }

  /// Whether the driver runs its jobs, so that their end clears up.
  boolean started() {
    return started;
  }

  void markStarted() {
    started = true;
  }

  boolean abortAsked() {
    return abortAsked;
  }

  void askAbort() {
    abortAsked = true;
  }

  /// True the first time: the other disks are cancelled once.
  boolean cancelOthersNow() {
    boolean first = !othersCancelled;
    othersCancelled = true;
    return first;
  }

  @Nullable String failure() {
    return failure;
  }

  /// Keeps the first reason.
  void fail(String why) {
    if (failure == null) {
      failure = why;
    }
  }

  boolean allEnded() {
    return disks.stream().allMatch(disk -> disk.outcome() != null);
  }

  boolean succeeded() {
    return failure == null
        && disks.stream().allMatch(disk -> disk.outcome() == BlockJobStatus.COMPLETED);
  }

  /// `<domainbackup>` as virDomainBackupGetXMLDesc shows it. The order of disks is the domain's.
  String xmlDesc(List<String> order) {
    XmlElement root = new XmlElement("domainbackup").attribute("mode", "push");
    incremental.ifPresent(name -> root.add("incremental", name));
    XmlElement list = root.add("disks");
    for (String target : order) {
      Optional<Disk> found = disk(target);
      if (found.isPresent()) {
        list.add(shown(found.get()));
      } else if (notSelected.contains(target)) {
        list.add("disk").attribute("name", target).attribute("backup", "no");
      }
    }
    return Xml.write(root);
  }

  private static XmlElement shown(Disk disk) {
    XmlElement element =
        new XmlElement("disk")
            .attribute("name", disk.target())
            .attribute("backup", "yes")
            .attribute("type", "file")
            .attribute("backupmode", disk.incremental().isPresent() ? "incremental" : "full");
    disk.incremental().ifPresent(name -> element.attribute("incremental", name));
    element.attribute("index", disk.node().index());
    element.add("driver").attribute("type", disk.node().format());
    element.add("target").attribute("file", disk.finalFile());
    return element;
  }

  XmlElement toRecord() {
    XmlElement root =
        new XmlElement("backup")
            .attribute("start", start)
            .attribute("phase", phase.name())
            .attribute("incremental", incremental.orElse(""));
    for (Disk disk : disks) {
      root.add("target")
          .attribute("disk", disk.target())
          .attribute("job", disk.jobId())
          .attribute("final", disk.finalFile())
          .attribute("ours", disk.ours() ? "yes" : "no")
          .attribute("incremental", disk.incremental().orElse(""))
          .attribute("total", disk.total())
          .add(Layer.toXml(disk.node()));
    }
    notSelected.forEach(target -> root.add("left").attribute("disk", target));
    return root;
  }

  static BackupJob ofRecord(XmlElement root) {
    List<Disk> disks = new ArrayList<>();
    for (XmlElement target : root.children("target")) {
      Disk disk =
          new Disk(
              target.attribute("disk"),
              target.attribute("job"),
              Layer.allOf(target).getFirst(),
              target.attribute("final"),
              target.attribute("ours").equals("yes"),
              Optional.of(target.attribute("incremental")).filter(name -> !name.isEmpty()));
      long total = Long.parseLong(target.attribute("total"));
      disk.progress(total, total);
      disks.add(disk);
    }
    BackupJob job =
        new BackupJob(
            Instant.parse(root.attribute("start")),
            Optional.of(root.attribute("incremental")).filter(name -> !name.isEmpty()),
            disks,
            root.children("left").stream().map(left -> left.attribute("disk")).toList());
    job.phase(Phase.valueOf(root.attribute("phase")));
    return job;
  }
}
