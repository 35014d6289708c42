// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.CopyBuffer;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.WriteBehind;
import io.tidemark.block.ZeroMode;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// The copy of one drive as it was at its group's instant. Made and started by a [BackupGroup].
///
/// Workers go once over what is wanted, from start to end; each step takes its bytes out of the
/// [FrozenView] and then writes the target, holding nothing that a guest could wait for. The guest
/// waits for the local scratch at most. When the last step is written the filter leaves the drive,
/// and the target is flushed.
///
/// It finishes by itself: `WAITING` until all jobs of the group are there, then `PENDING` and
/// `CONCLUDED` at once (QEMU: auto-finalize). `cancel` ends the whole group, and so does a failure;
/// the target then holds nothing of worth.
public final class BackupJob extends InstantJob {
  static final int WORKERS = 4;

  /// A flush of the target that takes longer fails the job.
  static final Duration FLUSH_LIMIT = Duration.ofMinutes(10);

  /// An ending job waits for what is out on its target no longer than this.
  static final Duration LEAVE_LIMIT = Duration.ofSeconds(10);

  private static final long SCAN_BYTES = 64L << 20;
  private static final long IDLE_NANOS = Duration.ofMillis(100).toNanos();

  private static final Logger LOG = System.getLogger(BackupJob.class.getName());

  private final BackupOptions options;
  private final BackupGroup group;
  private final BlockNode target;
  private final WriteBehind behind;
  private final boolean zeroesMayStay;

  // The fields below are guarded by the job's lock.
  private long totalBytes;
  private long processedBytes;
  private long cursor;
  private int working;
  private boolean stopping;

  BackupJob(BackupOptions options, BackupGroup group) {
    super(options.id(), options.source(), options.bandwidthBytesPerSecond(), options.clock());
    this.options = options;
    this.group = group;
    this.target = options.target();
    this.behind = new WriteBehind(target);
    this.zeroesMayStay = options.targetIsZero() && options.bitmap().isEmpty();
  }

  public BackupOptions options() {
    return options;
  }

  @Override
  public JobProgress progress() {
    lock.lock();
    try {
      return new JobProgress(processedBytes, totalBytes);
    } finally {
      lock.unlock();
    }
  }

  @Override
  FrozenView makeView() {
    long granularity = DirtyBitmap.DEFAULT_GRANULARITY;
    Optional<DirtyBitmap> bitmap = options.bitmap();
    if (bitmap.isPresent()) {
      granularity = Math.min(bitmap.get().granularity(), FrozenView.STEP_BYTES);
    }
    var wanted = new DirtyBitmap(id() + "-wanted", source().virtualSize(), granularity);
    if (bitmap.isPresent()) {
      wanted.merge(bitmap.get());
    } else {
      wanted.setAll();
    }
    locked(() -> totalBytes = wanted.dirtyBytes());
    return new FrozenView(
        source(), wanted, options.scratch(), options.scratchLimitBytes(), this::viewFailed);
  }

  @Override
  boolean mayAbort() {
    return group.mayBreak();
  }

  @Override
  void run() {
    FrozenView frozen = frozen();
    try {
      skipHoles(frozen);
      lock.lock();
      try {
        working = WORKERS;
      } finally {
        lock.unlock();
      }
      for (int n = 0; n < WORKERS; n++) {
        thread(nextThreadNumber(), () -> work(frozen));
      }
      if (copied()) {
        removeView(frozen);
        flushAside(target, FLUSH_LIMIT, () -> statusLocked() == JobStatus.ABORTING);
        group.arrive(this);
        awaitGroup();
      }
    } catch (BlockException e) {
      fail(e);
    } catch (RuntimeException | Error e) {
      failInternally(e);
    } finally {
      tearDown(frozen);
    }
  }

  private void skipHoles(FrozenView frozen) throws BlockException {
    long size = source().virtualSize();
    for (long at = 0; zeroesMayStay && at < size && status() != JobStatus.ABORTING; ) {
      var window = new ByteRange(at, Math.min(SCAN_BYTES, size - at));
      long skipped = frozen.skipZeroes(window);
      locked(() -> processedBytes += skipped);
      at = window.end();
    }
  }

