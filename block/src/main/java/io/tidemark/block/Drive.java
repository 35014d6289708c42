// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.LongAdder;
import org.jspecify.annotations.Nullable;

/// The guest-facing root of a disk: it stays while what is beneath changes.
///
/// Every guest request is counted in flight, so that the drive can be drained; every change (write,
/// zero, discard) locks its range, runs through the filters, and marks the dirty bitmaps before the
/// node beneath is asked.
///
/// **Order of locks**, outermost first: in flight → range → whatever the node beneath takes. From
/// it follows who may wait for whom:
/// - A guest change waits for a job's range *while it is in flight*. So a drain may have to wait
///   until that job lets go, and a job that holds a range must be able to let go by itself: it
///   works on [#root], which no drain holds, and neither drains, nor waits for a drain to end, nor
///   asks the drive for anything, nor asks for a second range while it holds one.
/// - Once drained, no guest change holds or waits for a range; what [#lockRange] then waits for is
///   only other jobs.
/// - A filter runs in flight with the range locked: it may use other nodes and [#root], and must
///   not call the drive.
/// - Reads take no range: a read beside an overlapping change may see old bytes, new ones or both,
///   as on a real disk.
///
/// Who is in flight and who waits is [Flight]'s; what becomes of a request that failed is
/// [FailedRequests]'s.
public final class Drive implements BlockNode {
  /// While open no guest request runs; new ones wait. Drains nest, also those of several threads.
  public interface Drained extends AutoCloseable {
    @Override
    void close();
  }

  private final String name;
  private final Flight flight;
  private final FailedRequests failed;
  private final RangeLock ranges = new RangeLock();

  /// Held while `filters` or `bitmaps` is replaced, so that none is lost. Innermost.
  private final Object following = new Object();

  // Replaced while drained only (a bitmap may go at any time), so that a request in flight sees one
  // state from start to end.
  private volatile BlockNode root;
  private volatile WriteFilter[] filters = {};
  private volatile DirtyBitmap[] bitmaps = {};

  // Null while the guest is not limited.
  private volatile @Nullable Throttle throttle;

  private final LongAdder readOperations = new LongAdder();
  private final LongAdder readBytes = new LongAdder();
  private final LongAdder readNanos = new LongAdder();
  private final LongAdder writeOperations = new LongAdder();
  private final LongAdder writeBytes = new LongAdder();
  private final LongAdder writeNanos = new LongAdder();
  private final LongAdder flushOperations = new LongAdder();
  private final LongAdder flushNanos = new LongAdder();

  public Drive(String name, BlockNode root) {
    this.name = name;
    this.root = root;
    this.flight = new Flight(name);
    this.failed = new FailedRequests(flight);
  }

  @Override
  public String name() {
    return name;
  }

  @Override
  public long virtualSize() {
    return root.virtualSize();
  }

  @Override
  public boolean readOnly() {
    return root.readOnly();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    int length = into.remaining();
    admit(false, length);
    try {
      readOnce(offset, into);
    } catch (BlockException e) {
      if (!failed.again(e, true, () -> readOnce(offset, into))) {
        Zeroes.fill(into);
        return;
      }
    }
    readBytes.add(length);
  }

  private void readOnce(long offset, ByteBuffer into) throws BlockException {
    int position = into.position();
    int limit = into.limit();
    long start = flight.enter();
    boolean done = false;
    try {
      root.read(offset, into);
      done = true;
    } finally {
      if (!done) {
        into.limit(limit).position(position);
      }
      flight.leave();
      count(done, readOperations, readNanos, start);
    }
  }

  /// What is limited, or would have to wait for a drain, is not lent.
  @Override
  public int lend(long offset, int length, Borrower borrower) {
    if (throttle != null || !flight.tryEnter()) {
      return 0;
    }
    long start = System.nanoTime();
    int taken = 0;
    try {
      taken = root.lend(offset, length, borrower);
    } finally {
      flight.leave();
      count(taken == length, readOperations, readNanos, start);
    }
    readBytes.add(taken);
    return taken;
  }

