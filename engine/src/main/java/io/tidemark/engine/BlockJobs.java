// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ResizeOptions;
import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.StreamSpec;
import io.tidemark.job.CommitJob;
import io.tidemark.job.CommitOptions;
import io.tidemark.job.JobClock;
import io.tidemark.job.MirrorJob;
import io.tidemark.job.MirrorLimits;
import io.tidemark.job.MirrorOptions;
import io.tidemark.job.StreamJob;
import io.tidemark.job.StreamOptions;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Starts the jobs that change a drive's chain, and says what the graph makes of their ends.
///
/// Not thread-safe: guarded by the domain's lock.
///
/// @param room what the domain lends
record BlockJobs(Transaction.Room room) {
  private static final Logger LOG = System.getLogger(BlockJobs.class.getName());

  /// A pending job waits for the domain room's record however long its writing takes: a guest that
  /// went on with the old chain under a record that names the new one could lose writes.
  private static final Duration UNDECIDED = Duration.ofDays(365);

  private static final MirrorLimits MIRROR_LIMITS =
      new MirrorLimits(
          MirrorLimits.DEFAULT.answer(),
          MirrorLimits.DEFAULT.stall(),
          MirrorLimits.DEFAULT.held(),
          UNDECIDED);

  void startMirror(MirrorSpec spec) throws DriverException {
    GuestDrive drive = room.drive(spec.target());
    NodeGraph.Node node = room.graph().get(spec.mirrorNode());
    room.jobs().requireFree(spec.jobId(), drive, node);
    Transaction.requireTarget(drive, node);
    requireNumbers(spec);
    List<DirtyBitmap> bitmaps = node.followBitmaps(node.format().virtualSize());
    Optional<BlockNode> base =
        spec.shallow() ? drive.top().backing().map(NodeGraph.Node::format) : Optional.empty();
    var job =
        new MirrorJob(
            MirrorOptions.of(spec.jobId(), drive.drive(), node.format())
                .withBase(base)
                .withTargetIsZero(spec.targetIsZero())
                .withGranularity(spec.granularityBytes())
                .withBandwidth(spec.bandwidthBytesPerSecond())
                .withBuffer(spec.bufferBytes())
                .withSynchronousWrites(spec.synchronousWrites())
                .withTargetBitmaps(bitmaps)
                .withLimits(MIRROR_LIMITS, JobClock.SYSTEM));
    start(
        new JobTable.Entry(
            job, JobState.Kind.MIRROR, drive, node, Optional.empty(), new Pivot(drive, node)),
        job::start);
  }

  private static void requireNumbers(MirrorSpec spec) throws DriverException {
    int granularity = spec.granularityBytes();
    if (granularity != 0
        && (Integer.bitCount(granularity) != 1 || granularity < DirtyBitmap.MIN_GRANULARITY)) {
      throw DriverErrors.generic("job " + spec.jobId() + ": granularity " + granularity);
    }
    requireSpeed(spec.jobId(), spec.bandwidthBytesPerSecond());
    if (spec.bufferBytes() < 0) {
      throw DriverErrors.generic("job " + spec.jobId() + ": buffer " + spec.bufferBytes());
    }
  }

  private static void requireSpeed(String id, long bytesPerSecond) throws DriverException {
    if (bytesPerSecond < 0) {
      throw DriverErrors.generic("job " + id + ": bandwidth " + bytesPerSecond);
    }
  }

  void startStream(StreamSpec spec) throws DriverException {
    GuestDrive drive = room.drive(spec.target());
    NodeGraph.Node top = drive.top();
    room.jobs().requireFree(spec.jobId(), drive, top);
    requireSpeed(spec.jobId(), spec.bandwidthBytesPerSecond());
    Optional<NodeGraph.Node> base = Optional.empty();
    Optional<BackingReference> reference = Optional.empty();
    if (spec.baseNode().isPresent()) {
      NodeGraph.Node node = beneath(top, spec.baseNode().get());
      base = Optional.of(node);
      reference = Optional.of(reference(spec.backingName(), node));
    }
    boolean readOnly = top.format().readOnly() && top.backing().isPresent();
    if (readOnly) {
      reopenWritable(top);
    }
    var job =
        new StreamJob(
            new StreamOptions(
                spec.jobId(),
                drive.drive(),
                top.format(),
                base.map(NodeGraph.Node::format),
                reference,
                spec.bandwidthBytesPerSecond(),
                UNDECIDED,
                JobClock.SYSTEM));
    start(
        new JobTable.Entry(
            job,
            JobState.Kind.STREAM,
            drive,
            top,
            Optional.empty(),
            new Shortening(drive, top, base, readOnly)),
        job::start);
  }

  private static BackingReference reference(Optional<String> name, NodeGraph.Node node) {
    return new BackingReference(
        name.orElse(node.spec().storage().location()), Optional.of(node.spec().format()));
  }

  private NodeGraph.Node beneath(NodeGraph.Node top, String name) throws DriverException {
    NodeGraph.Node node = room.graph().get(name);
    if (node == top || !top.reaches(node)) {
      throw DriverErrors.generic("node " + name + " is not beneath " + top.name());
    }
    return node;
  }

  /// The base is writable from here to the job's end, or for good when it becomes the drive's top.
  /// Its own bitmaps record what is committed.
  void startCommit(CommitSpec spec) throws DriverException {
    GuestDrive drive = room.drive(spec.target());
    NodeGraph.Node top = room.graph().get(spec.topNode());
    if (!drive.top().reaches(top)) {
      throw DriverErrors.generic("node " + top.name() + " is not of drive " + drive.target());
    }
    NodeGraph.Node base = beneath(top, spec.baseNode());
    room.jobs().requireFree(spec.jobId(), drive, base);
    requireSpeed(spec.jobId(), spec.bandwidthBytesPerSecond());
    reopenWritable(base);
    boolean started = false;
    try {
      if (top == drive.top()) {
        startActive(spec, drive, base);
      } else {
        startIntermediate(spec, drive, top, base);
      }
      started = true;
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    } finally {
      if (!started) {
        base.putBackBitmaps();
        readOnlyAgain(base);
      }
    }
  }

