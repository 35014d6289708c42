// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.RpcException;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/// The main job, once: a disk is copied live and pivoted, backed up in full and twice by increment,
/// and served for clients that pull a backup, while a guest writes; then every copy is held against
/// what the guest noted.
///
/// What "held" means: the guest does one operation at a time and notes each before it sends it. So
/// a copy taken while it writes must equal the state after some operation N, bit for bit; and N
/// must lie between what was acknowledged before the copy was asked for and what was noted when the
/// call came back.
final class Demo implements AutoCloseable {
  private static final String DOMAIN = "demo";
  private static final int CHUNK = 1024 * 1024;
  private static final long SEEDED_BYTES = 128L * 1024 * 1024;
  private static final Duration BETWEEN_BACKUPS = Duration.ofMillis(1500);
  private static final Duration LONGEST_JOB = Duration.ofMinutes(2);
  private static final long TICK_MILLIS = 100;

  /// A backup: its file, and between which operations of the guest its moment must lie.
  private record Backup(String name, Path file, long notBefore, long notAfter) {}

  private final Path folder;
  private final long size;
  private final long seed;
  private final DemoScreen screen;
  private final Path run;
  private final List<Backup> backups = new ArrayList<>();
  private final List<Backup> pulled = new ArrayList<>();

  /// In order of start; also closed by [#abandon], from another thread.
  private final List<DemoProcess> started = new CopyOnWriteArrayList<>();

  private boolean held = true;

  // Each set when its step has begun; closed with the demo.
  private @Nullable DemoProcess guest;
  private @Nullable DemoDomain domain;
  private @Nullable GuestProof proof;

  Demo(Path folder, long size, long seed, DemoScreen screen) {
    this.folder = folder;
    this.size = size;
    this.seed = seed;
    this.screen = screen;
    this.run = folder.resolve("run");
  }

  /// Runs all of it.
  ///
  /// @return whether every copy was what it had to be
  boolean run() throws IOException, CommandException {
    try {
      long start = System.nanoTime();
      GuestProof notes = makeDisk();
      DemoDomain running = startDomain();
      startGuest();
      Path copy = copyAndPivot(running, notes);
      backUp(running, notes, "full", Optional.empty());
      pauseBetweenBackups(notes);
      backUp(running, notes, "increment-1", Optional.of("full"));
      pauseBetweenBackups(notes);
      backUp(running, notes, "increment-2", Optional.of("increment-1"));
      pauseBetweenBackups(notes);
      pull(running, notes);
      endGuest(running, notes, copy);
      restoreAll(notes);
      judgePulled(notes);
      screen.line(
          String.format(
              Locale.ROOT,
              "%s: %,d guest operations, none failed, in %.1f s",
              held ? "All of it held" : "NOT ALL OF IT HELD",
              notes.acknowledged(),
              (System.nanoTime() - start) / 1e9));
      return held;
    } catch (RpcException refusal) {
      throw new CommandException("the daemon refused: " + refusal.getMessage());
    }
  }

  // A raw base with content, and over it the qcow2 disk that the guest starts on.
  private GuestProof makeDisk() throws IOException {
    long seeded = Math.min(SEEDED_BYTES, size / 4);
    Path base = folder.resolve("base.raw");
    try (var file = FileNode.create(base)) {
      file.resize(size);
      var chunk = ByteBuffer.allocateDirect(CHUNK);
      for (long at = 0; at < seeded; at += CHUNK) {
        chunk.clear();
        while (chunk.hasRemaining()) {
          GuestPattern.put(chunk, (at + chunk.position()) / GuestPattern.BLOCK, 0);
        }
        file.write(at, chunk.flip());
      }
      file.flush();
    }
    var backing = new BackingReference(base.toString(), Optional.of("raw"));
    new ImageOpener(ImageOpener.Probing.REFUSED)
        .create(
            folder.resolve("disk.qcow2"),
            "qcow2",
            new CreateOptions(size, Optional.of(backing), Map.of()));
    screen.line(
        "disk     " + mib(size) + " qcow2 over a raw base with " + mib(seeded) + " of data");
    var notes =
        GuestProof.create(
            folder.resolve("proof"), size / GuestPattern.BLOCK, seeded / GuestPattern.BLOCK);
    proof = notes;
    return notes;
  }