  /// Waits for the workers.
  ///
  /// @return whether all is copied, and the job `WAITING`
  private boolean copied() {
    lock.lock();
    try {
      while (statusLocked() != JobStatus.ABORTING
          && (working > 0 || statusLocked() == JobStatus.PAUSED)) {
        changed.awaitUninterruptibly();
      }
      if (statusLocked() == JobStatus.ABORTING) {
        return false;
      }
      move(JobStatus.WAITING);
      return true;
    } finally {
      lock.unlock();
    }
  }

  private void awaitGroup() {
    lock.lock();
    try {
      while (statusLocked() == JobStatus.WAITING && !group.succeeded()) {
        changed.awaitUninterruptibly();
      }
      if (statusLocked() == JobStatus.WAITING) {
        move(JobStatus.PENDING);
      }
    } finally {
      lock.unlock();
    }
  }

  // ---- workers

  private void work(FrozenView frozen) {
    try {
      ByteBuffer buffer = CopyBuffer.make();
      ByteRange range = claim(frozen);
      while (range != null) {
        copy(frozen, range, buffer);
        range = claim(frozen);
      }
    } catch (BlockException e) {
      fail(e);
    } catch (RuntimeException | Error e) {
      failInternally(e);
    } finally {
      locked(() -> {
        working--;
        changed.signalAll();
      });
    }
  }

  private @Nullable ByteRange claim(FrozenView frozen) {
    lock.lock();
    try {
      while (!stopping && statusLocked() != JobStatus.ABORTING) {
        long delay = rate.delayNanos();
        if (statusLocked() == JobStatus.PAUSED) {
          changed.awaitUninterruptibly();
        } else if (delay > 0) {
          waitFor(delay);
        } else {
          long most = Math.min(FrozenView.STEP_BYTES, rate.sliceBytes());
          Optional<ByteRange> range = frozen.next(cursor, most);
          if (range.isEmpty()) {
            return null;
          }
          cursor = range.get().end();
          rate.take(range.get().length());
          return range.get();
        }
      }
      return null;
    } finally {
      lock.unlock();
    }
  }

  private void copy(FrozenView frozen, ByteRange range, ByteBuffer buffer) throws BlockException {
    List<FrozenView.Part> parts = frozen.take(range, buffer);
    long data = 0;
    for (FrozenView.Part part : parts) {
      int at = (int) (part.offset() - range.offset());
      ByteBuffer bytes = buffer.clear().slice(at, (int) part.length());
      switch (part.place()) {
        case BUFFER -> target.write(part.offset(), bytes);
        case SCRATCH -> {
          frozen.readScratch(part, bytes);
          target.write(part.offset(), bytes.flip());
          frozen.release(part);
        }
        case ZERO -> {
          if (!zeroesMayStay) {
            target.writeZeroes(part.offset(), part.length(), ZeroMode.MAY_UNMAP);
          }
        }
      }
      data += part.place() == FrozenView.Place.ZERO ? 0 : part.length();
    }
    behind.wrote(data);
    long copied = data;
    locked(() -> {
      processedBytes += range.length();
      rate.take(copied - range.length());
    });
  }

  // ---- the end

  private void tearDown(FrozenView frozen) {
    locked(() -> {
      stopping = true;
      changed.signalAll();
    });
    removeView(frozen);
    if (awaitNothingOut()) {
      try {
        frozen.clear();
      } catch (BlockException e) {
        LOG.log(Level.WARNING, "job " + id() + ": its scratch was not given back", e);
      }
    }
  }

  private boolean awaitNothingOut() {
    long since = clock.nanoTime();
    lock.lock();
    try {
      while (working > 0 || flushesOut() > 0) {
        if (clock.nanoTime() - since > LEAVE_LIMIT.toNanos()) {
          leaveTarget(target, working + flushesOut());
          return false;
        }
        waitFor(IDLE_NANOS);
      }
      return true;
    } finally {
      lock.unlock();
    }
  }
}
