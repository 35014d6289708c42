// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriveSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A disk of a running domain: its element in the live definition, the chain the driver has open,
/// and its block job. Guarded by the domain's lock.
final class LiveDisk {
  private final DiskElement element;
  private List<Layer> layers;
  private boolean explicitBacking;
  // Null but between putting an overlay on and what may take it away again.
  private @Nullable XmlElement beneathOverlay;
  private boolean terminated = true;
  private long threshold;
  // Null while the disk has no block job.
  private @Nullable BlockJob job;

  /// @param layers active layer first; empty for a drive without medium
  /// @param explicitBacking whether the definition says where the chain ends; else it was found in
  ///   the images and is not part of the inactive form
  LiveDisk(DiskElement element, List<Layer> layers, boolean explicitBacking) {
    this.element = element;
    this.layers = List.copyOf(layers);
    this.explicitBacking = explicitBacking;
  }

  DiskElement element() {
    return element;
  }

  String target() {
    return element.target();
  }

  String alias() {
    return DiskNames.alias(element.target(), element.bus());
  }

  List<Layer> layers() {
    return layers;
  }

  /// What a driver needs to open it; only with a medium.
  DriveSpec driveSpec() {
    return element.driveSpec(layers);
  }

  boolean hasMedium() {
    return !layers.isEmpty();
  }

  Layer active() {
    return layers.getFirst();
  }

  boolean explicitBacking() {
    return explicitBacking;
  }

  /// Whether the chain is known to end with its last layer; a client may have left that open.
  boolean terminated() {
    return terminated;
  }

  void terminated(boolean known) {
    terminated = known;
  }

  @Nullable BlockJob job() {
    return job;
  }

  void job(@Nullable BlockJob next) {
    job = next;
  }

  /// Bytes of the active layer beyond which a write is told; 0: none. Unsigned.
  long threshold() {
    return threshold;
  }

  void threshold(long bytes) {
    threshold = bytes;
  }

  /// Clients name a disk by its target or its active layer's path, nothing else.
  boolean isCalled(String disk) {
    return disk.equals(target()) || (hasMedium() && disk.equals(active().file()));
  }

  /// Puts an overlay on top, in memory only.
  void pushOverlay(Layer overlay) {
    List<Layer> chain = new ArrayList<>();
    chain.add(overlay);
    chain.addAll(layers);
    layers = List.copyOf(chain);
    beneathOverlay = element.element().copy();
    element.pushOverlay(overlay.storage(), overlay.format());
  }

  /// Undoes the last [#pushOverlay].
  void popOverlay() {
    layers = layers.subList(1, layers.size());
    XmlElement before = beneathOverlay;
    if (before == null) {
      throw new IllegalStateException("disk " + target() + " has no overlay to take away");
    }
    element.element().becomeAs(before);
    beneathOverlay = null;
  }

  /// Makes another chain the disk's, in memory only.
  void replaceChain(List<Layer> chain, boolean explicit) {
    layers = List.copyOf(chain);
    explicitBacking = explicit;
    element.setSource(active().storage(), active().format());
    element.setBacking(
        explicit ? DomainXml.backingStore(chain, false, terminated) : Optional.empty());
  }
}