  private DemoDomain startDomain() throws IOException, RpcException, CommandException {
    var process =
        DemoProcess.start(
            "daemon",
            folder.resolve("daemon.log"),
            "daemon",
            "--state-dir",
            folder.resolve("state").toString(),
            "--run-dir",
            run.toString());
    started.add(process);
    process.awaitReady();
    Path socket = run.resolve("libvirt-sock");
    screen.line("daemon   virsh -c 'qemu+unix:///system?socket=" + socket + "'");
    var running = DemoDomain.create(socket, domainXml());
    domain = running;
    screen.line("domain   " + DOMAIN + " runs, its disk is served at " + guestUri());
    return running;
  }

  private String guestUri() {
    return "nbd+unix:///vda?socket=" + run.resolve("guest").resolve(DOMAIN + ".sock");
  }

  private void startGuest() throws IOException, CommandException {
    var process =
        DemoProcess.start(
            "guest",
            folder.resolve("guest.log"),
            "demo-guest",
            guestUri(),
            folder.resolve("proof").toString(),
            Long.toString(seed));
    started.add(process);
    guest = process;
    screen.line("guest    writes, zeroes, discards and flushes without pause");
  }

  private Path copyAndPivot(DemoDomain running, GuestProof notes)
      throws IOException, RpcException, CommandException {
    Path copy = folder.resolve("copy.qcow2");
    awaitGuest(notes, 1000);
    screen.line("copy     blockcopy to " + copy.getFileName() + ", live");
    long start = System.nanoTime();
    running.blockCopy(
        "<disk type='file'><source file='" + escaped(copy) + "'/><driver type='qcow2'/></disk>");
    var pace = new Pace(notes);
    await(
        running,
        DemoDomain.Outcome.READY,
        () -> {
          Replies.BlockJobInfo info = running.blockJob();
          pace.show("copy", info.cur(), info.end());
        });
    long readyAt = System.nanoTime();
    running.pivot();
    await(running, DemoDomain.Outcome.DONE, () -> {});
    long atPivot = notes.acknowledged();
    check(running.xml().contains("<source file='" + escaped(copy) + "'"), "the disk is " + copy);
    awaitGuest(notes, 100);
    screen.line(
        String.format(
            Locale.ROOT,
            "         READY after %.1f s, pivot in %.0f ms at operation %,d, the guest goes on",
            (readyAt - start) / 1e9,
            (System.nanoTime() - readyAt) / 1e6,
            atPivot));
    return copy;
  }

  private void backUp(DemoDomain running, GuestProof notes, String name, Optional<String> since)
      throws IOException, RpcException, CommandException {
    Path file = folder.resolve(name + ".qcow2");
    screen.line(
        "backup   "
            + name
            + since.map(from -> ", what changed since " + from).orElse("")
            + ", with a checkpoint");
    long start = System.nanoTime();
    long notBefore = notes.acknowledged();
    running.backup(
        backupXml(file, since), "<domaincheckpoint><name>" + name + "</name></domaincheckpoint>");
    backups.add(new Backup(name, file, notBefore, notes.noted()));
    var pace = new Pace(notes);
    await(
        running,
        DemoDomain.Outcome.DONE,
        () -> {
          DemoDomain.Progress progress = running.backupProgress();
          pace.show("backup", progress.done(), progress.total());
        });
    try (var node =
        new ImageOpener(ImageOpener.Probing.REFUSED)
            .openLayer(file, "qcow2", OpenOptions.reading())) {
      screen.line(
          String.format(
              Locale.ROOT,
              "         %s in %.1f s",
              mib(node.allocatedBytes()),
              (System.nanoTime() - start) / 1e9));
    }
  }

