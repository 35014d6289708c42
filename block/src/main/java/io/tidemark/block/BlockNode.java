// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Optional;

/// An element of the block graph: bytes `[0, virtualSize)` that can be read and, unless read-only,
/// changed.
///
/// The same interface serves guest-visible disks (a format node, a [Drive], an NBD client) and the
/// file beneath a format. All methods block and may be called by many threads at once. Requests
/// that overlap in range and time may take effect in either order but never tear metadata; ordering
/// overlapping guest requests is [Drive]'s work.
///
/// Offsets and lengths are bytes. A request outside `[0, virtualSize)` is the caller's bug and
/// throws `IllegalArgumentException`; edges (NBD, CLI) check first. No alignment is asked of
/// callers: a node that needs one bounces. A method that throws [BlockException] may have changed
/// any part of its own range, never another's.
///
/// Two `long` parameters stand side by side here, against the house rule, because these calls are
/// the hot path.
public interface BlockNode extends AutoCloseable {
  /// What messages call this node: a path or a URI.
  String name();

  /// Bytes a guest sees.
  long virtualSize();

  boolean readOnly();

  /// Fills `into` from its position to its limit.
  void read(long offset, ByteBuffer into) throws BlockException;

  /// Offers bytes of a range, from its start on, where they lie in memory, piece after piece, until
  /// the borrower leaves some of one or the next cannot be had so. Returns how many were taken; the
  /// others are to be [#read].
  default int lend(long offset, int length, Borrower borrower) {
    return 0;
  }

  /// Writes all remaining bytes of `from`, and consumes them.
  void write(long offset, ByteBuffer from) throws BlockException;

  /// Of [#writeUnit]: more than any request has.
  int UNCUT = 1 << 30;

  /// Bytes in units of which a large write is best cut: a smaller part of one may cost this node as
  /// much as all of it. A power of two.
  default int writeUnit() {
    return 1;
  }

  /// Makes the range read as zeroes.
  void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException;

  /// Gives the range back where the node can. It then reads as zeroes in every node of ours that
  /// accepts the discard (raw files and qcow2 version 3), and is unchanged where it cannot.
  void discard(long offset, long length) throws BlockException;

  /// Whether [#begin] is worth trying: a host file beneath may take requests into a queue.
  default boolean queues() {
    return false;
  }

  /// Begins a request that ends later, where this node can have it done without a thread that
  /// waits. False when it cannot, or not now: nothing has happened, but the request's offset may
  /// have moved; the caller then lets its queue run empty and uses [#read] or [#write]. One that
  /// ended with a failure is made again in the same way, which may succeed, or take its time.
  ///
  /// @throws BlockException when it would fail there as well
  default boolean begin(QueuedRequest request) throws BlockException {
    return false;
  }

  /// Returns when every write that completed before the call began is on stable storage. A flush
  /// that failed once fails from then on, until the node is reopened (rule 8).
  void flush() throws BlockException;

  /// Has the host begin to bring what was written to stable storage, so that a later [#flush] finds
  /// little left. Waits for no more than room in the host's queue, and promises nothing. For those
  /// who write much and flush once: see [WriteBehind].
  default void startWriteBack() throws BlockException {}

  /// Visits what this layer alone holds in the range, clipped to it. Concurrent writes may or may
  /// not be seen.
  void extents(long offset, long length, ExtentVisitor visitor) throws BlockException;

  /// Visits what the chain under this node holds in the range, and which layer of it does.
  default void layers(long offset, long length, Extents.LayerVisitor visitor)
      throws BlockException {
    Extents.walk(this, offset, length, visitor);
  }

  /// The node that answers for what this layer does not hold.
  default Optional<BlockNode> backing() {
    return Optional.empty();
  }

  /// Sets the size. New bytes read as zeroes; cut ones are gone.
  default void resize(long newSize) throws BlockException {
    throw new UnsupportedImageException(name() + ": this kind of node cannot be resized");
  }

  /// Makes an open node read-only or writable, with the readers that it has; requests that arrive
  /// meanwhile wait. To become read-only it first brings all that it holds into its file, and
  /// flushes it. To become writable it takes the locks of a writer and reads what a fresh opening
  /// for writing would read: a log of a process that died is brought in. Asking for what the node
  /// is already does nothing.
  ///
  /// A thread inside a request of this node may not call it. When it throws, the node is what it
  /// was.
  ///
  /// @throws ImageBusyException when another holder's image lock excludes writing
  /// @throws UnsupportedImageException when this kind of node cannot change
  default void reopen(boolean wantReadOnly) throws BlockException {
    if (wantReadOnly != readOnly()) {
      throw new UnsupportedImageException(
          name()
              + ": this kind of node cannot be reopened "
              + (wantReadOnly ? "read-only" : "for writing"));
    }
  }

  /// Bytes the image takes on the host, or -1 when unknown.
  default long allocatedBytes() throws BlockException {
    return -1;
  }

  /// Flushes nothing by itself beyond what the format needs to be consistent; releases locks,
  /// descriptors and the backing chain that this node owns. Closing twice is harmless.
  @Override
  void close() throws BlockException;
}
