// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CopyBuffer;
import io.tidemark.block.Extent;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// Copies what is read in a [SourceDisk] into a target.
///
/// Ranges that the source does not hold itself (`UNALLOCATED`) are left as they are. Several
/// workers each take the next piece that has to be looked at, read it into a buffer of their own,
/// find the zeroes in it, and write the rest. What the target reads as anyway is not written. In
/// order (the default) the pieces are written one after the other, so that a format lays the
/// clusters of a disk side by side, and only reading is done at once; else all is done at once.
/// Nothing is flushed here.
///
/// When a worker fails, the others stop at the end of their piece, by a flag, never interrupted (a
/// channel would close beneath them), and the failure is thrown; the target then holds any part of
/// the data.
final class Conversion {
  /// Bytes of one piece, where neither a larger cluster nor longer zeroes are to be seen in one.
  static final int PIECE = CopyBuffer.BYTES;

  /// Most bytes of a piece for the sake of zeroes that are looked for.
  private static final int MOST_FOR_ZEROES = 1 << 20;

  /// Bytes of data that one look at the state goes forward.
  private static final long LOOK = 64L << 20;

  /// Bytes that are read at a time where a larger read failed (`--salvage`).
  private static final int SECTOR = 512;

  /// What the target reads as where nothing is written.
  enum Target {
    /// Zeroes: it is new, or said to be.
    ZERO,
    /// Its backing node.
    BACKING,
    /// Anything: zeroes have to be written.
    UNKNOWN
  }

  /// @param target what the target holds before
  /// @param sparse zeroes shorter than this are written as data, bytes; 0: everything is written
  /// @param backingSize bytes of the target's backing node that may hold something, for `BACKING`
  /// @param compressed every cluster that holds anything is written compressed; the target is a
  ///   format node that can
  /// @param workers threads, at least 1
  /// @param anyOrder pieces are written as they come
  /// @param salvage what cannot be read is taken for zeroes
  record Plan(
      Target target,
      int sparse,
      long backingSize,
      boolean compressed,
      int workers,
      boolean anyOrder,
      boolean salvage) {
    /// Plain, in order, with one worker a processor.
    Plan(Target target, int sparse, long backingSize) {
      this(
          target,
          sparse,
          backingSize,
          false,
          Runtime.getRuntime().availableProcessors(),
          false,
          false);
    }
  }

  /// A range that is to be read and written.
  ///
  /// @param turn its place in the order
  private record Piece(long offset, int length, long turn) {}

  private final SourceDisk source;
  private final BlockNode target;
  private final Plan plan;
  private final Progress progress;
  private final Pace pace;
  private final Consumer<String> warnings;
  private final int unit; // pieces begin and end at its multiples
  private final int whole; // bytes of a piece that nothing cuts short

  private final ReentrantLock taking = new ReentrantLock();
  // Guarded by taking:
  private long position;
  private long turns;

  private final ReentrantLock order = new ReentrantLock();
  private final Condition nextTurn = order.newCondition();
  private long turn; // guarded by order: whose turn to write it is

  private final Object counting = new Object();
  private long done; // guarded by counting

  private volatile @Nullable Throwable failure; // the first one

  Conversion(
      SourceDisk source,
      BlockNode target,
      Plan plan,
      Progress progress,
      Pace pace,
      Consumer<String> warnings) {
    this.source = source;
    this.target = target;
    this.plan = plan;
    this.progress = progress;
    this.pace = pace;
    this.warnings = warnings;
    this.unit =
        plan.compressed && target instanceof FormatNode format
            ? Math.toIntExact(format.clusterSize())
            : 1;
    this.whole = Math.max(Math.max(PIECE, unit), Math.min(plan.sparse, MOST_FOR_ZEROES));
  }

  /// As fast as it goes, and without a place for warnings.
  Conversion(SourceDisk source, BlockNode target, Plan plan, Progress progress) {
    this(source, target, plan, progress, Pace.UNBOUND, _ -> {});
  }

  /// Runs to the end. No worker lives on when this returns or throws.
  void run() throws BlockException {
    List<Thread> threads = new ArrayList<>();
    long pieces = source.size() / whole + 1;
    for (int i = 1; i < Math.min(plan.workers, pieces); i++) {
      threads.add(Thread.ofPlatform().name("convert-" + i).daemon().start(this::work));
    }
    work();
    for (Thread thread : threads) {
      join(thread);
    }
    Throwable why = failure;
    switch (why) {
      case null -> {}
      case BlockException block -> throw block;
      case RuntimeException bug -> throw bug;
      case Error bug -> throw bug;
      default -> throw new IllegalStateException(why);
    }
  }