  // Served as it was at one instant, and read by clients while the guest overwrites it.
  private void pull(DemoDomain running, GuestProof notes)
      throws IOException, RpcException, CommandException {
    Path socket = run.resolve("pull.sock");
    screen.line("pull     a backup that clients read, at nbd+unix:///vda?socket=" + socket);
    long start = System.nanoTime();
    long notBefore = notes.acknowledged();
    running.backup(
        """
        <domainbackup mode='pull'>
          <server transport='unix' socket='%s'/>
          <disks><disk name='vda'><scratch file='%s'/></disk></disks>
        </domainbackup>
        """
            .formatted(escaped(socket), escaped(folder.resolve("scratch"))),
        "<domaincheckpoint><name>pulled</name></domaincheckpoint>");
    long notAfter = notes.noted();
    awaitGuest(notes, 1000);
    var readers = new DemoPull(socket, DemoDomain.DISK);
    Path own = folder.resolve("pulled.raw");
    readers.read(own);
    pulled.add(new Backup("pulled by Tidemark", own, notBefore, notAfter));
    Path other = folder.resolve("pulled-nbdcopy.raw");
    if (readers.readByNbdcopy(other, folder.resolve("nbdcopy.log"))) {
      pulled.add(new Backup("pulled by nbdcopy", other, notBefore, notAfter));
    }
    running.abortJob();
    await(running, DemoDomain.Outcome.DONE, () -> {});
    screen.line(
        String.format(
            Locale.ROOT,
            "         read by %d client%s in %.1f s",
            pulled.size(),
            pulled.size() == 1 ? "" : "s",
            (System.nanoTime() - start) / 1e9));
  }

  private void judgePulled(GuestProof notes) throws IOException {
    for (Backup copy : pulled) {
      try (var file = FileNode.open(copy.file(), OpenOptions.reading())) {
        judge(copy.name(), file, notes, copy.notBefore(), copy.notAfter());
      }
    }
  }

  private void endGuest(DemoDomain running, GuestProof notes, Path disk)
      throws IOException, RpcException, CommandException {
    DemoProcess writer = guest;
    check(writer != null && writer.alive() && writer.finish(), "the guest met no error");
    running.destroy();
    try (var node =
        new ImageOpener(ImageOpener.Probing.REFUSED).open(disk, "qcow2", OpenOptions.reading())) {
      judge("disk after pivot", node, notes, notes.acknowledged(), notes.acknowledged());
    }
  }

  // Each moment by its chain: the increments' recorded backing file is the guest's disk, as libvirt
  // writes it, so the
  // chain is put together here: full, then one increment after the other.
  private void restoreAll(GuestProof notes) throws IOException {
    for (int last = 0; last < backups.size(); last++) {
      Backup backup = backups.get(last);
      Path restored = folder.resolve("restored-" + backup.name() + ".raw");
      try (FormatNode chain = chain(last);
          var target = FileNode.create(restored)) {
        target.resize(size);
        var plan = new Conversion.Plan(Conversion.Target.ZERO, GuestPattern.BLOCK, 0);
        var unseen = new Progress(new PrintWriter(Writer.nullWriter()), false, 100);
        new Conversion(new SourceDisk(List.of(chain)), target, plan, unseen).run();
        judge("restored " + backup.name(), target, notes, backup.notBefore(), backup.notAfter());
      }
    }
  }

  private FormatNode chain(int last) throws IOException {
    FormatNode top =
        new ImageOpener(ImageOpener.Probing.REFUSED)
            .openLayer(backups.get(last).file(), "qcow2", OpenOptions.reading());
    try {
      if (last > 0) {
        top.attachBacking(chain(last - 1));
      }
      return top;
    } catch (IOException e) {
      top.close();
      throw e;
    }
  }

  private void judge(String what, BlockNode copy, GuestProof notes, long notBefore, long notAfter)
      throws IOException {
    GuestVerdict verdict = GuestVerdict.of(copy, notes);
    boolean good = verdict.holds(notBefore, notAfter);
    held &= good;
    screen.line(
        String.format(
            Locale.ROOT,
            "%s %-22s is the disk after operation %,d (allowed: %,d to %,d), %,d of %,d blocks differ%s",
            good ? "held    " : "FAILED  ",
            what,
            verdict.operation(),
            notBefore,
            notAfter,
            verdict.differingBlocks(),
            notes.diskBlocks(),
            verdict.firstDifference() < 0 ? "" : ", first at byte " + verdict.firstDifference()));
  }

  private void check(boolean good, String what) throws IOException {
    held &= good;
    if (!good) {
      screen.line("FAILED   " + what);
    }
  }

