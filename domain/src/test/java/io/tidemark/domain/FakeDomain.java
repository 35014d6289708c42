// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static java.util.Objects.requireNonNull;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
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
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// A running domain of [FakeDriver].
final class FakeDomain implements RunningDomain {
  final Machine.View view;
  final LaunchSpec spec;
  final DriverListener listener;
  final Map<String, NodeSpec> nodes = new TreeMap<>();
  final Map<String, NodeSpec> drives = new TreeMap<>();
  final Map<String, FakeJob> jobs = new LinkedHashMap<>();
  final List<MirrorSpec> mirrors = new ArrayList<>();
  final List<StreamSpec> streams = new ArrayList<>();
  final List<CommitSpec> commits = new ArrayList<>();
  final List<String> calls = new java.util.concurrent.CopyOnWriteArrayList<>();
  boolean stopped;
  boolean detached;
  boolean paused;
  private final Map<String, DriverException> failures = new TreeMap<>();
  boolean refuseFinalize;
  boolean holdCompletion;

  FakeDomain(Machine.View view, LaunchSpec spec, DriverListener listener) {
    this.view = view;
    this.spec = spec;
    this.listener = listener;
    paused = spec.paused();
    for (DriveSpec drive : spec.drives()) {
      drives.put(drive.target(), drive.top());
      addAll(drive.top());
    }
  }

  private void addAll(NodeSpec node) {
    nodes.put(node.name(), node);
    node.backing().ifPresent(this::addAll);
  }

  private void call(String what) throws DriverException {
    view.alive();
    synchronized (this) {
      if (stopped || detached) {
        throw new DriverException(DriverException.Kind.GENERIC, "stopped");
      }
      calls.add(what);
      for (String verb : List.copyOf(failures.keySet())) {
        if (what.startsWith(verb)) {
          throw requireNonNull(failures.remove(verb));
        }
      }
    }
  }

  /// The next call of that verb fails.
  synchronized void failOn(String verb, DriverException.Kind kind, String text) {
    failures.put(verb, new DriverException(kind, text));
  }

  /// The file that guest writes of a disk go to.
  synchronized String writesTo(String target) {
    return requireNonNull(drives.get(target)).file().toString();
  }

  synchronized FakeJob job(String id) {
    return requireNonNull(jobs.get(id));
  }

  synchronized List<String> jobIds() {
    return List.copyOf(jobs.keySet());
  }

  void move(String id, DriverJobStatus status) {
    synchronized (this) {
      job(id).status = status;
    }
    listener.jobStatusChanged(id, status);
  }

  void ready(String id) {
    synchronized (this) {
      job(id).current = job(id).total;
    }
    move(id, DriverJobStatus.READY);
  }

  void finish(String id) {
    Optional<Path> file;
    synchronized (this) {
      FakeJob job = job(id);
      job.current = job.total;
      file = job.node.map(nodes::get).map(NodeSpec::file);
    }
    file.ifPresent(view::markComplete);
    move(id, DriverJobStatus.CONCLUDED);
  }

  /// As [#finish], unless it has ended.
  void finishIfThere(String id) {
    synchronized (this) {
      FakeJob job = jobs.get(id);
      if (job == null || job.status != DriverJobStatus.RUNNING || stopped) {
        return;
      }
      finish(id);
    }
  }

  /// As [#fail], unless it is pending or has ended.
  void failIfThere(String id, DriverException.Kind kind, String text) {
    synchronized (this) {
      FakeJob job = jobs.get(id);
      if (job == null || job.status != DriverJobStatus.READY || stopped) {
        return;
      }
      fail(id, kind, text);
    }
  }

  void fail(String id, DriverException.Kind kind, String text) {
    synchronized (this) {
      job(id).error = Optional.of(new DriverException(kind, text));
    }
    move(id, DriverJobStatus.CONCLUDED);
  }

  @Override
  public void addNode(NodeSpec node) throws DriverException {
    call("addNode " + node.name());
    view.open(node.file(), node.format());
    addAll(node);
  }

  @Override
  public synchronized void removeNode(String name) throws DriverException {
    call("removeNode " + name);
    if (jobs.values().stream().anyMatch(job -> job.node.filter(name::equals).isPresent())
        || drives.values().stream().anyMatch(top -> top.name().equals(name))) {
      throw new DriverException(DriverException.Kind.GENERIC, name + " is in use");
    }
    if (nodes.remove(name) == null) {
      throw new DriverException(DriverException.Kind.NOT_FOUND, "no node " + name);
    }
  }

