// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ByteRange;
import io.tidemark.block.CopyBuffer;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.Extents;
import io.tidemark.block.GuestWrite;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.RangeLock;
import io.tidemark.block.TransportException;
import io.tidemark.block.WriteFilter;
import io.tidemark.block.Zeroes;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;

/// A drive as it was at one instant, as far as it is still wanted: copy-before-write into a local
/// scratch.
///
/// **Invariant.** A granule that is wanted and not saved has not changed since the instant. It
/// holds because the filter came into the drive's write path while the drive was drained, and
/// because [#before] returns only when each wanted granule that its write touches is saved. So
/// whoever holds a granule's lock and finds it wanted and not saved may read it from the drive's
/// root: no guest write to any part of it can have passed. The granule's lock is needed beside the
/// drive's range, since two guest writes into one granule need not overlap.
///
/// Order of locks: the drive's range (guest) → granules → nothing. The copy takes granules only.
///
/// Whoever only reads ([#read], [#extents], of a view whose granules all stay wanted) takes no
/// lock, so no guest waits for a reader: it reads the root first and looks at the saved bits then.
/// A granule that is still not saved had not changed when it was read, since its bit is set before
/// the write that changes it; one that is saved by then is read again from the scratch. A view that
/// is inactive by then answers nothing, since writes no longer save.
///
/// A saved granule is in the scratch and stays until [#release], or is known to be all zeroes and
/// takes no space. After a failure (`failed` is called once or more) nothing is saved any more and
/// the view is worthless; guest writes go on as if it were not there.
final class FrozenView implements WriteFilter {
  /// Most bytes that one step reads while it holds granules.
  static final int STEP_BYTES = CopyBuffer.BYTES;

  /// Bytes that one step of [#read] reads before it looks at what was saved meanwhile.
  private static final int READ_BYTES = 1 << 20;

  /// The same of [#extents].
  private static final long EXTENT_BYTES = 64L << 20;

  /// Where the old bytes of a part of a step are.
  enum Place {
    /// In the step's buffer, at the part's distance from the step's start.
    BUFFER,
    SCRATCH,
    ZERO
  }

  record Part(Place place, long offset, long length) {
    long end() {
      return offset + length;
    }
  }

  private final Drive source;
  private final BlockNode scratch;
  private final long scratchLimitBytes;
  private final Consumer<Throwable> failed;
  private final RangeLock granules = new RangeLock();
  private final DirtyBitmap wanted;
  private final DirtyBitmap saved;
  private final DirtyBitmap zero;
  private final AtomicLong scratchBytes = new AtomicLong();
  private final AtomicLong keptBytes = new AtomicLong();
  private final ConcurrentLinkedQueue<ByteBuffer> buffers = new ConcurrentLinkedQueue<>();
  private volatile boolean active = true;
  private volatile boolean scratchUsed;

  /// @param wanted what is to be kept, granularity at most [#STEP_BYTES]; the view's own from here
  ///   on
  FrozenView(
      Drive source,
      DirtyBitmap wanted,
      BlockNode scratch,
      long scratchLimitBytes,
      Consumer<Throwable> failed) {
    this.source = source;
    this.scratch = scratch;
    this.scratchLimitBytes = scratchLimitBytes;
    this.failed = failed;
    this.wanted = wanted;
    this.saved = new DirtyBitmap("saved", wanted.size(), wanted.granularity());
    this.zero = new DirtyBitmap("zero", wanted.size(), wanted.granularity());
  }

  /// Saves nothing from now on.
  void deactivate() {
    active = false;
  }

  long scratchBytes() {
    return scratchBytes.get();
  }

  /// Bytes that were saved since the instant, zeroes included.
  long keptBytes() {
    return keptBytes.get();
  }

  long size() {
    return wanted.size();
  }

  @Override
  public void before(GuestWrite write) {
    if (!active || write.length() == 0) {
      return;
    }
    try {
      save(write.offset(), write.offset() + write.length());
    } catch (BlockException | RuntimeException | Error e) {
      // In this order: as long as the job may still succeed, everyone else goes on saving.
      failed.accept(e);
      active = false;
    }
  }

