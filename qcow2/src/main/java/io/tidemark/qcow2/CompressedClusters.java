// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// Writes of compressed clusters, packed one after the other, byte behind byte, into host clusters
/// that they share.
///
/// A cluster is packed on the thread of its writer, outside every lock; `lock` is held to find its
/// place. A host cluster's refcount is the number of compressed clusters that touch it, plus one
/// while it is open here, for the next of them: so it cannot be given back under us. The last one
/// that goes into it takes that count over.
///
/// What is on disk after each step:
/// 1. The host cluster's count for this reference, in the page cache (the first's is raised with
///    the pool, [Allocator]).
/// 2. The packed bytes. The rest of a sector may already hold another cluster's bytes; they are
///    written again by nobody.
/// 3. The change of the L2 entry, as of any write: in the [ChangeLog], in memory, and later by
///    [WriteBack], which syncs counts and bytes first.
///
/// *Power cut before the entry is durable:* the guest cluster is as before; counts of its new place
/// are too high: leaked. *Death of the process:* the log is replayed; the open host cluster's own
/// count is leaked and found by the check after a replay.
///
/// A cluster that does not shrink is written as any guest write, and so is one whose place the
/// entry's bits cannot name. A cluster that was there is dropped by the new entry as by any write:
/// its counts go down after the entry is durable, and none of its bytes is written over before its
/// host cluster has lost all its references.
///
/// Spec: qcow2.rst, "Compressed Clusters Descriptor".
final class CompressedClusters {
  /// Buffers kept for the next clusters, and bytes of them.
  private static final int KEPT_BUFFERS = 32;

  private static final int KEPT_BYTES = 8 << 20;

  private final HostFile file;
  private final Geometry geometry;
  private final Allocator allocator;
  private final CompressedReads reads;
  private final GuestWrites writes;
  private final ArrayBlockingQueue<byte[]> buffers;

  private final ReentrantLock lock = new ReentrantLock();
  // Guarded by lock:
  private Allocator.@Nullable Run open; // null: none; one or two clusters, filled in order
  private int used; // bytes of that cluster
  private long references; // its refcount, or more
  private final long most; // highest refcount that there can be

  CompressedClusters(
      HostFile file,
      Geometry geometry,
      Allocator allocator,
      CompressedReads reads,
      GuestWrites writes) {
    this.file = file;
    this.geometry = geometry;
    this.allocator = allocator;
    this.reads = reads;
    this.writes = writes;
    this.buffers =
        new ArrayBlockingQueue<>(Math.min(KEPT_BUFFERS, KEPT_BYTES >>> geometry.clusterBits()));
    this.most = Refcounts.highest(geometry.refcountOrder());
  }

  /// Writes one guest cluster, or its part before the end of the disk.
  void write(long offset, ByteBuffer from) throws BlockException {
    int size = geometry.clusterSize();
    byte[] plain = take();
    byte[] packed = take();
    try {
      int there = from.remaining();
      from.get(from.position(), plain, 0, there);
      java.util.Arrays.fill(plain, there, size, (byte) 0);
      int length = pack(plain, packed);
      if (length < 0 || !place(offset >>> geometry.clusterBits(), packed, length)) {
        writes.write(offset, from);
      }
      from.position(from.limit());
    } finally {
      give(plain);
      give(packed);
    }
  }

  private int pack(byte[] plain, byte[] packed) throws BlockException {
    Codec codec = reads.takeCodec();
    try {
      return codec.pack(plain, geometry.clusterSize(), packed, geometry.clusterSize() - 1);
    } finally {
      reads.giveCodec(codec);
    }
  }

  /// Writes packed bytes and enters them. False when no entry can name a place for them.
  private boolean place(long cluster, byte[] packed, int length) throws BlockException {
    Optional<Long> reserved = reserve(length);
    if (reserved.isEmpty()) {
      return false;
    }
    long host = reserved.get();
    try {
      file.write(host, ByteBuffer.wrap(packed, 0, length));
      writes.enter(cluster, L2Entry.compressed(host, length, geometry));
      return true;
    } catch (BlockException | RuntimeException e) {
      long first = host >>> geometry.clusterBits();
      long last = (host + length - 1) >>> geometry.clusterBits();
      try {
        allocator.release(first, last - first + 1);
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  /// A place for `length` bytes, less than a cluster, with its references counted.
  private Optional<Long> reserve(int length) throws BlockException {
    lock.lock();
    try {
      int size = geometry.clusterSize();
      Allocator.Run run = open;
      if (run != null && used + length > size && run.count() == 1) {
        run = extend(run);
      }
      if (run == null) {
        run = allocator.take(1);
        allocator.hold(run);
        open = run;
        used = 0;
        references = 1;
      }
      long host = (run.first() << geometry.clusterBits()) + used;
      if (!L2Entry.canName(host + length, geometry)) {
        leave(run);
        return Optional.empty();
      }
      count(run, used + length);
      return Optional.of(host);
    } finally {
      lock.unlock();
    }
  }

  // Under lock. The open cluster and the one behind it; null, and nothing open, when that is taken.
  private Allocator.@Nullable Run extend(Allocator.Run run) throws BlockException {
    if (!allocator.takeIfNext(run.first() + 1)) {
      leave(run);
      return null;
    }
    var longer = new Allocator.Run(run.first(), 2, false);
    allocator.unhold(run);
    allocator.hold(longer);
    open = longer;
    return longer;
  }

  // Under lock. Counts a reference to the open cluster, and to the next when the bytes reach there.
  private void count(Allocator.Run run, int end) throws BlockException {
    int size = geometry.clusterSize();
    if (end > size) { // run.count() > 1; our own reference to the first goes with these bytes
      allocator.share(run.first() + 1);
      next(run, end - size);
      references = 2;
    } else if (end == size || references >= most) {
      next(run, 0);
    } else {
      allocator.share(run.first());
      used = end;
      references++;
    }
  }

  // Under lock.
  private void next(Allocator.Run run, int usedOfNext) {
    allocator.unhold(run);
    open = null;
    used = usedOfNext;
    references = 1;
    if (run.count() > 1) {
      var rest = new Allocator.Run(run.first() + 1, run.count() - 1, false);
      allocator.hold(rest);
      open = rest;
    }
  }

  // Under lock. Drops our own reference to the open cluster, and gives the others back.
  private void leave(Allocator.Run run) throws BlockException {
    open = null;
    allocator.unhold(run);
    if (run.count() > 1) {
      allocator.giveBack(new Allocator.Run(run.first() + 1, run.count() - 1, false));
    }
    allocator.release(run.first(), 1);
  }

  /// Nothing is counted ahead any more. No request runs.
  void close() throws BlockException {
    lock.lock();
    try {
      if (open != null) {
        leave(open);
      }
    } finally {
      lock.unlock();
    }
  }

  private byte[] take() {
    byte[] buffer = buffers.poll();
    return buffer == null ? new byte[geometry.clusterSize() + Codec.SLACK] : buffer;
  }

  private void give(byte[] buffer) {
    boolean _ = buffers.offer(buffer);
  }
}
