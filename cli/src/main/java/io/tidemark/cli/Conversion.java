// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ZeroMode;
import io.tidemark.block.Zeroes;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import org.jspecify.annotations.Nullable;

/// Copies what guests read in some disks, one behind the other, into a target: one thread reads
/// ahead, the caller writes in order of offset, so that a format lays the clusters of a disk side
/// by side.
///
/// Zeroes are not written where the target reads as zeroes already. The target is not flushed here.
/// When reading or writing fails, the other side is stopped by a flag, never interrupted (a channel
/// would close beneath it), and the failure is thrown; the target then holds any part of the data.
final class Conversion {
  /// Bytes of one read.
  private static final int BUFFER = 1 << 20;

  /// Buffers that are filled or on their way to the target.
  private static final int BUFFERS = 8;

  /// What the target reads as where nothing is written.
  enum Target {
    /// Zeroes: it is new, or said to be.
    ZERO,
    /// Its backing node: unallocated ranges of the source's top layer are left to it.
    BACKING,
    /// Anything: zeroes have to be written.
    UNKNOWN
  }

  /// @param target what the target holds before
  /// @param sparse zeroes shorter than this are written as data, bytes; 0: everything is written
  /// @param backingSize bytes of the target's backing node that may hold something, for `BACKING`
  record Plan(Target target, int sparse, long backingSize) {}

  /// A range of the target.
  ///
  /// @param data its bytes, or null when it is zero
  private record Piece(long offset, long length, @Nullable ByteBuffer data) {}

  private static final Piece END = new Piece(-1, 0, null);

  private final List<? extends BlockNode> sources;
  private final BlockNode target;
  private final Plan plan;
  private final Progress progress;
  private final long total;

  private final BlockingQueue<Piece> pieces = new ArrayBlockingQueue<>(BUFFERS);
  private final BlockingQueue<ByteBuffer> free = new ArrayBlockingQueue<>(BUFFERS);
  private int allocated; // buffers made so far; the reader's
  private volatile boolean stopped; // set by the writer when it gives up
  private volatile @Nullable Throwable readFailure; // set by the reader before END

  Conversion(List<? extends BlockNode> sources, BlockNode target, Plan plan, Progress progress) {
    this.sources = sources;
    this.target = target;
    this.plan = plan;
    this.progress = progress;
    this.total = sources.stream().mapToLong(BlockNode::virtualSize).sum();
  }

  /// Runs to the end. The reader has ended when this returns or throws.
  void run() throws BlockException {
    try (Arena memory = Arena.ofShared()) {
      Thread reader =
          Thread.ofPlatform().name("convert-read").daemon().start(() -> readAll(memory));
      try {
        writeAll();
      } finally {
        stopped = true;
        drain(reader);
      }
    }
    Throwable failure = readFailure;
    switch (failure) {
      case null -> {}
      case BlockException block -> throw block;
      case RuntimeException bug -> throw bug;
      case Error bug -> throw bug;
      default -> throw new IllegalStateException(failure);
    }
  }

  private void readAll(Arena memory) {
    try {
      long base = 0;
      for (BlockNode source : sources) {
        read(source, base, memory);
        base += source.virtualSize();
      }
    } catch (BlockException | RuntimeException | Error failure) {
      readFailure = failure;
    } finally {
      put(pieces, END);
    }
  }

  /// @param base where this source begins in the target
  private void read(BlockNode source, long base, Arena memory) throws BlockException {
    boolean layered = plan.target == Target.BACKING;
    LayerStatus status = layered ? LayerStatus.ofLayer(source) : LayerStatus.ofChain(source);
    long size = source.virtualSize();
    for (long offset = 0; offset < size && !stopped; ) {
      Extent extent = status.at(offset);
      long length = Math.min(extent.end(), size) - offset;
      switch (extent.state()) {
        case DATA -> {
          // Later reads end at multiples of the buffer.
          length = Math.min(length, BUFFER - offset % BUFFER);
          ByteBuffer buffer = buffer(memory).clear().limit((int) length);
          source.read(offset, buffer);
          put(pieces, new Piece(base + offset, length, buffer.flip()));
        }
        case ZERO -> put(pieces, new Piece(base + offset, length, null));
        case UNALLOCATED -> {
          if (!layered || source.backing().isEmpty()) {
            put(pieces, new Piece(base + offset, length, null));
          }
        }
      }
      offset += length;
    }
  }

  /// A free buffer; a new one as long as there are few.
  private ByteBuffer buffer(Arena memory) {
    ByteBuffer waiting = free.poll();
    if (waiting == null && allocated < BUFFERS) {
      allocated++;
      return memory.allocate(BUFFER).asByteBuffer();
    }
    return waiting == null ? take(free) : waiting;
  }

  private void writeAll() throws BlockException {
    for (Piece piece = take(pieces); !piece.equals(END); piece = take(pieces)) {
      ByteBuffer data = piece.data;
      if (data == null) {
        zero(piece.offset, piece.length);
      } else {
        write(piece.offset, data);
        put(free, data);
      }
      progress.update(piece.offset + piece.length, total);
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
      boolean zero = Zeroes.isZero(data.slice(at, step));
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
      target.write(offset + from, data.slice(from, to - from));
    }
  }

  private void zero(long offset, long length) throws BlockException {
    if (plan.sparse == 0) {
      for (long at = offset; at < offset + length; ) {
        int part = (int) Math.min(Zeroes.BLOCK, offset + length - at);
        target.write(at, Zeroes.of(part));
        at += part;
      }
      return;
    }
    long needed =
        switch (plan.target) {
          case ZERO -> 0;
          case BACKING -> Math.clamp(plan.backingSize - offset, 0L, length);
          case UNKNOWN -> length;
        };
    if (needed > 0) {
      target.writeZeroes(offset, needed, ZeroMode.MAY_UNMAP);
    }
  }

  /// Takes what the reader still brings, so that it never waits for room, until it has ended.
  private void drain(Thread reader) {
    while (reader.isAlive()) {
      Piece piece = pieces.poll();
      if (piece != null && piece.data != null) {
        free.offer(piece.data);
      } else if (piece == null) {
        joinBriefly(reader);
      }
    }
  }

  private static void joinBriefly(Thread reader) {
    try {
      reader.join(1);
    } catch (InterruptedException unexpected) {
      throw new IllegalStateException("nobody interrupts a conversion", unexpected);
    }
  }

  private static <T> T take(BlockingQueue<T> queue) {
    try {
      return queue.take();
    } catch (InterruptedException unexpected) {
      throw new IllegalStateException("nobody interrupts a conversion", unexpected);
    }
  }

  private static <T> void put(BlockingQueue<T> queue, T element) {
    try {
      queue.put(element);
    } catch (InterruptedException unexpected) {
      throw new IllegalStateException("nobody interrupts a conversion", unexpected);
    }
  }
}