  final Map<String, String> throttles = new TreeMap<>();
  final Map<String, Long> thresholds = new TreeMap<>();

  @Override
  public void addDrive(DriveSpec drive) throws DriverException {
    call("addDrive " + drive.target());
    view.open(drive.top().file(), drive.top().format());
    drives.put(drive.target(), drive.top());
    addAll(drive.top());
  }

  @Override
  public void removeDrive(String target) throws DriverException {
    call("removeDrive " + target);
    NodeSpec top = drives.remove(target);
    if (top == null) {
      throw new DriverException(DriverException.Kind.NOT_FOUND, "no drive " + target);
    }
    nodes.remove(top.name());
  }

  @Override
  public void setThrottle(String target, Optional<ThrottleSpec> limits) throws DriverException {
    call("setThrottle " + target);
    throttles.put(target, limits.map(Object::toString).orElse("none"));
  }

  @Override
  public void setWriteThreshold(String target, long bytes) throws DriverException {
    call("setWriteThreshold " + target);
    thresholds.put(target, bytes);
  }

  @Override
  public void transaction(List<TransactionAction> actions) throws DriverException {
    call("transaction " + actions.size());
    for (TransactionAction action : actions) {
      Map<String, BitmapState> bitmaps = bitmapMap(action.target());
      if (action instanceof TransactionAction.AddBitmap add && bitmaps.containsKey(add.bitmap())) {
        throw new DriverException(
            DriverException.Kind.GENERIC, "Bitmap already exists: " + add.bitmap());
      }
      if (action instanceof TransactionAction.RemoveBitmap remove
          && !bitmaps.containsKey(remove.bitmap())) {
        throw new DriverException(DriverException.Kind.NOT_FOUND, "no bitmap");
      }
    }
    synchronized (this) {
      for (TransactionAction action : actions) {
        apply(action);
      }
    }
  }

  private void apply(TransactionAction action) {
    Map<String, BitmapState> bitmaps = bitmapMap(action.target());
    switch (action) {
      case TransactionAction.AddBitmap add ->
          bitmaps.put(
              add.bitmap(),
              new BitmapState(
                  add.bitmap(), add.granularityBytes(), 0, true, add.persistent(), false));
      case TransactionAction.RemoveBitmap remove -> bitmaps.remove(remove.bitmap());
      case TransactionAction.MergeBitmaps merge -> {
        long dirty =
            merge.sources().stream()
                .mapToLong(name -> requireNonNull(bitmaps.get(name)).dirtyBytes())
                .sum();
        write(merge.target(), merge.bitmap(), dirty);
      }
      case TransactionAction.Snapshot snapshot -> {
        NodeSpec overlay = requireNonNull(nodes.get(snapshot.overlayNode()));
        NodeSpec below = requireNonNull(drives.get(snapshot.target()));
        Map<String, BitmapState> kept = new TreeMap<>(bitmaps);
        bitmaps.clear();
        NodeSpec stacked =
            new NodeSpec(
                overlay.name(),
                overlay.file(),
                overlay.format(),
                overlay.readOnly(),
                Optional.of(below));
        nodes.put(stacked.name(), stacked);
        drives.put(snapshot.target(), stacked);
        bitmapMap(snapshot.target()).putAll(kept);
      }
      case TransactionAction.StartView view ->
          jobs.put(
              view.jobId(),
              new FakeJob(
                  view.jobId(), view.target(), JobState.Kind.BACKUP, view.scratchNode(), 0));
      case TransactionAction.StartBackup backup ->
          jobs.put(
              backup.jobId(),
              new FakeJob(
                  backup.jobId(),
                  backup.target(),
                  JobState.Kind.BACKUP,
                  backup.backupNode(),
                  backup.bandwidthBytesPerSecond()));
    }
  }

  /// The guest dirties bytes: all recording bitmaps, or one.
  void guestWrites(String target, long bytes) {
    bitmapMap(target).keySet().forEach(name -> write(target, name, bytes));
  }

  private void write(String target, String name, long bytes) {
    bitmapMap(target)
        .computeIfPresent(
            name,
            (key, old) ->
                new BitmapState(
                    key,
                    old.granularityBytes(),
                    old.dirtyBytes() + bytes,
                    old.recording(),
                    old.persistent(),
                    old.inconsistent()));
  }