  private void save(long offset, long end) throws BlockException {
    long from = offset;
    while (from < end && active) {
      Optional<ByteRange> next = wanted.nextDirty(from, STEP_BYTES);
      if (next.isEmpty() || next.get().offset() >= end) {
        return;
      }
      ByteRange step = clip(next.get(), end);
      if (!unsaved(step).isEmpty()) {
        try (var _ = granules.lock(step.offset(), step.length())) {
          for (ByteRange run : unsaved(step)) {
            saveRun(run);
          }
        }
      }
      from = step.end();
    }
  }

  /// Cut at the first granule's border at or after `end`.
  private ByteRange clip(ByteRange range, long end) {
    long mask = wanted.granularity() - 1L;
    long stop = Math.min(range.end(), (end + mask) & ~mask);
    return new ByteRange(range.offset(), stop - range.offset());
  }

  /// Runs of granules in the step that are wanted and not saved.
  private List<ByteRange> unsaved(ByteRange step) {
    List<ByteRange> runs = new ArrayList<>();
    forGranules(
        step,
        (offset, length) -> {
          if (wanted.isDirty(offset) && !saved.isDirty(offset)) {
            append(runs, offset, length);
          }
        });
    return runs;
  }

  private interface GranuleVisitor {
    void visit(long offset, long length);
  }

  private void forGranules(ByteRange step, GranuleVisitor visitor) {
    long granule = wanted.granularity();
    for (long at = step.offset(); at < step.end(); at += granule) {
      visitor.visit(at, Math.min(granule, step.end() - at));
    }
  }

  private static void append(List<ByteRange> runs, long offset, long length) {
    int last = runs.size() - 1;
    if (last >= 0 && runs.get(last).end() == offset) {
      runs.set(last, new ByteRange(runs.get(last).offset(), runs.get(last).length() + length));
    } else {
      runs.add(new ByteRange(offset, length));
    }
  }

  /// Holding the run.
  private void saveRun(ByteRange run) throws BlockException {
    List<ByteRange> zeroes = zeroGranules(run);
    for (ByteRange range : zeroes) {
      zero.set(range.offset(), range.length());
    }
    long at = run.offset();
    for (ByteRange range : zeroes) {
      saveData(at, range.offset());
      at = range.end();
    }
    saveData(at, run.end());
    saved.set(run.offset(), run.length());
    keptBytes.addAndGet(run.length());
  }

  private void saveData(long from, long to) throws BlockException {
    if (from == to) {
      return;
    }
    long length = to - from;
    if (scratchBytes.addAndGet(length) > scratchLimitBytes) {
      scratchBytes.addAndGet(-length);
      // A bound that was set, not a device that is full: clients are told the words.
      throw new TransportException(
          "%s: backup scratch %s is at its limit of %d bytes: the guest overwrote more"
              .formatted(source.name(), scratch.name(), scratchLimitBytes));
    }
    scratchUsed = true;
    ByteBuffer pooled = buffers.poll();
    ByteBuffer buffer = pooled == null ? CopyBuffer.make() : pooled;
    try {
      buffer.clear().limit((int) length);
      source.root().read(from, buffer);
      writeScratch(from, buffer.flip());
    } finally {
      buffers.add(buffer);
    }
  }

  /// Its failure names the scratch: clients would take a full one for a full target.
  private void writeScratch(long offset, ByteBuffer bytes) throws BlockException {
    try {
      scratch.write(offset, bytes);
    } catch (OutOfSpaceException e) {
      throw new TransportException(
          "%s: backup scratch %s: No space left on device".formatted(source.name(), scratch.name()),
          e);
    }
  }

  /// Runs of whole granules that read as zeroes without being read.
  private List<ByteRange> zeroGranules(ByteRange range) throws BlockException {
    List<ByteRange> runs = new ArrayList<>();
    Extents.walk(
        source.root(),
        range.offset(),
        range.length(),
        (extent, _, _) -> {
          if (extent.state() != Extent.State.DATA) {
            append(runs, extent.offset(), extent.length());
          }
          return true;
        });
    long mask = wanted.granularity() - 1L;
    List<ByteRange> whole = new ArrayList<>();
    for (ByteRange run : runs) {
      long from = (run.offset() + mask) & ~mask;
      long to = run.end() == wanted.size() ? run.end() : run.end() & ~mask;
      if (to > from) {
        whole.add(new ByteRange(from, to - from));
      }
    }
    return whole;
  }