  /// Makes no object while there is no filter.
  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    int position = from.position();
    int length = from.remaining();
    admit(true, length);
    try {
      writeOnce(offset, from);
    } catch (BlockException e) {
      if (!failed.again(e, false, () -> writeOnce(offset, from))) {
        from.position(position + length);
        return;
      }
    }
    writeBytes.add(length);
  }

  private void writeOnce(long offset, ByteBuffer from) throws BlockException {
    int position = from.position();
    int length = from.remaining();
    long start = flight.enter();
    boolean done = false;
    try {
      BlockNode node = root;
      checkChange(node, offset, length);
      RangeLock.Entry range = ranges.take(offset, length);
      try {
        mark(offset, length);
        WriteFilter[] present = filters;
        if (present.length == 0) {
          node.write(offset, from);
        } else {
          applyFiltered(new GuestWrite.Data(offset, from.asReadOnlyBuffer()), node, present);
        }
      } finally {
        ranges.letGo(range);
      }
      done = true;
    } finally {
      from.position(done ? position + length : position);
      flight.leave();
      count(done, writeOperations, writeNanos, start);
    }
  }

  /// Marks a range in every bitmap that records.
  private void mark(long offset, long length) {
    for (DirtyBitmap bitmap : bitmaps) {
      bitmap.record(offset, length);
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    change(new GuestWrite.Zeroes(offset, length, mode));
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    change(new GuestWrite.Discard(offset, length));
  }

  private void change(GuestWrite write) throws BlockException {
    long length = write.length();
    admit(true, length);
    try {
      changeOnce(write, length);
    } catch (BlockException e) {
      if (!failed.again(e, false, () -> changeOnce(write, length))) {
        return;
      }
    }
    writeBytes.add(length);
  }

  private void changeOnce(GuestWrite write, long length) throws BlockException {
    long start = flight.enter();
    boolean done = false;
    try {
      BlockNode node = root;
      checkChange(node, write.offset(), length);
      try (var _ = ranges.lock(write.offset(), length)) {
        mark(write.offset(), length);
        applyFiltered(write, node, filters);
      }
      done = true;
    } finally {
      flight.leave();
      count(done, writeOperations, writeNanos, start);
    }
  }

  /// What becomes of requests that fail from now on; without one the guest is told of each.
  public void onFailure(FailurePolicy policy) {
    failed.goBy(policy);
  }

  /// What is limited is not cut: each part would count.
  @Override
  public int writeUnit() {
    return throttle == null ? root.writeUnit() : UNCUT;
  }

  @Override
  public boolean queues() {
    return root.queues();
  }

  /// A request that is limited, filtered, or would have to wait for a drain or a range is not
  /// begun. What becomes of one that fails is decided when it is made again.
  @Override
  public boolean begin(QueuedRequest request) throws BlockException {
    if (throttle != null) {
      return false;
    }
    long start = System.nanoTime();
    if (!flight.tryEnter()) {
      return false;
    }
    int mark = request.mark();
    RangeLock.Held range = null;
    boolean begun = false;
    try {
      BlockNode node = root;
      if (request.write()) {
        long offset = request.offset();
        int length = request.length();
        checkChange(node, offset, length);
        Optional<RangeLock.Held> free =
            filters.length > 0 ? Optional.empty() : ranges.tryLock(offset, length);
        if (free.isEmpty()) {
          return false;
        }
        range = free.get();
        mark(offset, length);
      }
      request.atEnd(this::ended, start, range);
      begun = node.begin(request);
      return begun;
    } finally {
      if (!begun) {
        request.forget(mark);
        if (range != null) {
          range.close();
        }
        flight.leave();
      }
    }
  }

  private void ended(
      QueuedRequest request, boolean done, long start, RangeLock.@Nullable Held range) {
    if (range != null) {
      range.close();
    }
    flight.leave();
    if (request.write()) {
      count(done, writeOperations, writeNanos, start);
    } else {
      count(done, readOperations, readNanos, start);
    }
    if (done) {
      (request.write() ? writeBytes : readBytes).add(request.length());
    }
  }

  /// Before the request is in flight, so that no drain waits for a request that is held here.
  private void admit(boolean write, long length) {
    Throttle held = throttle;
    if (held != null) {
      held.admit(write, length, () -> flight.closed() || throttle != held);
    }
  }

  /// Limits guest reads and changes from now on; flushes are not limited. Requests that wait go by
  /// the new limits.
  ///
  /// @param limits empty: none
  public void throttle(Optional<Throttle> limits) {
    Throttle before = throttle;
    throttle = limits.orElse(null);
    if (before != null) {
      before.wake();
    }
  }

  private void checkChange(BlockNode node, long offset, long length) throws BlockException {
    if (node.readOnly()) {
      throw new ReadOnlyNodeException(name + ": " + node.name() + " is read-only");
    }
    if (offset < 0 || length < 0 || offset > node.virtualSize() - length) {
      throw new IllegalArgumentException(
          name + ": " + length + " bytes at " + offset + " of " + node.virtualSize());
    }
  }

  /// Every filter whose `before` was called learns the outcome, whatever the others do. A filter
  /// that throws is a bug of ours and not hidden: the request ends with it.
  private static void applyFiltered(GuestWrite write, BlockNode node, WriteFilter[] filters)
      throws BlockException {
    int told = 0;
    boolean done = false;
    try {
      while (told < filters.length) {
        filters[told++].before(write);
      }
      write.applyTo(node);
      done = true;
    } finally {
      tell(write, filters, told, done);
    }
  }

  private static void tell(GuestWrite write, WriteFilter[] filters, int told, boolean done) {
    if (told == 0) {
      return;
    }
    try {
      if (done) {
        filters[told - 1].after(write);
      } else {
        filters[told - 1].failed(write);
      }
    } finally {
      tell(write, filters, told - 1, done);
    }
  }

  @Override
  public void flush() throws BlockException {
    try {
      flushOnce();
    } catch (BlockException e) {
      boolean _ = failed.again(e, false, this::flushOnce);
    }
  }

  private void flushOnce() throws BlockException {
    long start = flight.enter();
    boolean done = false;
    try {
      root.flush();
      done = true;
    } finally {
      flight.leave();
      count(done, flushOperations, flushNanos, start);
    }
  }

  private static void count(boolean done, LongAdder operations, LongAdder nanos, long start) {
    if (done) {
      operations.increment();
      nanos.add(System.nanoTime() - start);
    }
  }

  /// The guest's view of the whole chain: no extent is `UNALLOCATED` but where the last layer says
  /// so. The visitor runs in flight: it must not drain the drive.
  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    flight.enter();
    try {
      Extents.walk(root, offset, length, (extent, _, _) -> visitor.visit(extent));
    } finally {
      flight.leave();
    }
  }

  /// The chain under the guest's view, layer by layer, in flight like [#extents].
  @Override
  public void layers(long offset, long length, Extents.LayerVisitor visitor) throws BlockException {
    flight.enter();
    try {
      Extents.walk(root, offset, length, visitor);
    } finally {
      flight.leave();
    }
  }

  @Override
  public long allocatedBytes() throws BlockException {
    return root.allocatedBytes();
  }

  /// Drains, and closes the root. Requests that come later, or were held by a drain, fail.
  @Override
  public void close() throws BlockException {
    try (var _ = drain()) {
      if (flight.close()) {
        endWaits();
        root.close();
      }
    }
  }

  /// Ends the drive and leaves its root open: requests that come later, or are held, fail. Only
  /// while drained by the caller.
  public void retire() {
    flight.requireDrained("retire");
    boolean _ = flight.close();
    endWaits();
  }

  private void endWaits() {
    throttle(Optional.empty());
    failed.end();
  }

  /// Waits for the requests in flight and holds new ones, guest flushes too. Jobs that use [#root]
  /// are not held. Never called by a thread that holds a range or runs a request of this drive.
  public Drained drain() {
    return flight.drain();
  }

  /// The node beneath, for jobs: reads and writes on it pass by the filters, the bitmaps and the
  /// drain.
  public BlockNode root() {
    return root;
  }

  /// Puts another node of the same size beneath. Only while drained by the caller. The old one is
  /// not closed.
  public void repoint(BlockNode newRoot) {
    flight.requireDrained("repoint");
    if (newRoot.virtualSize() != root.virtualSize()) {
      throw new IllegalArgumentException(
          name
              + ": repoint from "
              + root.virtualSize()
              + " to "
              + newRoot.virtualSize()
              + " bytes");
    }
    root = newRoot;
  }

  /// Holds a range against guest changes: a background copy's extent from its read to its write.
  /// See above for what the holder must not do.
  public RangeLock.Held lockRange(long offset, long length) {
    return ranges.lock(offset, length);
  }

  /// Adds or removes a filter. Only while drained by the caller. Filters run `before` in order of
  /// adding, `after` in the reverse.
  public void addFilter(WriteFilter filter) {
    flight.requireDrained("add filter");
    synchronized (following) {
      var list = new ArrayList<>(List.of(filters));
      list.add(filter);
      filters = list.toArray(WriteFilter[]::new);
    }
  }

  public void removeFilter(WriteFilter filter) {
    flight.requireDrained("remove filter");
    synchronized (following) {
      var list = new ArrayList<>(List.of(filters));
      if (!list.remove(filter)) {
        throw new IllegalArgumentException(name + ": no such filter");
      }
      filters = list.toArray(WriteFilter[]::new);
    }
  }

  /// Adds a bitmap that records guest changes while it is enabled. Only while drained by the
  /// caller. Names are unique.
  public void addBitmap(DirtyBitmap bitmap) {
    flight.requireDrained("add bitmap");
    if (bitmap.size() != virtualSize()) {
      throw new IllegalArgumentException(
          name
              + ": bitmap "
              + bitmap.name()
              + " covers "
              + bitmap.size()
              + " of "
              + virtualSize()
              + " bytes");
    }
    synchronized (following) {
      var list = new ArrayList<>(List.of(bitmaps));
      if (list.stream().anyMatch(b -> b.name().equals(bitmap.name()))) {
        throw new IllegalArgumentException(name + ": bitmap " + bitmap.name() + " exists already");
      }
      list.add(bitmap);
      bitmaps = list.toArray(DirtyBitmap[]::new);
    }
  }

  /// Takes a bitmap away. A change in flight may still mark it.
  public Optional<DirtyBitmap> removeBitmap(String bitmapName) {
    synchronized (following) {
      var list = new ArrayList<>(List.of(bitmaps));
      Optional<DirtyBitmap> found =
          list.stream().filter(b -> b.name().equals(bitmapName)).findFirst();
      if (found.isPresent()) {
        list.remove(found.get());
        bitmaps = list.toArray(DirtyBitmap[]::new);
      }
      return found;
    }
  }

  public List<DirtyBitmap> bitmaps() {
    return List.of(bitmaps);
  }

  /// Counts since the drive was made.
  public IoStatistics statistics() {
    return new IoStatistics(
        readOperations.sum(),
        readBytes.sum(),
        readNanos.sum(),
        writeOperations.sum(),
        writeBytes.sum(),
        writeNanos.sum(),
        flushOperations.sum(),
        flushNanos.sum(),
        failed.told());
  }
}