  private Map<String, BitmapState> bitmapMap(String target) {
    return view.bitmapsOf(requireNonNull(drives.get(target)).file());
  }

  void crashBitmaps() {
    for (String target : drives.keySet()) {
      Map<String, BitmapState> bitmaps = bitmapMap(target);
      bitmaps.values().removeIf(bitmap -> !bitmap.persistent());
      bitmaps.replaceAll((name, old) -> new BitmapState(name, 65536, 0, false, true, true));
    }
  }

  /// Empty while no view server runs.
  Optional<ViewServerSpec> viewServer = Optional.empty();

  final List<ViewExportSpec> viewExports = new ArrayList<>();

  @Override
  public void startViewServer(ViewServerSpec server) throws DriverException {
    call("startViewServer");
    viewServer = Optional.of(server);
  }

  @Override
  public void exportView(ViewExportSpec export) throws DriverException {
    call("exportView " + export.name());
    viewExports.add(export);
  }

  @Override
  public void stopViewServer() {
    viewServer = Optional.empty();
    viewExports.clear();
  }

  @Override
  public void startMirror(MirrorSpec mirror) throws DriverException {
    call("startMirror " + mirror.jobId());
    synchronized (this) {
      mirrors.add(mirror);
      jobs.put(
          mirror.jobId(),
          new FakeJob(
              mirror.jobId(),
              mirror.target(),
              JobState.Kind.MIRROR,
              mirror.mirrorNode(),
              mirror.bandwidthBytesPerSecond()));
    }
  }

  @Override
  public void startStream(StreamSpec stream) throws DriverException {
    call("startStream " + stream.jobId());
    synchronized (this) {
      streams.add(stream);
      jobs.put(
          stream.jobId(),
          new FakeJob(
              stream.jobId(),
              stream.target(),
              JobState.Kind.STREAM,
              requireNonNull(drives.get(stream.target())).name(),
              stream.bandwidthBytesPerSecond()));
    }
  }

  @Override
  public void startCommit(CommitSpec commit) throws DriverException {
    call("startCommit " + commit.jobId());
    synchronized (this) {
      commits.add(commit);
      jobs.put(
          commit.jobId(),
          new FakeJob(
              commit.jobId(),
              commit.target(),
              JobState.Kind.COMMIT,
              commit.baseNode(),
              commit.bandwidthBytesPerSecond()));
    }
  }

  @Override
  public void changeBackingFile(String node, Optional<ImageService.Backing> backing)
      throws DriverException {
    call("changeBackingFile " + node + backing.map(to -> " " + to.name()).orElse(""));
    view.rebase(requireNonNull(nodes.get(node)).file(), backing);
  }

  /// What a driver does in finalizing besides re-pointing: the image's header.
  private void changeHeader(FakeJob job) {
    for (StreamSpec stream : streams) {
      if (stream.jobId().equals(job.id)) {
        NodeSpec top = requireNonNull(drives.get(stream.target()));
        view.rebase(top.file(), backing(stream.baseNode(), stream.backingName()));
      }
    }
    for (CommitSpec commit : commits) {
      if (commit.jobId().equals(job.id)) {
        NodeSpec overlay =
            nodes.values().stream()
                .filter(node ->
                    node.backing().filter(b -> b.name().equals(commit.topNode())).isPresent())
                .findFirst()
                .orElseThrow();
        view.rebase(overlay.file(), backing(Optional.of(commit.baseNode()), commit.backingName()));
      }
    }
  }

  private Optional<ImageService.Backing> backing(Optional<String> baseNode, Optional<String> name) {
    return baseNode
        .map(nodes::get)
        .map(base ->
            new ImageService.Backing(
                name.orElse(base.file().toString()), Optional.of(base.format())));
  }

  private FakeJob known(String id) throws DriverException {
    FakeJob job = jobs.get(id);
    if (job == null) {
      throw new DriverException(DriverException.Kind.NOT_FOUND, "no job " + id);
    }
    return job;
  }

  @Override
  public void completeJob(String id) throws DriverException {
    call("completeJob " + id);
    synchronized (this) {
      if (known(id).status != DriverJobStatus.READY) {
        throw new DriverException(DriverException.Kind.JOB_STATE, "not ready");
      }
      if (holdCompletion) {
        known(id).status = DriverJobStatus.WAITING;
        return;
      }
      known(id).status = DriverJobStatus.PENDING;
    }
    listener.jobStatusChanged(id, DriverJobStatus.PENDING);
  }

