// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/// A block copy of a running disk, from its start until its last event. Guarded by the domain's
/// lock.
final class CopyJob {
  /// Where the copy stands with its disk.
  enum Phase {
    /// Copying, or ready and following the guest.
    RUNNING,
    /// A pivot was asked for.
    PIVOTING,
    /// An end without pivot was asked for.
    ABORTING,
    /// The live record names the copy as the disk's chain: the commit point is behind.
    PIVOTED,
    /// Events are sent, the disk is free.
    OVER
  }

  private final String id;
  private final List<Layer> mirror;
  private final boolean sharesBacking;
  private final boolean terminated;
  private final boolean updatesDefinition;
  private final String sourceFile;
  private Phase phase = Phase.RUNNING;
  private boolean ready;
  // Null until a pivot took the old active layer's node out of use.
  private @Nullable String retiredNode;
  // Null until the job is over.
  private @Nullable BlockJobStatus outcome;
  // Null unless the job failed.
  private @Nullable String failure;

  /// @param mirror the copy with what lies beneath it and is its own
  /// @param sharesBacking shallow: beneath the copy comes the source's own backing chain
  /// @param terminated the copy is known to end the chain, so its XML has an empty `<backingStore>`
  /// @param updatesDefinition a pivot also changes the persistent definition (TRANSIENT_JOB)
  /// @param sourceFile active layer when the job started
  CopyJob(
      String id,
      List<Layer> mirror,
      boolean sharesBacking,
      boolean terminated,
      boolean updatesDefinition,
      String sourceFile) {
    this.id = id;
    this.mirror = List.copyOf(mirror);
    this.sharesBacking = sharesBacking;
    this.terminated = terminated;
    this.updatesDefinition = updatesDefinition;
    this.sourceFile = sourceFile;
  }

  String id() {
    return id;
  }

  List<Layer> mirror() {
    return mirror;
  }

  boolean sharesBacking() {
    return sharesBacking;
  }

  boolean terminated() {
    return terminated;
  }

  boolean updatesDefinition() {
    return updatesDefinition;
  }

  String sourceFile() {
    return sourceFile;
  }

  /// The disk's chain after a pivot.
  List<Layer> chainAfterPivot(List<Layer> current) {
    List<Layer> chain = new ArrayList<>(mirror);
    if (sharesBacking) {
      chain.addAll(current.subList(1, current.size()));
    }
    return chain;
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

  /// The old active layer's node, to be closed when the job no longer holds it.
  @Nullable String retiredNode() {
    return retiredNode;
  }

  void retire(String node) {
    retiredNode = node;
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
