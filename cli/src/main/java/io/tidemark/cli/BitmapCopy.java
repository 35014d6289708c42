// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FormatNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The persistent bitmaps of one image on their way into another (`--bitmaps`).
final class BitmapCopy {
  /// @param enabled whether it goes on recording writes
  private record One(DirtyBitmap bitmap, boolean enabled) {}

  private final List<One> bitmaps;

  private BitmapCopy(List<One> bitmaps) {
    this.bitmaps = bitmaps;
  }

  /// Reads the bitmaps, before anything is written.
  ///
  /// @param skipBroken leave out inconsistent ones; without it they are an error
  static BitmapCopy of(FormatNode source, boolean skipBroken)
      throws BlockException, CommandException {
    Optional<BitmapStore> store = source.bitmapStore();
    List<One> all = new ArrayList<>();
    for (BitmapStore.Stored stored : store.map(BitmapStore::stored).orElse(List.of())) {
      if (!stored.inconsistent()) {
        all.add(new One(store.orElseThrow().load(stored.name()), stored.enabled()));
      } else if (!skipBroken) {
        throw new CommandException(
            source.name()
                + ": bitmap '"
                + stored.name()
                + "' is inconsistent: leave it out with --skip-broken-bitmaps");
      }
    }
    return new BitmapCopy(all);
  }

  /// Adds them to the bitmaps of an image, and syncs.
  void into(FormatNode target) throws BlockException {
    BitmapStore store = target.bitmapStore().orElseThrow();
    if (bitmaps.isEmpty()) {
      return;
    }
    if (store.stored().isEmpty()) {
      store.store(bitmaps.stream().map(One::bitmap).toList());
      return;
    }
    for (One one : bitmaps) {
      String name = one.bitmap.name();
      store.add(name, one.bitmap.granularity());
      store.merge(name, one.bitmap);
      if (!one.enabled) {
        store.disable(name);
      }
    }
  }
}
