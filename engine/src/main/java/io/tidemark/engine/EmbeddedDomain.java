// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.Drive;
import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.StreamSpec;
import io.tidemark.domain.spi.ThrottleSpec;
import io.tidemark.domain.spi.TransactionAction;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.job.JobStatus;
import io.tidemark.job.ViewJob;
import io.tidemark.nbd.ExportServer;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// A domain of the embedded engine: its open images, its drives, its jobs, and the NBD server that
/// is its guest's way in.
///
/// One lock, this object's monitor, guards all of it. No thread of a job, of the server or of the
/// listener takes it, so that whoever holds it may wait for any of them.
///
/// Order of a start: images are opened and locked; bitmaps are read; the socket listens, guests are
/// held; bitmaps are marked in use on disk; guests go on. So a start that fails has changed nothing
/// that it cannot put back.
///
/// Order of an end: clients of a pull backup are disconnected; jobs are cancelled; the socket
/// closes, what the guest has in flight ends; the drives are drained for good; data is flushed;
/// bitmaps are written and lose the in-use mark; images are closed. A crash between leaves bitmaps
/// in use.
final class EmbeddedDomain implements RunningDomain {
  private static final Logger LOG = System.getLogger(EmbeddedDomain.class.getName());

  /// How long an end waits for guest requests that are in flight.
  static final Duration GUEST_END_LIMIT = Duration.ofSeconds(5);

  /// The same when the guest is suspended: for the last answers only.
  static final Duration SUSPENDED_END_LIMIT = Duration.ofMillis(200);

  /// How long an end waits for cancelled jobs; the image of one that takes longer is closed when it
  /// has ended.
  static final Duration JOB_END_LIMIT = Duration.ofSeconds(30);

  private final EngineConfig config;
  private final String name;
  private final NodeGraph graph;
  private final Map<String, GuestDrive> drives = new LinkedHashMap<>();
  private final ExportServer server = new ExportServer();
  private final Notices notices;
  private final JobTable jobs;
  private final DriverListener listener;
  private final Throttles throttles = new Throttles();
  private final List<Drive.Drained> suspended = new ArrayList<>();
  // Absent while nobody pulls a backup.
  private Optional<ViewServer> views = Optional.empty();
  private boolean suspendedNow;
  private boolean stopped;

  private EmbeddedDomain(EngineConfig config, String name, DriverListener listener) {
    this.config = config;
    this.name = name;
    this.graph = new NodeGraph(config.logDir(), config.markDir());
    this.listener = listener;
    this.notices = new Notices(name);
    this.jobs = new JobTable(notices, listener);
  }

  /// Opens, and serves. On failure everything is closed again.
  static EmbeddedDomain start(EngineConfig config, LaunchSpec spec, DriverListener listener)
      throws DriverException {
    Path socket = GuestSocket.path(config, spec.name());
    var domain = new EmbeddedDomain(config, spec.name(), listener);
    try {
      domain.open(spec, socket);
      return domain;
    } catch (DriverException | RuntimeException | Error e) {
      domain.undo(e);
      throw e;
    }
  }

  private synchronized void open(LaunchSpec spec, Path socket) throws DriverException {
    makeFolder(config.guestDir());
    makeFolder(config.logDir());
    makeFolder(config.markDir());
    for (DriveSpec disk : spec.drives()) {
      NodeGraph.Node top = graph.add(disk.top());
      drives.put(disk.target(), new GuestDrive(disk, top, this::tell));
    }
    suspend();
    for (GuestDrive drive : drives.values()) {
      drive.loadBitmaps();
      server.addExport(drive.export());
    }
    try {
      server.listen(socket);
    } catch (IOException e) {
      throw DriverErrors.of("domain " + name + ": its socket cannot be made", e);
    }
    for (GuestDrive drive : drives.values()) {
      drive.bitmaps().claim();
    }
    if (!spec.paused()) {
      resume();
    }
  }

