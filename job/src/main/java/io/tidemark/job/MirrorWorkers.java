// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.ByteRange;
import io.tidemark.block.Drive;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A mirror's threads that copy what is dirty, beside the guest.
///
/// **Invariant.** A worker claims a dirty extent that meets no transfer which is out; from then on
/// it is one itself. It locks the extent's range on the drive, clears its bits, reads, writes, lets
/// go. The bits are cleared with the range held and set again when the copy did not get there, so
/// what is neither dirty nor out is in the target; a copy that was abandoned ([MirrorJob]) stays
/// out until it returns.
///
/// Together the workers go over the bitmap from start to end. The one that finds nothing more
/// before the end tells the job that the round is over; one that finds nothing from the start on,
/// that there is nothing to claim, and then waits for what guests make dirty.
///
/// **Threads.** Everything here is guarded by the job's lock, which is not held while a worker
/// waits for a range or copies; a worker's buffer is its own. [#dirtied] is for the guest's
/// threads, without the lock.
final class MirrorWorkers {
  static final int MAX_WORKERS = 4;

  /// Bytes of one copy, where the granularity is not more.
  static final int EXTENT_BYTES = 1 << 20;

  /// Between two looks at a bitmap in which nothing was dirty.
  private static final long LOOK_NANOS = Duration.ofMillis(100).toNanos();

  private final MirrorJob job;
  private final MirrorCopy copy;
  private final Drive source;
  private final int count;
  private final int bufferBytes;
  private final int extentBytes;

  private long cursor; // where the round is
  private int idlers; // that wait for something to be dirty
  private long copyingBytes; // claimed, and no more dirty

  // Written under the lock, read without it on the guest's way: whether anyone is to be woken.
  private volatile boolean idle;

  MirrorWorkers(MirrorJob job, MirrorCopy copy, Drive source, int count, int bufferBytes) {
    this.job = job;
    this.copy = copy;
    this.source = source;
    this.count = count;
    this.bufferBytes = bufferBytes;
    this.extentBytes = Math.max(bufferBytes, job.options().granularityBytes());
  }

  /// Starts the threads, which end when the job stops. Once, without the lock.
  void start() {
    for (int n = 0; n < count; n++) {
      Thread _ = job.thread(job.nextThreadNumber(), this::work);
    }
  }

  /// A guest has made something dirty. Any thread, without the lock.
  void dirtied() {
    if (idle) {
      job.locked(job.changed::signalAll);
    }
  }

  /// Bytes of the copies that are under way. With the lock held.
  long copyingBytes() {
    return copyingBytes;
  }

  private void work() {
    try {
      ByteBuffer buffer = ByteBuffer.allocateDirect(bufferBytes);
      Transfer transfer = claim();
      while (transfer != null) {
        transfer(transfer, buffer);
        transfer = claim();
      }
    } catch (BlockException e) {
      job.fail(e);
    } catch (RuntimeException | Error e) {
      job.failInternally(e);
    }
  }

  /// The next extent for a worker; null when there is nothing more to do for it.
  private @Nullable Transfer claim() {
    job.lock.lock();
    try {
      while (!job.stopping()) {
        long delay = job.hurry() ? 0 : job.rate.delayNanos();
        JobStatus now = job.statusLocked();
        if (now == JobStatus.PAUSED || now == JobStatus.STANDBY) {
          job.changed.awaitUninterruptibly();
        } else if (delay > 0) {
          job.waitFor(delay);
        } else {
          Transfer transfer = nextExtent();
          if (transfer != null) {
            return transfer;
          }
        }
      }
      return null;
    } finally {
      job.lock.unlock();
    }
  }

  // With the lock held, as the next one is.
  private @Nullable Transfer nextExtent() {
    Optional<ByteRange> range = unclaimed(cursor);
    if (range.isPresent()) {
      cursor = range.get().end();
      var transfer = new Transfer(range.get().offset(), range.get().length(), true);
      job.add(transfer);
      job.rate.take(transfer.length);
      return transfer;
    }
    if (cursor > 0) {
      cursor = 0;
      job.endRound();
      return null;
    }
    job.settle();
    // One looks again soon, the others are woken: looking goes over the whole bitmap.
    long pause = idlers == 0 ? LOOK_NANOS : 10 * LOOK_NANOS;
    idlers++;
    idle = true;
    Job.waitFor(JobClock.SYSTEM, job.changed, pause);
    idlers--;
    idle = idlers > 0;
    return null;
  }

  /// The next dirty bytes that no transfer meets.
  private Optional<ByteRange> unclaimed(long start) {
    long size = source.virtualSize();
    long most = job.hurry() ? extentBytes : Math.min(extentBytes, job.rate.sliceBytes());
    long from = start;
    while (from < size) {
      Optional<ByteRange> found = copy.dirty.nextDirty(from, most);
      if (found.isEmpty()) {
        return found;
      }
      ByteRange range = found.get();
      Transfer other = job.firstOverlapping(range.offset(), range.length());
      if (other == null) {
        return found;
      }
      long granule = copy.dirty.granularity();
      long otherStart = other.offset & -granule;
      if (otherStart > range.offset()) {
        // Nothing else that is out begins earlier in it.
        return Optional.of(new ByteRange(range.offset(), otherStart - range.offset()));
      }
      from =
          Math.max(
              range.offset() + granule, (other.offset + other.length + granule - 1) & -granule);
    }
    return Optional.empty();
  }

  private void transfer(Transfer transfer, ByteBuffer buffer) throws BlockException {
    boolean done = false;
    try {
      transfer.hold(source.lockRange(transfer.offset, transfer.length));
      if (begin(transfer)) {
        long data = copy.copy(transfer.offset, transfer.length, buffer);
        job.locked(() -> job.rate.take(data - transfer.length));
        done = true;
      }
    } finally {
      end(transfer, done);
    }
  }

  /// The range is held.
  private boolean begin(Transfer transfer) {
    job.lock.lock();
    try {
      if (job.stopping()) {
        return false;
      }
      transfer.count(job.clock.nanoTime());
      copy.dirty.clear(transfer.offset, transfer.length);
      copyingBytes += transfer.length;
      return true;
    } finally {
      job.lock.unlock();
    }
  }

  private void end(Transfer transfer, boolean done) {
    job.lock.lock();
    try {
      if (transfer.counting) {
        copyingBytes -= transfer.length;
      }
      if (done) {
        job.mirroredBytes(transfer.length);
      } else {
        copy.dirty.set(transfer.offset, transfer.length);
      }
      job.remove(transfer);
      transfer.letGo();
      job.changed.signalAll();
    } finally {
      job.lock.unlock();
    }
  }
}
