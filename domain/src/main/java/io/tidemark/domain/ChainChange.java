// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What a block job makes of its disk's chain when it takes effect.
sealed interface ChainChange {
  BlockJobType type();

  /// The chain afterwards.
  ///
  /// @param chain as it is while the job runs, active layer first
  List<Layer> after(List<Layer> chain);

  /// The image whose header names another backing file afterwards.
  default Optional<HeaderChange> headerChange() {
    return Optional.empty();
  }

  /// Files that have no use afterwards and that the client wants gone.
  default List<String> toDelete() {
    return List.of();
  }

  /// Whether the job waits, ready, for the client's word.
  default boolean pivots() {
    return false;
  }

  /// @param overlay the image whose header changes
  /// @param backing what it names then; absent: nothing
  record HeaderChange(Layer overlay, Optional<Backing> backing) {}

  /// @param name absent: by its absolute path
  record Backing(Layer layer, Optional<String> name) {
    String recorded() {
      return name.orElse(layer.file());
    }
  }

  /// The copy takes the active layer's place.
  ///
  /// @param mirror the copy with what lies beneath it and is its own
  /// @param sharesBacking shallow: beneath the copy comes the source's own backing chain
  /// @param terminated the copy is known to end the chain, so its XML has an empty `<backingStore>`
  /// @param updatesDefinition a pivot also changes the persistent definition (TRANSIENT_JOB)
  record Copy(
      List<Layer> mirror, boolean sharesBacking, boolean terminated, boolean updatesDefinition)
      implements ChainChange {
    public Copy {
      mirror = List.copyOf(mirror);
    }

    @Override
    public BlockJobType type() {
      return BlockJobType.COPY;
    }

    @Override
    public boolean pivots() {
      return true;
    }

    @Override
    public List<Layer> after(List<Layer> chain) {
      List<Layer> layers = new ArrayList<>(mirror);
      if (sharesBacking) {
        layers.addAll(chain.subList(1, chain.size()));
      }
      return layers;
    }
  }

  /// The active layer holds what lay between it and the base.
  ///
  /// @param active the active layer
  /// @param base absent: the active layer holds everything
  record Pull(Layer active, Optional<Backing> base) implements ChainChange {
    @Override
    public BlockJobType type() {
      return BlockJobType.PULL;
    }

    @Override
    public List<Layer> after(List<Layer> chain) {
      List<Layer> layers = new ArrayList<>();
      layers.add(chain.getFirst());
      base.ifPresent(kept -> layers.addAll(from(kept.layer(), chain)));
      return layers;
    }

    @Override
    public Optional<HeaderChange> headerChange() {
      return Optional.of(new HeaderChange(active, base));
    }
  }

  /// The base holds what the committed layers held; the layer above them stands on it.
  ///
  /// @param committed top first
  record Commit(Layer overlay, List<Layer> committed, Backing base, boolean delete)
      implements ChainChange {
    public Commit {
      committed = List.copyOf(committed);
    }

    @Override
    public BlockJobType type() {
      return BlockJobType.COMMIT;
    }

    @Override
    public List<Layer> after(List<Layer> chain) {
      return chain.stream().filter(layer -> !committed.contains(layer)).toList();
    }

    @Override
    public Optional<HeaderChange> headerChange() {
      return Optional.of(new HeaderChange(overlay, Optional.of(base)));
    }

    @Override
    public List<String> toDelete() {
      return delete ? committed.stream().map(Layer::file).toList() : List.of();
    }
  }

  /// The base holds what the layers above it held, and is the active layer.
  ///
  /// @param committed top first
  record ActiveCommit(List<Layer> committed, Layer base, boolean delete) implements ChainChange {
    public ActiveCommit {
      committed = List.copyOf(committed);
    }

    @Override
    public BlockJobType type() {
      return BlockJobType.ACTIVE_COMMIT;
    }

    @Override
    public boolean pivots() {
      return true;
    }

    @Override
    public List<Layer> after(List<Layer> chain) {
      return from(base, chain);
    }

    @Override
    public List<String> toDelete() {
      return delete ? committed.stream().map(Layer::file).toList() : List.of();
    }
  }

  private static List<Layer> from(Layer first, List<Layer> chain) {
    return chain.subList(chain.indexOf(first), chain.size());
  }
}