  @Override
  public void finalizeJob(String id) throws DriverException {
    call("finalizeJob " + id);
    synchronized (this) {
      FakeJob job = known(id);
      if (job.status != DriverJobStatus.PENDING) {
        throw new DriverException(DriverException.Kind.JOB_STATE, "not pending");
      }
      if (refuseFinalize) {
        throw new DriverException(DriverException.Kind.GENERIC, "cannot finalize");
      }
      boolean active =
          commits.stream()
              .anyMatch(commit ->
                  commit.jobId().equals(id)
                      && requireNonNull(drives.get(job.target)).name().equals(commit.topNode()));
      if (!job.cancelled && !active) {
        changeHeader(job);
      }
      if ((job.kind == JobState.Kind.MIRROR || active) && !job.cancelled) {
        NodeSpec to = requireNonNull(nodes.get(job.node.orElseThrow()));
        Map<String, BitmapState> bitmaps = new TreeMap<>(bitmapMap(job.target));
        drives.put(job.target, to);
        if (to.format().equals("qcow2")) {
          bitmapMap(job.target).putAll(bitmaps);
        }
      }
      job.status = DriverJobStatus.CONCLUDED;
    }
    listener.jobStatusChanged(id, DriverJobStatus.CONCLUDED);
  }

  @Override
  public void cancelJob(String id) throws DriverException {
    call("cancelJob " + id);
    synchronized (this) {
      FakeJob job = known(id);
      if (job.status == DriverJobStatus.CONCLUDED) {
        throw new DriverException(DriverException.Kind.JOB_STATE, "concluded");
      }
      job.cancelled = true;
      job.status = DriverJobStatus.CONCLUDED;
    }
    listener.jobStatusChanged(id, DriverJobStatus.CONCLUDED);
  }

  @Override
  public void dismissJob(String id) throws DriverException {
    call("dismissJob " + id);
    synchronized (this) {
      known(id);
      jobs.remove(id);
    }
  }

  @Override
  public void setJobSpeed(String id, long bandwidth) throws DriverException {
    call("setJobSpeed " + id);
    synchronized (this) {
      known(id).bandwidth = bandwidth;
    }
  }

  @Override
  public synchronized List<JobState> jobs() {
    view.alive();
    return jobs.values().stream()
        .map(job ->
            new JobState(
                job.id,
                job.kind,
                job.status,
                job.current,
                job.total,
                job.bandwidth,
                job.error,
                job.cancelled))
        .toList();
  }

  @Override
  public List<BitmapState> bitmaps(String target) {
    return List.copyOf(bitmapMap(target).values());
  }

  @Override
  public DriveStatistics statistics(String target) {
    return new DriveStatistics(1, 512, 10, 2, 1024, 20, 3, 30, 0);
  }

  final Map<String, Trouble> troubles = new TreeMap<>();

  /// A request of the guest fails; one that is held waits for the next resume.
  void requestFails(String target, RequestFailure.Action action, boolean noSpace) {
    if (action == RequestFailure.Action.HELD) {
      synchronized (this) {
        troubles.put(target, noSpace ? Trouble.NO_SPACE : Trouble.OTHER);
      }
    }
    listener.requestFailed(new RequestFailure(target, action, noSpace));
  }

  @Override
  public synchronized Optional<Trouble> trouble(String target) throws DriverException {
    call("trouble " + target);
    return Optional.ofNullable(troubles.get(target));
  }

  @Override
  public ImageSizes sizes(String target) throws DriverException {
    call("sizes " + target);
    NodeSpec top = requireNonNull(drives.get(target));
    return new ImageSizes(view.open(top.file(), top.format()).size(), 131072, 262144);
  }

  @Override
  public void resize(String target, long bytes) throws DriverException {
    call("resize " + target + " " + bytes);
  }

  @Override
  public long virtualSize(String node) throws DriverException {
    call("virtualSize " + node);
    NodeSpec spec = requireNonNull(nodes.get(node));
    return view.open(spec.file(), spec.format()).size();
  }

  @Override
  public void suspend() throws DriverException {
    call("suspend");
    paused = true;
  }

  @Override
  public void resume() throws DriverException {
    call("resume");
    synchronized (this) {
      troubles.clear();
    }
    paused = false;
  }

  @Override
  public void stop() {
    view.alive();
    stopped = true;
  }

  @Override
  public void detach() {
    view.alive();
    detached = true;
  }
}
