// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.GuestWrite;
import io.tidemark.block.WriteFilter;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.concurrent.locks.Condition;
import org.jspecify.annotations.Nullable;

/// A mirror's place in the guest's write path, and the threads that write the target for it.
///
/// While the job is not synchronous a write only marks its granules. While it is, the write goes to
/// the target before the guest is acknowledged: a lane (a thread with a buffer) does it, and the
/// guest waits for the lane, but no longer than `limits.answer`. The guest's bytes are copied into
/// the lane's buffer first, so that the guest can leave a lane behind. Whoever leaves marks its
/// granules dirty, and the range stays out in the job's list of transfers until the lane returns:
/// nothing else writes it meanwhile, so that no late write can overtake a newer one.
///
/// Not sent to the target, only marked: a write whose granules are all dirty (the background copy,
/// which cannot have begun with them while the guest holds its range, brings them), one that meets
/// a transfer that is out, and a discard of more than [#MAX_DISCARD_BYTES].
///
/// Everything here is guarded by the job's lock, but the buffer of a lane, which belongs to the
/// guest's thread from taking the lane to handing it over, and to the lane's thread from there on.
final class MirrorLanes implements WriteFilter {
  /// A larger discard may have to be copied, which the guest need not wait for.
  static final long MAX_DISCARD_BYTES = 16L << 20;

  private final MirrorJob job;
  private final MirrorCopy copy;
  private final BlockNode target;
  private final int maxLanes;
  private final int bufferBytes;
  private final ArrayDeque<Lane> idle = new ArrayDeque<>();
  private final ArrayDeque<Lane> busy = new ArrayDeque<>();
  private final Condition laneFree;
  private int lanes;
  private boolean stopping;

  /// One piece of a guest's write on its way to the target.
  private record Piece(GuestWrite write, Transfer transfer) {}

  private final class Lane {
    final ByteBuffer buffer = ByteBuffer.allocateDirect(bufferBytes);
    final Condition handed = job.lock.newCondition();
    final Condition done = job.lock.newCondition();
    // Null while the lane has nothing to do.
    @Nullable Piece piece;
    // Null unless the last piece failed.
    @Nullable Throwable error;
  }

  MirrorLanes(MirrorJob job, MirrorCopy copy, BlockNode target, int maxLanes, int bufferBytes) {
    this.job = job;
    this.copy = copy;
    this.target = target;
    this.maxLanes = maxLanes;
    this.bufferBytes = bufferBytes;
    this.laneFree = job.lock.newCondition();
  }

  @Override
  public void after(GuestWrite write) {
    if (write.length() == 0) {
      return;
    }
    boolean there = false;
    try {
      there = job.synchronous() && mirrored(write);
    } catch (RuntimeException | Error e) {
      job.failInternally(e);
    }
    if (!there) {
      failed(write);
    }
  }

  @Override
  public void failed(GuestWrite write) {
    copy.dirty.set(write.offset(), write.length());
    job.dirtied();
  }

  /// Wakes whoever waits here: the job left synchronous mode, or ends.
  void release(boolean stop) {
    stopping |= stop;
    laneFree.signalAll();
    for (Lane lane : busy) {
      lane.done.signalAll();
    }
    if (stop) {
      idle.forEach(lane -> lane.handed.signalAll());
    }
  }

  /// @return false when the granules must be marked
  private boolean mirrored(GuestWrite write) {
    if (write instanceof GuestWrite.Discard && write.length() > MAX_DISCARD_BYTES) {
      return false;
    }
    if (copy.allDirty(write.offset(), write.length())) {
      return true;
    }
    long deadline = job.clock.nanoTime() + job.options().limits().answer().toNanos();
    if (!(write instanceof GuestWrite.Data(long offset, ByteBuffer bytes))) {
      return mirrored(write, deadline);
    }
    for (int at = 0; at < bytes.remaining(); at += bufferBytes) {
      int length = Math.min(bufferBytes, bytes.remaining() - at);
      ByteBuffer slice = bytes.slice(bytes.position() + at, length);
      if (!mirrored(new GuestWrite.Data(offset + at, slice), deadline)) {
        return false;
      }
    }
    return true;
  }

