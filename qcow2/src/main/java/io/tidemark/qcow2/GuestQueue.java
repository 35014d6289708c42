// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.Gate;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.RangeLock;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// Guest requests that go on into the queue of the file beneath, or of the backing node, while
/// their thread does something else ([io.tidemark.block.BlockNode#begin]): reads, writes of bytes
/// that have their place, each in one piece there, and the writes that [QueuedPlaces] gives one.
/// Whatever needs more, a table that is not in memory, a copy, a decompression, is not begun, and
/// runs as ever.
///
/// From the look at the mapping until the request ends it counts as inside the image's gate and
/// holds an [InFlight] ticket, as one that runs on its thread does: no host cluster under it is
/// used for something else, and the image is not reorganised. Nothing here waits.
///
/// On disk a write to its place changes the guest's bytes, and nothing else.
///
/// Any thread may call.
final class GuestQueue {
  private static final int INSIDE = Integer.SIZE; // where the gate's ticket is

  private final Qcow2Image image;
  private final Gate gate;
  private final InFlight<List<Freed>> inFlight;
  private final Backing backing;
  private final QueuedRequest.Ending leaving = this::leave;

  GuestQueue(Qcow2Image image, Gate gate, InFlight<List<Freed>> inFlight, Backing backing) {
    this.image = image;
    this.gate = gate;
    this.inFlight = inFlight;
    this.backing = backing;
  }

  /// See [io.tidemark.block.BlockNode#begin].
  boolean begin(QueuedRequest request) throws BlockException {
    if (!request.takesEnding()) {
      return false;
    }
    int inside = gate.tryEnter();
    if (inside < 0) {
      return false;
    }
    int ticket = inFlight.enter();
    int mark = request.mark();
    boolean begun = false;
    try {
      OpenImage now = image.now();
      long end = now.header.now().virtualSize();
      if (request.offset() >= 0
          && request.offset() <= end - request.length()
          && (!request.write() || now.takesWrites())) {
        request.atEnd(leaving, (long) inside << INSIDE | ticket, null);
        begun = pass(now, request);
      }
      return begun;
    } finally {
      if (!begun) {
        request.forget(mark);
        leave(inside, ticket);
      }
    }
  }

  private void leave(
      QueuedRequest request, boolean done, long tickets, RangeLock.@Nullable Held range) {
    leave((int) (tickets >>> INSIDE), (int) tickets);
  }

  private void leave(int inside, int ticket) {
    inFlight.exit(ticket);
    gate.leave(inside);
  }

  /// Hands a request on to where its bytes are.
  private boolean pass(OpenImage now, QueuedRequest request) throws BlockException {
    Geometry geometry = now.geometry;
    long offset = request.offset();
    long unit = offset >>> geometry.unitBits();
    long last = (offset + request.length() - 1) >>> geometry.unitBits();
    long entry = now.tables.unitAtHand(unit);
    if (request.write() && entry != L2Table.CONTRADICTION && !L2Entry.writable(entry)) {
      return now.queuedPlaces.begin(request);
    }
    boolean whole = fits(entry, request);
    for (long next = 1; whole && unit + next <= last; next++) {
      long other = now.tables.unitAtHand(unit + next);
      whole = fits(other, request) && L2Entry.continues(entry, unit, other, next, geometry);
    }
    if (!whole) {
      return false;
    }
    return switch (L2Entry.kind(entry)) {
      case DATA ->
          geometry.aligned(L2Entry.host(entry))
              && now.data.begin(L2Entry.host(entry) + geometry.within(offset), request);
      case UNALLOCATED -> backing.begin(request);
      case ZERO_PLAIN, ZERO_ALLOCATED -> {
        boolean known = geometry.version() >= 3;
        if (known) {
          request.endAsZeroes();
        }
        yield known;
      }
      case COMPRESSED -> false;
    };
  }

  private static boolean fits(long entry, QueuedRequest request) {
    return entry != L2Table.CONTRADICTION && (!request.write() || L2Entry.writable(entry));
  }
}
