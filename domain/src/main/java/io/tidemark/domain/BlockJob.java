// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;
import org.jspecify.annotations.Nullable;

/// A block job of a running disk, from its start until its last event. Guarded by the domain's
/// lock.
final class BlockJob {
  /// Where the job stands with its disk.
  enum Phase {
    /// At work, or ready and following the guest.
    RUNNING,
    /// A pivot was asked for.
    PIVOTING,
    /// An end without effect was asked for.
    ABORTING,
    /// The live record names the new chain as the disk's: the commit point is behind.
    CHANGED,
    /// Events are sent, the disk is free.
    OVER
  }

  private final String id;
  private final ChainChange change;
  private final String sourceFile;
  private Phase phase = Phase.RUNNING;
  private boolean ready;
  // Null unless the job can be aborted only: why.
  private @Nullable String pivotRefusal;
  // Null unless the client gave the copy's image one.
  private @Nullable XmlElement metadataCache;
  // Null until the job took a node out of the disk's chain.
  private @Nullable String retiredNode;
  // Null until the job is over.
  private @Nullable BlockJobStatus outcome;
  // Null unless the job failed.
  private @Nullable String failure;

  /// @param sourceFile active layer when the job started
  BlockJob(String id, ChainChange change, String sourceFile) {
    this.id = id;
    this.change = change;
    this.sourceFile = sourceFile;
  }

  String id() {
    return id;
  }

  ChainChange change() {
    return change;
  }

  BlockJobType type() {
    return change.type();
  }

  /// Images that a copy writes or stands on, beside the disk's chain.
  List<Layer> mirror() {
    return change instanceof ChainChange.Copy copy ? copy.mirror() : List.of();
  }

  String sourceFile() {
    return sourceFile;
  }

  Phase phase() {
    return phase;
  }

  void phase(Phase next) {
    phase = next;
  }

  boolean ready() {
    return ready;
  }

  void markReady() {
    ready = true;
  }

  boolean over() {
    return phase == Phase.OVER;
  }

  @Nullable BlockJobStatus outcome() {
    return outcome;
  }

  @Nullable String failure() {
    return failure;
  }

  /// The uppermost node that left the chain, to be closed when the job no longer holds it.
  @Nullable String retiredNode() {
    return retiredNode;
  }

  void retire(String node) {
    retiredNode = node;
  }

  /// Why a pivot is refused, if it is.
  @Nullable String pivotRefusal() {
    return pivotRefusal;
  }

  void refusePivot(String why) {
    pivotRefusal = why;
  }

  /// The `<metadata_cache>` of the copy's `<driver>`, which means nothing here and is shown.
  @Nullable XmlElement metadataCache() {
    return metadataCache;
  }

  void metadataCache(@Nullable XmlElement element) {
    metadataCache = element;
  }

  /// Keeps the first reason.
  void fail(String why) {
    if (failure == null) {
      failure = why;
    }
  }

  /// @param why empty when there is nothing to say
  void end(BlockJobStatus how, String why) {
    phase = Phase.OVER;
    outcome = how;
    if (!why.isEmpty()) {
      fail(why);
    }
  }
}
