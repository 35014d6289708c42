// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.Storage;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A backup of a running domain: push, which writes targets, or pull, which serves frozen views
/// over scratch images. Guarded by the domain's lock.
final class BackupJob {
  /// Where its files stand.
  enum Phase {
    /// Targets are incomplete.
    RUNNING,
    /// All targets are complete, flushed and closed; what is left is to give them their names. A
    /// restart goes on from here.
    PUBLISHING
  }

  /// How an image comes to be.
  ///
  /// @param ours the file is made by this backup, so is published or removed at the end
  /// @param formatted a device that the image is made on
  /// @param temporary a random name that a scratch has until it is known which file it is: the name
  ///   that the client gave may be another file's after a crash
  record Making(boolean ours, boolean formatted, Optional<Path> temporary) {}

  /// What clients of a pull backup ask for.
  ///
  /// @param bitmap absent: none is offered
  record Offer(String name, Optional<String> bitmap) {}

  /// One disk of it.
  static final class Disk {
    private final String target;
    private final String jobId;
    private final Layer node;
    private final String finalFile;
    private final Making making;
    private final Optional<String> incremental;
    private final Offer offer;
    // Null while its job runs.
    private @Nullable BlockJobStatus outcome;
    private boolean there;
    private String identity = "";
    private boolean published;
    private boolean told;
    private long current;
    private long total;

    /// @param node what the job writes: a partial file, the client's own with REUSE_EXTERNAL, a
    ///   device, or the scratch of a pull backup
    /// @param incremental checkpoint it counts from; empty: full
    Disk(
        String target,
        String jobId,
        Layer node,
        String finalFile,
        Making making,
        Optional<String> incremental,
        Offer offer) {
      this.target = target;
      this.jobId = jobId;
      this.node = node;
      this.finalFile = finalFile;
      this.making = making;
      this.incremental = incremental;
      this.offer = offer;
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
      return making.ours();
    }

    /// Whether an image is to be made.
    boolean made() {
      return making.ours() || making.formatted();
    }

    boolean onDevice() {
      return node.storage() instanceof Storage.Device;
    }