  private boolean mirrored(GuestWrite write, long deadline) {
    Lane lane = take(deadline);
    if (lane == null) {
      return false;
    }
    GuestWrite sent = write;
    if (write instanceof GuestWrite.Data(long offset, ByteBuffer bytes)) {
      lane.buffer.clear().put(bytes.duplicate()).flip();
      sent = new GuestWrite.Data(offset, lane.buffer);
    }
    job.lock.lock();
    try {
      if (!job.synchronous() || job.meetsTransfer(write.offset(), write.length())) {
        free(lane);
        return false;
      }
      var transfer = new Transfer(write.offset(), write.length(), false);
      transfer.count(job.clock.nanoTime());
      job.add(transfer);
      lane.error = null;
      lane.piece = new Piece(sent, transfer);
      lane.handed.signal();
      return await(lane, transfer, deadline);
    } finally {
      job.lock.unlock();
    }
  }

  private @Nullable Lane take(long deadline) {
    job.lock.lock();
    try {
      while (job.synchronous() && !stopping) {
        Lane lane = idle.poll();
        if (lane == null && lanes < maxLanes) {
          lane = new Lane();
          Lane started = lane;
          job.thread(job.nextThreadNumber(), () -> serve(started));
          lanes++;
        }
        if (lane != null) {
          busy.add(lane);
          return lane;
        }
        if (expired(laneFree, deadline)) {
          job.targetIsLate();
        }
      }
      return null;
    } finally {
      job.lock.unlock();
    }
  }

  private boolean await(Lane lane, Transfer transfer, long deadline) {
    while (lane.piece != null) {
      if (!job.synchronous()) {
        transfer.abandoned = true;
        return false;
      }
      if (expired(lane.done, deadline)) {
        job.targetIsLate();
      }
    }
    boolean ok = lane.error == null;
    free(lane);
    return ok;
  }

  private boolean expired(Condition condition, long deadline) {
    long left = deadline - job.clock.nanoTime();
    if (left <= 0) {
      return true;
    }
    Job.waitFor(job.clock, condition, left);
    return false;
  }

  private void free(Lane lane) {
    busy.remove(lane);
    idle.push(lane);
    laneFree.signal();
    if (stopping) {
      lane.handed.signal();
    }
  }

  private void serve(Lane lane) {
    job.lock.lock();
    try {
      while (true) {
        Piece piece = lane.piece;
        if (piece == null) {
          if (stopping && !busy.contains(lane)) {
            return;
          }
          lane.handed.awaitUninterruptibly();
          continue;
        }
        Throwable error = null;
        job.lock.unlock();
        try {
          send(piece.write(), lane.buffer);
        } catch (BlockException | RuntimeException | Error e) {
          error = e;
        } finally {
          job.lock.lock();
        }
        finished(lane, piece, error);
      }
    } finally {
      job.lock.unlock();
    }
  }

  private void finished(Lane lane, Piece piece, @Nullable Throwable error) {
    lane.piece = null;
    lane.error = error;
    Transfer transfer = piece.transfer();
    job.remove(transfer);
    if (error != null) {
      // The guest's thread marks it too; this is for readers in between.
      copy.dirty.set(transfer.offset, transfer.length);
      job.failed(error);
    } else if (!transfer.abandoned) {
      job.mirroredBytes(copy.granuleBytes(transfer.offset, transfer.length));
    }
    if (transfer.abandoned) {
      free(lane);
    } else {
      lane.done.signal();
    }
  }

  private void send(GuestWrite write, ByteBuffer buffer) throws BlockException {
    switch (write) {
      case GuestWrite.Data _, GuestWrite.Zeroes _ -> {
        copy.touch(write.offset(), write.length());
        write.applyTo(target);
      }
      case GuestWrite.Discard _ -> copy.copy(write.offset(), write.length(), buffer);
    }
  }
}