  private static void join(Thread thread) {
    boolean interrupted = false;
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException _) {
        interrupted = true; // the workers still use the images
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  private void work() {
    try {
      ByteBuffer buffer = null;
      for (Piece piece = next(); piece != null; piece = next()) {
        if (buffer == null) {
          buffer = ByteBuffer.allocateDirect(whole);
        }
        pace.take(piece.length);
        copy(piece, buffer.clear().limit(piece.length));
        count(piece.length);
      }
    } catch (BlockException | RuntimeException | Error e) {
      fail(e);
    }
  }

  private void fail(Throwable e) {
    order.lock();
    try {
      if (failure == null) {
        failure = e;
      } else if (e instanceof Error || e instanceof RuntimeException) {
        failure.addSuppressed(e);
      }
      nextTurn.signalAll();
    } finally {
      order.unlock();
    }
  }

  private void count(long bytes) {
    synchronized (counting) {
      done += bytes;
      progress.update(done, source.size());
    }
  }

  /// The next piece that holds data; what lies before it is done on the way. Null at the end.
  private @Nullable Piece next() throws BlockException {
    taking.lock();
    try {
      while (position < source.size() && failure == null) {
        Extent extent = look(position);
        long end = Math.min(source.size(), extent.end());
        boolean data = plan.sparse == 0 || extent.state() == Extent.State.DATA;
        if (!data && !end(end)) {
          // Less than a cluster of it: the rest of the cluster decides.
          end -= end % unit;
          data = end <= position;
        }
        if (data) {
          return take(Math.max(end, Math.min(source.size(), position + unit)));
        }
        skip(extent.state(), end);
      }
      return null;
    } finally {
      taking.unlock();
    }
  }

  private boolean end(long offset) {
    return offset == source.size();
  }

  /// @param dataEnd where the data ends that begins at `position`
  private Piece take(long dataEnd) {
    // Later pieces begin at multiples of a whole one.
    long end = Math.min(dataEnd, position + whole - position % whole);
    if (!end(end) && end % unit != 0) {
      end = Math.min(source.size(), end + unit - end % unit);
    }
    var piece = new Piece(position, Math.toIntExact(end - position), turns++);
    position = end;
    return piece;
  }

  /// A range without data.
  private void skip(Extent.State state, long end) throws BlockException {
    long length = end - position;
    boolean left = state == Extent.State.UNALLOCATED;
    if (!left && zeroNeeded(position, length) > 0) {
      // Safe in any order: no piece covers it.
      zero(position, length);
    }
    position = end;
    count(length);
  }

  private Extent look(long offset) throws BlockException {
    try {
      return source.at(offset, LOOK);
    } catch (BlockException e) {
      if (!plan.salvage) {
        throw e;
      }
      warnings.accept("error while looking at offset " + offset + ": " + e.getMessage());
      long length = Math.min(whole, source.size() - offset);
      return new Extent(offset, length, Extent.State.DATA, -1, false);
    }
  }

  private void copy(Piece piece, ByteBuffer buffer) throws BlockException {
    read(piece.offset, buffer);
    buffer.flip();
    boolean ordered = !plan.anyOrder;
    if (ordered && !awaitTurn(piece.turn)) {
      return;
    }
    try {
      if (plan.compressed && target instanceof FormatNode format) {
        compress(format, piece.offset, buffer);
      } else {
        write(piece.offset, buffer);
      }
    } finally {
      if (ordered) {
        endTurn();
      }
    }
  }

  /// @return false when another worker failed
  private boolean awaitTurn(long mine) {
    order.lock();
    try {
      while (turn != mine && failure == null) {
        nextTurn.awaitUninterruptibly();
      }
      return failure == null;
    } finally {
      order.unlock();
    }
  }

  private void endTurn() {
    order.lock();
    try {
      turn++;
      nextTurn.signalAll();
    } finally {
      order.unlock();
    }
  }

  private void read(long offset, ByteBuffer buffer) throws BlockException {
    if (!plan.salvage) {
      source.read(offset, buffer);
      return;
    }
    int length = buffer.limit();
    try {
      source.read(offset, buffer);
    } catch (BlockException whole) {
      for (int at = 0; at < length; at += SECTOR) {
        int end = Math.min(length, at + SECTOR);
        try {
          source.read(offset + at, buffer.limit(end).position(at));
        } catch (BlockException e) {
          warnings.accept("error while reading offset " + (offset + at) + ": " + e.getMessage());
          Zeroes.fill(buffer.limit(end).position(at));
        }
      }
      buffer.limit(length).position(length);
    }
  }

  private void compress(FormatNode format, long offset, ByteBuffer data) throws BlockException {
    int limit = data.limit();
    for (int at = 0; at < limit; at += unit) {
      int length = Math.min(unit, limit - at);
      ByteBuffer cluster = data.slice(at, length);
      if (plan.sparse > 0 && Zeroes.isZero(cluster)) {
        zero(offset + at, length);
      } else {
        format.writeCompressed(offset + at, cluster);
      }
    }
  }

  /// Writes the parts that hold anything but zeroes, and the zeroes between them where needed.
  private void write(long offset, ByteBuffer data) throws BlockException {
    if (plan.sparse == 0) {
      target.write(offset, data);
      return;
    }
    int limit = data.limit();
    int from = 0;
    boolean fromZero = false;
    for (int at = 0; at < limit; ) {
      int step = Math.min(limit - at, plan.sparse - (int) ((offset + at) % plan.sparse));
      boolean zero = Zeroes.isZero(data.limit(at + step).position(at));
      if (zero != fromZero && at > from) {
        part(offset, data, from, at, fromZero);
        from = at;
      }
      fromZero = zero;
      at += step;
    }
    part(offset, data, from, limit, fromZero);
  }

  private void part(long offset, ByteBuffer data, int from, int to, boolean zero)
      throws BlockException {
    if (zero) {
      zero(offset + from, to - from);
    } else {
      target.write(offset + from, data.limit(to).position(from));
    }
  }

  private void zero(long offset, long length) throws BlockException {
    long needed = zeroNeeded(offset, length);
    if (needed > 0) {
      target.writeZeroes(offset, needed, ZeroMode.MAY_UNMAP);
    }
  }

  /// Bytes of a range of zeroes that have to be written.
  private long zeroNeeded(long offset, long length) {
    return switch (plan.target) {
      case ZERO -> 0;
      case BACKING -> Math.clamp(plan.backingSize - offset, 0L, length);
      case UNKNOWN -> length;
    };
  }
}