    Offer offer() {
      return offer;
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

    /// The image that [#made] asks for was made, or may have been.
    void markThere() {
      there = true;
    }

    /// Absent for what is made under its own name.
    Optional<Path> temporary() {
      return making.temporary();
    }

    /// What tells the scratch from other files of its name; empty until it is known.
    String identity() {
      return identity;
    }

    void identity(String found) {
      identity = found;
    }

    /// Whether there may be a file that is this backup's to remove.
    boolean removable() {
      return there && ours();
    }

    /// Whether clients heard of its end.
    boolean told() {
      return told;
    }

    /// True the first time.
    boolean tellNow() {
      boolean first = !told;
      told = true;
      return first;
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
  private final Optional<BackupServer> server;
  private final Optional<String> incremental;
  private final List<Disk> disks;
  private final List<String> order;
  private Phase phase = Phase.RUNNING;
  private boolean started;
  private boolean abortAsked;
  private boolean unannounced;
  private boolean othersCancelled;
  // Null until something fails.
  private @Nullable String failure;

  /// @param server of a pull backup; absent: push
  /// @param order all disks of the domain, in the order in which they are shown
  BackupJob(
      Instant start,
      Optional<BackupServer> server,
      Optional<String> incremental,
      List<Disk> disks,
      List<String> order) {
    this.start = start;
    this.server = server;
    this.incremental = incremental;
    this.disks = List.copyOf(disks);
    this.order = List.copyOf(order);
  }

  Instant start() {
    return start;
  }

  List<Disk> disks() {
    return disks;
  }

  Optional<BackupServer> server() {
    return server;
  }

  boolean pull() {
    return server.isPresent();
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

  /// Its begin failed when its jobs ran already: clients hear of the disks, not of a backup.
  void withdraw() {
    unannounced = true;
  }

  boolean withdrawn() {
    return unannounced;
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

  /// Whether it ended as it should: a push when all is copied, a pull when its client ends it.
  boolean succeeded() {
    BlockJobStatus good = pull() ? BlockJobStatus.CANCELED : BlockJobStatus.COMPLETED;
    return failure == null && disks.stream().allMatch(disk -> disk.outcome() == good);
  }

  /// `<domainbackup>` as virDomainBackupGetXMLDesc shows it.
  String xmlDesc() {
    XmlElement root = new XmlElement("domainbackup").attribute("mode", pull() ? "pull" : "push");
    incremental.ifPresent(name -> root.add("incremental", name));
    server.ifPresent(where -> root.add(where.toXml()));
    XmlElement list = root.add("disks");
    for (String target : order) {
      Optional<Disk> found = disk(target);
      if (found.isPresent()) {
        list.add(shown(found.get()));
      } else {
        list.add("disk").attribute("name", target).attribute("backup", "no");
      }
    }
    return Xml.write(root);
  }

  private XmlElement shown(Disk disk) {
    XmlElement element =
        new XmlElement("disk")
            .attribute("name", disk.target())
            .attribute("backup", "yes")
            .attribute("type", disk.onDevice() ? "block" : "file")
            .attribute("backupmode", disk.incremental().isPresent() ? "incremental" : "full");
    disk.incremental().ifPresent(name -> element.attribute("incremental", name));
    if (pull()) {
      element.attribute("exportname", disk.offer().name());
      disk.offer().bitmap().ifPresent(name -> element.attribute("exportbitmap", name));
    }
    element.attribute("index", disk.node().index());
    element.add("driver").attribute("type", disk.node().format());
    element
        .add(pull() ? "scratch" : "target")
        .attribute(disk.onDevice() ? "dev" : "file", disk.finalFile());
    return element;
  }

  XmlElement toRecord() {
    XmlElement root =
        new XmlElement("backup")
            .attribute("start", start)
            .attribute("phase", phase.name())
            .attribute("incremental", incremental.orElse(""));
    server.ifPresent(where -> root.add(where.toXml()));
    for (Disk disk : disks) {
      root.add("target")
          .attribute("disk", disk.target())
          .attribute("job", disk.jobId())
          .attribute("final", disk.finalFile())
          .attribute("ours", disk.ours() ? "yes" : "no")
          .attribute("formatted", disk.making.formatted() ? "yes" : "no")
          .attribute("temporary", disk.temporary().map(Path::toString).orElse(""))
          .attribute("identity", disk.identity())
          .attribute("export", disk.offer().name())
          .attribute("exportBitmap", disk.offer().bitmap().orElse(""))
          .attribute("incremental", disk.incremental().orElse(""))
          .attribute("total", disk.total())
          .add(Layer.toXml(disk.node()));
    }
    return root;
  }

  /// @throws IllegalArgumentException when it cannot be understood
  static BackupJob ofRecord(XmlElement root) {
    Optional<XmlElement> served = root.child("server");
    Optional<BackupServer> server;
    try {
      server = served.isPresent() ? Optional.of(BackupServer.of(served.get())) : Optional.empty();
    } catch (LibvirtException e) {
      throw new IllegalArgumentException("server of the backup: " + e.getMessage(), e);
    }
    List<Disk> disks = new ArrayList<>();
    for (XmlElement target : root.children("target")) {
      Disk disk =
          new Disk(
              target.attribute("disk"),
              target.attribute("job"),
              Layer.allOf(target).getFirst(),
              target.attribute("final"),
              new Making(
                  target.attribute("ours").equals("yes"),
                  target.attribute("formatted").equals("yes"),
                  Optional.of(target.attribute("temporary"))
                      .filter(name -> !name.isEmpty())
                      .map(Path::of)),
              Optional.of(target.attribute("incremental")).filter(name -> !name.isEmpty()),
              new Offer(
                  target.attribute("export"),
                  Optional.of(target.attribute("exportBitmap")).filter(name -> !name.isEmpty())));
      long total = Long.parseLong(target.attribute("total"));
      disk.progress(total, total);
      disk.identity(target.attribute("identity"));
      disk.markThere();
      disks.add(disk);
    }
    BackupJob job =
        new BackupJob(
            Instant.parse(root.attribute("start")),
            server,
            Optional.of(root.attribute("incremental")).filter(name -> !name.isEmpty()),
            disks,
            disks.stream().map(Disk::target).toList());
    job.phase(Phase.valueOf(root.attribute("phase")));
    return job;
  }
}
