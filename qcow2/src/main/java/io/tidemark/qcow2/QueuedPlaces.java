// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.QueuedRequest;
import io.tidemark.block.RangeLock;
import io.tidemark.block.TransportException;
import org.jspecify.annotations.Nullable;

/// Guest writes in the queue of the image's file that give their clusters places: the common case
/// of what [GuestWrites] does, with the same steps and the same on disk after each. Nothing here
/// waits; what would have to, runs there.
///
/// It is the common case where counted places in a row are at hand, the one L2 table is in memory,
/// and nothing has to be copied: the write is whole clusters, or what is left of them reads as zero
/// and so do the places. The guest clusters stay locked while the write is in flight; the entries
/// change when it has ended, before the guest is told.
///
/// Callers hold an [InFlight] ticket, and keep it until the request has ended.
final class QueuedPlaces {
  private final HostFile data; // the image's file, or its data file
  private final Geometry geometry;
  private final MappingTables tables;
  private final GuestWrites writes;

  QueuedPlaces(HostFile data, Geometry geometry, MappingTables tables, GuestWrites writes) {
    this.data = data;
    this.geometry = geometry;
    this.tables = tables;
    this.writes = writes;
  }

  /// See [io.tidemark.block.BlockNode#begin].
  boolean begin(QueuedRequest request) throws BlockException {
    long cluster = request.offset() >>> geometry.clusterBits();
    long last = (request.offset() + request.length() - 1) >>> geometry.clusterBits();
    if (geometry.extendedL2()
        || last - cluster >= MappingTables.MAX_CHANGE
        || tables.l1Index(last) != tables.l1Index(cluster)
        || writes.pressed()) {
      return false;
    }
    int count = (int) (last - cluster + 1);
    ClusterLocks.Held held = writes.tryLock(cluster, count);
    return held != null && begin(request, cluster, count, held);
  }

  private boolean begin(QueuedRequest request, long cluster, int count, ClusterLocks.Held held)
      throws BlockException {
    int mark = request.mark();
    boolean begun = false;
    Allocator.Run run = null;
    try {
      int within = geometry.within(request.offset());
      run = places(cluster, count, within, request.length());
      if (run != null) {
        request.atEnd(new Entering(cluster, run, held), 0, null);
        begun = data.begin((run.first() << geometry.clusterBits()) + within, request);
      }
      return begun;
    } finally {
      if (!begun) {
        request.forget(mark);
        if (run != null) {
          writes.giveBackUntouched(run);
        }
        writes.letIn(held);
      }
    }
  }

  /// Places for guest clusters, locked, that have none of their own; null when there are none at
  /// hand, or more than the write is to be done there.
  private Allocator.@Nullable Run places(long cluster, int count, int within, int length) {
    if (!tables.changesAtHand(cluster)) {
      return null;
    }
    for (int i = 0; i < count; i++) {
      long entry = tables.unitAtHand(cluster + i);
      if (entry == L2Table.CONTRADICTION || L2Entry.own(entry)) {
        return null;
      }
    }
    boolean fromStart = within == 0;
    boolean toEnd = geometry.within(within + length) == 0;
    boolean nothingElse = (fromStart || blank(cluster)) && (toEnd || blank(cluster + count - 1));
    return nothingElse ? writes.placesAtHand(cluster, count, !(fromStart && toEnd)) : null;
  }

  private boolean blank(long cluster) {
    return writes.readsZero(tables.unitAtHand(cluster), cluster << geometry.clusterBits());
  }

  /// What is left to do when such a write has ended.
  private final class Entering implements QueuedRequest.Ending {
    private final long cluster;
    private final Allocator.Run run;
    private final ClusterLocks.Held held;

    Entering(long cluster, Allocator.Run run, ClusterLocks.Held held) {
      this.cluster = cluster;
      this.run = run;
      this.held = held;
    }

    @Override
    public void ended(
        QueuedRequest request, boolean done, long number, RangeLock.@Nullable Held range) {
      boolean entered = false;
      try {
        entered = done && enter();
        if (done && !entered) {
          request.fail(new TransportException(data.name() + ": a write-back must come first"));
        }
      } catch (BlockException e) {
        request.fail(e);
      } finally {
        if (!entered) {
          writes.giveBackPlaces(run);
        }
        writes.letIn(held);
      }
    }

    private boolean enter() throws BlockException {
      long entry = (run.first() << geometry.clusterBits()) | L2Entry.COPIED;
      return tables.changeAtHand(cluster, run.count(), entry);
    }
  }
}