  /// The next wanted range at or after `from`, at most `most` bytes (and one granule at least).
  Optional<ByteRange> next(long from, long most) {
    return from < wanted.size() ? wanted.nextDirty(from, most) : Optional.empty();
  }

  /// Gives up what in the window is wanted, not saved, and zero without being read; used to skip
  /// holes in large steps.
  ///
  /// @return the bytes given up
  long skipZeroes(ByteRange window) throws BlockException {
    long skipped = 0;
    try (var _ = granules.lock(window.offset(), window.length())) {
      for (ByteRange run : zeroGranules(window)) {
        for (ByteRange range : unsaved(run)) {
          wanted.clear(range.offset(), range.length());
          skipped += range.length();
        }
      }
    }
    return skipped;
  }

  /// Takes a range (from [#next]) out of the view: what the drive still holds is read into
  /// `buffer`, and the guest may change it from then on. What is in the scratch stays until
  /// [#release].
  List<Part> take(ByteRange range, ByteBuffer buffer) throws BlockException {
    List<Part> parts = new ArrayList<>();
    try (var _ = granules.lock(range.offset(), range.length())) {
      forGranules(
          range,
          (offset, length) -> {
            if (saved.isDirty(offset)) {
              add(parts, zero.isDirty(offset) ? Place.ZERO : Place.SCRATCH, offset, length);
            } else {
              add(parts, Place.BUFFER, offset, length);
            }
          });
      List<Part> read = new ArrayList<>();
      for (Part part : parts) {
        if (part.place() == Place.BUFFER) {
          read(part, range.offset(), buffer, read);
        } else {
          read.add(part);
        }
      }
      wanted.clear(range.offset(), range.length());
      return read;
    }
  }

  private void read(Part part, long start, ByteBuffer buffer, List<Part> into)
      throws BlockException {
    long at = part.offset();
    for (ByteRange hole : zeroGranules(new ByteRange(part.offset(), part.length()))) {
      readData(at, hole.offset(), start, buffer, into);
      add(into, Place.ZERO, hole.offset(), hole.length());
      at = hole.end();
    }
    readData(at, part.end(), start, buffer, into);
  }

  private void readData(long from, long to, long start, ByteBuffer buffer, List<Part> into)
      throws BlockException {
    if (from < to) {
      source.root().read(from, buffer.clear().slice((int) (from - start), (int) (to - from)));
      add(into, Place.BUFFER, from, to - from);
    }
  }

  private static void add(List<Part> parts, Place place, long offset, long length) {
    int last = parts.size() - 1;
    if (last >= 0 && parts.get(last).place() == place && parts.get(last).end() == offset) {
      Part before = parts.get(last);
      parts.set(last, new Part(place, before.offset(), before.length() + length));
    } else {
      parts.add(new Part(place, offset, length));
    }
  }

  /// Reads the old bytes. Only of a view of everything, from which nothing is taken.
  void read(long offset, ByteBuffer into) throws BlockException {
    int start = into.position();
    long end = offset + into.remaining();
    for (long at = offset; at < end; ) {
      long stop = Math.min(end, at + READ_BYTES - at % READ_BYTES);
      readStep(at, into.slice(start + (int) (at - offset), (int) (stop - at)));
      at = stop;
    }
    into.position(into.limit());
  }

  private void readStep(long offset, ByteBuffer into) throws BlockException {
    long end = offset + into.remaining();
    eachRun(
        offset,
        end,
        (from, to, isSaved) -> {
          if (!isSaved) {
            source.root().read(from, into.slice((int) (from - offset), (int) (to - from)));
          }
        });
    VarHandle.acquireFence(); // what was read, before the bits that say whether it was too late
    eachRun(
        offset,
        end,
        (from, to, isSaved) -> {
          if (isSaved) {
            readSaved(from, into.slice((int) (from - offset), (int) (to - from)));
          }
        });
    requireActive();
  }