  /// A call that may be refused.
  @FunctionalInterface
  private interface Look {
    void run() throws IOException, RpcException, CommandException;
  }

  // Waits for an outcome of the running job, looking at it now and then.
  private static void await(DemoDomain running, DemoDomain.Outcome wanted, Look look)
      throws IOException, RpcException, CommandException {
    long end = System.nanoTime() + LONGEST_JOB.toNanos();
    while (System.nanoTime() < end) {
      DemoDomain.Outcome outcome = running.await(TICK_MILLIS);
      if (outcome == wanted) {
        return;
      }
      if (outcome == DemoDomain.Outcome.FAILED) {
        throw new CommandException("the job failed; see the daemon's log");
      }
      look.run();
    }
    throw new CommandException("the job did not end within " + LONGEST_JOB.toSeconds() + " s");
  }

  private void pauseBetweenBackups(GuestProof notes) throws IOException, CommandException {
    var pace = new Pace(notes);
    long start = System.nanoTime();
    for (long passed = 0; passed < BETWEEN_BACKUPS.toNanos(); passed = System.nanoTime() - start) {
      awaitGuest(notes, 100);
      pace.show("writes", passed, BETWEEN_BACKUPS.toNanos());
    }
  }

  private void awaitGuest(GuestProof notes, long operations) throws IOException, CommandException {
    long wanted = notes.acknowledged() + operations;
    long end = System.nanoTime() + LONGEST_JOB.toNanos();
    while (notes.acknowledged() < wanted) {
      DemoProcess writer = guest;
      if (writer == null || !writer.alive() || System.nanoTime() > end) {
        throw new CommandException(
            "the guest stopped writing at operation "
                + notes.acknowledged()
                + ": "
                + (writer == null ? "" : writer.log()));
      }
      LockSupport.parkNanos(1_000_000);
    }
  }

  /// Rates between one look and the next.
  private final class Pace {
    private final GuestProof notes;
    private long lastTime = System.nanoTime();
    private long lastOperation;
    private long lastDone;

    Pace(GuestProof notes) {
      this.notes = notes;
      this.lastOperation = notes.acknowledged();
    }

    void show(String what, long done, long total) {
      long now = System.nanoTime();
      double seconds = (now - lastTime) / 1e9;
      if (seconds < TICK_MILLIS / 2000.0) {
        return;
      }
      long operation = notes.acknowledged();
      screen.progress(
          what,
          total > 0 ? Math.min(1, (double) done / total) : 0,
          what.equals("writes") ? 0 : Math.max(0, done - lastDone) / seconds,
          (operation - lastOperation) / seconds);
      lastTime = now;
      lastOperation = operation;
      lastDone = done;
    }
  }

  private String domainXml() {
    return """
    <domain type='tidemark'>
      <name>%s</name>
      <memory unit='MiB'>64</memory>
      <os><type>hvm</type></os>
      <devices>
        <disk type='file' device='disk'>
          <driver type='qcow2'/>
          <source file='%s'/>
          <target dev='vda' bus='virtio'/>
        </disk>
      </devices>
    </domain>
    """
        .formatted(DOMAIN, escaped(folder.resolve("disk.qcow2")));
  }

  private static String backupXml(Path file, Optional<String> since) {
    return """
    <domainbackup>
      %s
      <disks>
        <disk name='vda' type='file'>
          <driver type='qcow2'/>
          <target file='%s'/>
        </disk>
      </disks>
    </domainbackup>
    """
        .formatted(
            since.map(name -> "<incremental>" + name + "</incremental>").orElse(""), escaped(file));
  }

  /// A path as the value of an attribute in single quotes.
  private static String escaped(Path path) {
    return path.toString().replace("&", "&amp;").replace("<", "&lt;").replace("'", "&apos;");
  }

  private static String mib(long bytes) {
    return String.format(Locale.ROOT, "%,d MiB", bytes / (1024 * 1024));
  }

  /// Ends the processes, the guest before the daemon: for a demo that is broken off, and at its
  /// end.
  void abandon() {
    started.reversed().forEach(DemoProcess::close);
  }

  @Override
  public void close() throws IOException {
    if (domain != null) {
      domain.close();
    }
    abandon();
    if (proof != null) {
      proof.close();
    }
  }
}