  private void startActive(CommitSpec spec, GuestDrive drive, NodeGraph.Node base)
      throws DriverException, BlockException {
    List<DirtyBitmap> bitmaps = base.followBitmaps(drive.drive().virtualSize());
    if (base.format().virtualSize() != drive.drive().virtualSize()) {
      // What is cut off is hidden by the layers above.
      base.format().resize(drive.drive().virtualSize(), ResizeOptions.ANY);
    }
    var job =
        new MirrorJob(
            MirrorOptions.of(spec.jobId(), drive.drive(), base.format())
                .withBase(Optional.of(base.format()))
                .withBandwidth(spec.bandwidthBytesPerSecond())
                .withTargetBitmaps(bitmaps)
                .withLimits(MIRROR_LIMITS, JobClock.SYSTEM));
    start(
        new JobTable.Entry(
            job, JobState.Kind.COMMIT, drive, base, Optional.empty(), new Pivot(drive, base)),
        job::start);
  }

  private void startIntermediate(
      CommitSpec spec, GuestDrive drive, NodeGraph.Node top, NodeGraph.Node base)
      throws DriverException {
    NodeGraph.Node overlay = drive.top();
    while (overlay.backing().filter(top::equals).isEmpty()) {
      overlay = overlay.backing().orElseThrow();
    }
    var job =
        new CommitJob(
            new CommitOptions(
                spec.jobId(),
                drive.drive(),
                overlay.format(),
                top.format(),
                base.format(),
                reference(spec.backingName(), base),
                spec.bandwidthBytesPerSecond(),
                UNDECIDED,
                JobClock.SYSTEM,
                base.followBitmaps(
                    Math.max(base.format().virtualSize(), top.format().virtualSize()))));
    start(
        new JobTable.Entry(
            job,
            JobState.Kind.COMMIT,
            drive,
            base,
            Optional.empty(),
            new Committing(drive, overlay, top, base)),
        job::start);
  }

  private void start(JobTable.Entry entry, JobTable.Verb start) throws DriverException {
    room.jobs().add(entry);
    boolean started = false;
    try {
      JobTable.verb(start);
      started = true;
    } finally {
      if (!started) {
        room.jobs().drop(entry);
      }
    }
  }

  private static void reopenWritable(NodeGraph.Node node) throws DriverException {
    try {
      node.format().reopen(false);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  static void readOnlyAgain(NodeGraph.Node node) {
    try {
      node.format().reopen(true);
    } catch (BlockException e) {
      // Safe because nothing writes it any more; it stays locked for writing until it is closed.
      LOG.log(Level.WARNING, "{0}: stays open for writing: {1}", node.name(), e.getMessage());
    }
  }

  /// The drive goes over to the node that was mirrored to.
  private record Pivot(GuestDrive drive, NodeGraph.Node node) implements JobTable.Effect {
    @Override
    public void before() {
      drive.beforePivot(node);
      drive.atPivot(node); // safe because the drive is drained until it is re-pointed
    }

    @Override
    public void undone() {
      drive.notPivoted();
    }

    @Override
    public void after() throws DriverException {
      if (!drive.drive().root().equals(node.format())) {
        drive.notPivoted();
        throw DriverErrors.generic("drive " + drive.target() + " was not re-pointed");
      }
      drive.afterPivot(node);
    }

    /// The base of an active commit that did not take effect stays a member of the chain.
    @Override
    public void forgotten() {
      if (drive.top() != node && drive.top().reaches(node)) {
        node.putBackBitmaps();
        readOnlyAgain(node);
      }
    }
  }

  /// The top stands on the base alone.
  ///
  /// @param readOnly the top is writable for the job only
  private record Shortening(
      GuestDrive drive, NodeGraph.Node top, Optional<NodeGraph.Node> base, boolean readOnly)
      implements JobTable.Effect {
    @Override
    public void forgotten() {
      if (readOnly) {
        readOnlyAgain(top);
      }
    }

    @Override
    public void after() {
      top.standsOn(base);
      drive.mendBitmaps(Set.of());
    }
  }

  /// The overlay stands on the base, whose bitmaps know what those of the committed images knew.
  ///
  /// @param top the uppermost of those
  private record Committing(
      GuestDrive drive, NodeGraph.Node overlay, NodeGraph.Node top, NodeGraph.Node base)
      implements JobTable.Effect {
    @Override
    public void after() {
      if (base.bitmaps().isPresent()) {
        merge(base.bitmaps().get());
      }
      overlay.standsOn(Optional.of(base));
    }

    private void merge(FollowedBitmaps into) {
      List<BitmapStore> committed = new ArrayList<>();
      for (NodeGraph.Node node = top; node != base; node = node.backing().orElseThrow()) {
        Optional<BitmapStore> store = node.format().bitmapStore();
        if (store.isEmpty()) {
          break;
        }
        committed.add(store.get());
      }
      into.mergeFrom(
          committed,
          base.format().bitmapStore().orElseThrow(),
          StoredBitmaps.storesFrom(base.backing()),
          base.format().virtualSize());
    }

    @Override
    public void forgotten() {
      Set<String> known = base.bitmaps().map(FollowedBitmaps::own).orElse(Set.of());
      base.putBackBitmaps();
      readOnlyAgain(base);
      if (overlay.backing().equals(Optional.of(base))) {
        drive.mendBitmaps(known);
      }
    }
  }
}