  /// Runs of granules that are or are not saved now, clipped to the range.
  private void eachRun(long offset, long end, RunVisitor visitor) throws BlockException {
    long granule = wanted.granularity();
    long from = offset;
    boolean isSaved = saved.isDirty(offset);
    for (long at = offset - offset % granule + granule; at < end; at += granule) {
      if (saved.isDirty(at) != isSaved) {
        visitor.visit(from, at, isSaved);
        isSaved = !isSaved;
        from = at;
      }
    }
    if (from < end) {
      visitor.visit(from, end, isSaved);
    }
  }

  private interface RunVisitor {
    void visit(long from, long to, boolean isSaved) throws BlockException;
  }

  private void readSaved(long offset, ByteBuffer into) throws BlockException {
    long granule = wanted.granularity();
    long end = offset + into.remaining();
    for (long from = offset; from < end; ) {
      boolean isZero = zero.isDirty(from);
      long to = Math.min(end, from - from % granule + granule);
      while (to < end && zero.isDirty(to) == isZero) {
        to = Math.min(end, to + granule);
      }
      ByteBuffer part = into.slice((int) (from - offset), (int) (to - from));
      if (isZero) {
        Zeroes.fill(part);
      } else {
        scratch.read(from, part);
      }
      from = to;
    }
  }

  /// What the drive held where at the instant: `DATA`, or what reads as zeroes. Only of a view of
  /// everything, from which nothing is taken.
  void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    long end = offset + length;
    boolean more = true;
    for (long at = offset; more && at < end; ) {
      long stop = Math.min(end, at + EXTENT_BYTES - at % EXTENT_BYTES);
      for (Extent extent : extentsOf(at, stop)) {
        more = more && visitor.visit(extent);
      }
      at = stop;
    }
  }

  private List<Extent> extentsOf(long offset, long end) throws BlockException {
    List<Extent> now = new ArrayList<>();
    Extents.walk(
        source.root(),
        offset,
        end - offset,
        (extent, _, _) -> {
          now.add(extent);
          return true;
        });
    VarHandle.acquireFence(); // as in readStep
    List<Extent> then = new ArrayList<>();
    for (Extent extent : now) {
      eachRun(
          extent.offset(),
          extent.end(),
          (from, to, isSaved) -> {
            if (isSaved) {
              addSaved(then, from, to);
            } else {
              Extent.State state =
                  extent.state() == Extent.State.DATA ? Extent.State.DATA : Extent.State.ZERO;
              addExtent(then, from, to, state);
            }
          });
    }
    requireActive();
    return then;
  }

  private void addSaved(List<Extent> into, long from, long to) {
    long granule = wanted.granularity();
    for (long at = from; at < to; ) {
      long next = Math.min(to, at - at % granule + granule);
      addExtent(into, at, next, zero.isDirty(at) ? Extent.State.ZERO : Extent.State.DATA);
      at = next;
    }
  }

  private static void addExtent(List<Extent> into, long from, long to, Extent.State state) {
    if (!into.isEmpty() && into.getLast().state() == state) {
      long start = into.removeLast().offset();
      into.add(new Extent(start, to - start, state, -1, false));
    } else {
      into.add(new Extent(from, to - from, state, -1, false));
    }
  }

  private void requireActive() throws BlockException {
    VarHandle.acquireFence();
    if (!active) {
      throw new TransportException(source.name() + ": its frozen view is not kept any more");
    }
  }

  /// Reads a part that is in the scratch.
  void readScratch(Part part, ByteBuffer into) throws BlockException {
    scratch.read(part.offset(), into);
  }

  /// Gives back the space of a part that was copied.
  void release(Part part) throws BlockException {
    scratch.discard(part.offset(), part.length());
    saved.clear(part.offset(), part.length());
    scratchBytes.addAndGet(-part.length());
  }

  /// Gives back whatever the scratch still holds, also what [#release] gave back in pieces too
  /// small for it. Only when nothing uses the view any more.
  void clear() throws BlockException {
    active = false;
    saved.clear(0, saved.size());
    scratchBytes.set(0);
    if (scratchUsed) {
      scratch.discard(0, scratch.virtualSize());
    }
  }
}