  /// After a start that failed: no guest has written, so what is claimed can be put back as it was.
  private synchronized void undo(Throwable because) {
    stopped = true;
    notices.end();
    server.close(SUSPENDED_END_LIMIT);
    var failures = new ArrayList<DriverException>();
    for (GuestDrive drive : drives.values()) {
      attempt(failures, drive.bitmaps()::release);
    }
    closeAll(failures);
    failures.forEach(because::addSuppressed);
  }

  private static void makeFolder(Path folder) throws DriverException {
    try {
      Files.createDirectories(
          folder,
          PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    } catch (IOException e) {
      throw DriverErrors.of(folder + ": cannot be made", e);
    }
  }

  /// From a guest's thread.
  private void tell(RequestFailure failure) {
    notices.tell(() -> listener.requestFailed(failure));
  }

  private void requireRunning() throws DriverException {
    if (stopped) {
      throw DriverErrors.generic("domain " + name + " is stopped");
    }
  }

  private GuestDrive drive(String target) throws DriverException {
    requireRunning();
    return room().drive(target);
  }

  private Transaction.Room room() {
    return new Transaction.Room(config, drives, graph, jobs);
  }

  /// An image that is written and whose bitmaps nobody follows loses the trust in them by itself,
  /// at the first write.
  @Override
  public synchronized void addNode(NodeSpec spec) throws DriverException {
    requireRunning();
    NodeGraph.Node _ = graph.add(spec);
  }

  @Override
  public synchronized void removeNode(String node) throws DriverException {
    requireRunning();
    jobs.requireUnused(graph.get(node));
    graph.remove(node);
  }

  @Override
  public synchronized void transaction(List<TransactionAction> actions) throws DriverException {
    requireRunning();
    Transaction.run(room(), actions);
  }

  @Override
  public synchronized void startViewServer(ViewServerSpec spec) throws DriverException {
    requireRunning();
    if (views.isPresent()) {
      throw DriverErrors.generic("NBD server already running");
    }
    views = Optional.of(ViewServer.start(config, spec));
  }

  @Override
  public synchronized void exportView(ViewExportSpec spec) throws DriverException {
    requireRunning();
    ViewServer server = views.orElseThrow(() -> DriverErrors.generic("NBD server not running"));
    if (!(jobs.get(spec.jobId()).job() instanceof ViewJob view)) {
      throw DriverErrors.generic("job " + spec.jobId() + " keeps no view");
    }
    server.export(view, spec);
  }

  @Override
  public synchronized void stopViewServer() {
    views.ifPresent(ViewServer::stop);
    views = Optional.empty();
  }

  @Override
  public synchronized void startMirror(MirrorSpec spec) throws DriverException {
    requireRunning();
    blockJobs().startMirror(spec);
  }

  @Override
  public synchronized void startStream(StreamSpec spec) throws DriverException {
    requireRunning();
    blockJobs().startStream(spec);
  }

  @Override
  public synchronized void startCommit(CommitSpec spec) throws DriverException {
    requireRunning();
    blockJobs().startCommit(spec);
  }

  private BlockJobs blockJobs() {
    return new BlockJobs(room());
  }

  /// A member of a chain is open for reading: it is open for writing meanwhile.
  @Override
  public synchronized void changeBackingFile(String node, Optional<ImageService.Backing> backing)
      throws DriverException {
    requireRunning();
    NodeGraph.Node image = graph.get(node);
    boolean readOnly = image.format().readOnly();
    try {
      if (readOnly) {
        image.format().reopen(false);
      }
      try {
        image
            .format()
            .changeBacking(backing.map(to -> new BackingReference(to.name(), to.format())));
      } finally {
        if (readOnly) {
          image.format().reopen(true);
        }
      }
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  @Override
  public synchronized void completeJob(String id) throws DriverException {
    requireRunning();
    JobTable.verb(jobs.get(id).job()::complete);
  }

  @Override
  public synchronized void finalizeJob(String id) throws DriverException {
    requireRunning();
    JobTable.Entry entry = jobs.get(id);
    boolean takesEffect = entry.job().status() == JobStatus.PENDING;
    if (takesEffect) {
      entry.effect().before();
    }
    boolean done = false;
    try {
      JobTable.verb(entry.job()::finalizeJob);
      done = true;
    } finally {
      if (takesEffect && !done) {
        entry.effect().undone();
      }
    }
    if (takesEffect) {
      entry.effect().after();
    }
  }

  @Override
  public synchronized void cancelJob(String id) throws DriverException {
    requireRunning();
    JobTable.verb(jobs.get(id).job()::cancel);
  }

  @Override
  public synchronized void dismissJob(String id) throws DriverException {
    requireRunning();
    jobs.dismiss(id);
  }

  @Override
  public synchronized void setJobSpeed(String id, long bandwidthBytesPerSecond)
      throws DriverException {
    requireRunning();
    if (bandwidthBytesPerSecond < 0) {
      throw DriverErrors.generic("job " + id + ": bandwidth " + bandwidthBytesPerSecond);
    }
    JobTable.Entry entry = jobs.get(id);
    JobTable.verb(() -> entry.job().setSpeed(bandwidthBytesPerSecond));
  }

  /// The bitmaps are claimed before the guest finds the disk, as when a domain starts.
  @Override
  public synchronized void addDrive(DriveSpec spec) throws DriverException {
    requireRunning();
    if (drives.containsKey(spec.target())) {
      throw DriverErrors.generic("drive " + spec.target() + " is there already");
    }
    NodeGraph.Node top = graph.add(spec.top());
    var drive = new GuestDrive(spec, top, this::tell);
    Drive.Drained held = drive.drive().drain();
    try {
      drive.loadBitmaps();
      drive.bitmaps().claim();
    } catch (DriverException e) {
      attempt(e, drive.bitmaps()::release);
      top.release();
      attempt(e, () -> graph.remove(top.name()));
      held.close();
      throw e;
    }
    drives.put(spec.target(), drive);
    server.addExport(drive.export());
    if (suspendedNow) {
      suspended.add(held);
    } else {
      held.close();
    }
  }

  /// What the guest sent is done first, unless it is suspended: then it fails, as what is held
  /// fails in any case.
  @Override
  public synchronized void removeDrive(String target) throws DriverException {
    GuestDrive drive = drive(target);
    jobs.requireIdle(drive);
    var failures = new ArrayList<DriverException>();
    drive.drive().throttle(Optional.empty());
    drives.remove(target);
    NodeGraph.Node top = drive.top();
    drive.endRetries();
    if (suspendedNow) {
      drive.retire(); // drained already, and held requests would wait for a resume
    }
    if (!server.removeExport(target)) {
      LOG.log(Level.WARNING, "drive {0}: its guest does not let go", target);
    }
    Drive.Drained held = drive.drive().drain();
    attempt(failures, drive::flush);
    attempt(failures, drive.bitmaps()::store);
    drive.retire();
    top.release();
    attempt(failures, () -> graph.remove(top.name()));
    held.close();
    if (!failures.isEmpty()) {
      DriverException first = failures.removeFirst();
      failures.forEach(first::addSuppressed);
      throw first;
    }
  }

  @Override
  public synchronized void setThrottle(String target, Optional<ThrottleSpec> limits)
      throws DriverException {
    throttles.set(drive(target), limits);
  }

  @Override
  public synchronized void setWriteThreshold(String target, long bytes) throws DriverException {
    drive(target)
        .watch(
            bytes,
            (threshold, excess) ->
                notices.tell(() -> listener.writeThresholdPassed(target, threshold, excess)));
  }

  @Override
  public synchronized List<JobState> jobs() {
    return jobs.states();
  }

  @Override
  public synchronized List<BitmapState> bitmaps(String target) throws DriverException {
    return drive(target).bitmaps().states();
  }

  @Override
  public synchronized DriveStatistics statistics(String target) throws DriverException {
    return drive(target).statistics();
  }

  @Override
  public synchronized Optional<Trouble> trouble(String target) throws DriverException {
    return drive(target).trouble();
  }

  @Override
  public synchronized ImageSizes sizes(String target) throws DriverException {
    return drive(target).sizes();
  }

  @Override
  public synchronized void resize(String target, long bytes) throws DriverException {
    GuestDrive drive = drive(target);
    jobs.requireIdle(drive);
    drive.resize(bytes);
  }

  @Override
  public synchronized long virtualSize(String node) throws DriverException {
    requireRunning();
    return graph.get(node).format().virtualSize();
  }

  /// Suspending twice is harmless.
  @Override
  public synchronized void suspend() throws DriverException {
    requireRunning();
    if (!suspendedNow) {
      suspendedNow = true;
      drives.values().forEach(drive -> suspended.add(drive.drive().drain()));
    }
  }

  @Override
  public synchronized void resume() throws DriverException {
    requireRunning();
    suspendedNow = false;
    suspended.forEach(Drive.Drained::close);
    suspended.clear();
    drives.values().forEach(GuestDrive::retry);
  }

  @Override
  public void stop() throws DriverException {
    end();
  }

  /// The same as a stop: NBD knows no goodbye, and a guest that finds its connection closed
  /// reconnects if it was told to.
  @Override
  public void detach() throws DriverException {
    end();
  }

  private synchronized void end() throws DriverException {
    if (stopped) {
      return;
    }
    stopped = true;
    notices.end();
    var failures = new ArrayList<DriverException>();
    views.ifPresent(ViewServer::end);
    views = Optional.empty();
    List<JobTable.Entry> stuck = jobs.cancelAll(JOB_END_LIMIT);
    // A suspended guest's requests are held and were never begun: no use in waiting for them.
    drives.values().forEach(drive -> drive.drive().throttle(Optional.empty()));
    boolean waits =
        !suspended.isEmpty()
            || drives.values().stream().anyMatch(drive -> drive.trouble().isPresent());
    server.close(waits ? SUSPENDED_END_LIMIT : GUEST_END_LIMIT);
    var held = new ArrayList<Drive.Drained>();
    drives.values().forEach(drive -> held.add(drive.drive().drain()));
    for (GuestDrive drive : drives.values()) {
      attempt(failures, drive::flush);
      attempt(failures, drive.bitmaps()::store);
    }
    for (JobTable.Entry entry : stuck) {
      failures.add(
          DriverErrors.generic(
              "job "
                  + entry.job().id()
                  + ": not ended after "
                  + JOB_END_LIMIT.toSeconds()
                  + " s, its image is closed when it has"));
      graph.abandon(entry.node());
      closeWhenOver(entry);
    }
    closeAll(failures);
    held.forEach(Drive.Drained::close);
    if (!failures.isEmpty()) {
      DriverException first = failures.removeFirst();
      failures.forEach(first::addSuppressed);
      throw first;
    }
  }

  private static void closeWhenOver(JobTable.Entry entry) {
    Thread.ofVirtual()
        .name("end-" + entry.job().id())
        .start(() -> {
          while (!entry.job().await(JobStatus::over, JOB_END_LIMIT)) {
            LOG.log(Level.WARNING, "job {0}: still not ended", entry.job().id());
          }
          try {
            entry.node().close();
          } catch (BlockException e) {
            LOG.log(Level.WARNING, "job {0}: {1}", entry.job().id(), e.getMessage());
          }
        });
  }

  /// Requests that a suspended drive holds fail when it is closed; nobody hears of it, their
  /// connections are gone.
  private void closeAll(List<DriverException> failures) {
    graph.detachAll();
    for (GuestDrive drive : drives.values()) {
      attempt(failures, drive::close);
    }
    failures.addAll(graph.closeAll());
    suspended.forEach(Drive.Drained::close);
    suspended.clear();
  }

  @FunctionalInterface
  private interface Step {
    void run() throws DriverException;
  }

  private static void attempt(List<DriverException> failures, Step step) {
    try {
      step.run();
    } catch (DriverException e) {
      failures.add(e);
    }
  }

  private static void attempt(Exception because, Step step) {
    try {
      step.run();
    } catch (DriverException e) {
      because.addSuppressed(e);
    }
  }
}
