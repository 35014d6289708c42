// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// The consistent bitmaps of an image, each with what the images beneath know under its name.
///
/// libvirt begins an empty bitmap in the overlay of a snapshot, and leaves what was recorded until
/// then in the image beneath: bitmaps of one name, from the uppermost image down to the first that
/// has none, are the parts of one. Here an overlay gets all of it, so the parts beneath add
/// nothing; but a chain may come from there. A part that cannot be trusted, that does not record,
/// or that lies beneath a gap makes the whole untrustworthy: *broken*.
///
/// @param bitmaps of the image's size, enabled as they are in the image
/// @param broken names among them
record StoredBitmaps(List<DirtyBitmap> bitmaps, Set<String> broken) {
  StoredBitmaps {
    bitmaps = List.copyOf(bitmaps);
    broken = Set.copyOf(broken);
  }

  /// What the memory of one bitmap must not exceed, and similar.
  @FunctionalInterface
  interface Limit {
    void check(BitmapStore.Stored stored) throws BlockException;
  }

  /// Reads them; nothing is changed.
  ///
  /// @param size of the bitmaps that are wanted, in bytes of the disk
  /// @param beneath what the images below it keep, upper ones first, up to the first whose format
  ///   keeps none
  /// @param limit asked of each bitmap of `image` before it is read
  static StoredBitmaps read(BitmapStore image, long size, List<BitmapStore> beneath, Limit limit)
      throws BlockException {
    List<DirtyBitmap> bitmaps = new ArrayList<>();
    Set<String> broken = new LinkedHashSet<>();
    for (BitmapStore.Stored stored : image.stored()) {
      if (stored.inconsistent()) {
        continue;
      }
      limit.check(stored);
      DirtyBitmap bitmap = sized(image.load(stored.name()), size);
      bitmap.setEnabled(stored.enabled());
      bitmaps.add(bitmap);
      if (!mergeParts(bitmap, beneath)) {
        broken.add(bitmap.name());
      }
    }
    return new StoredBitmaps(bitmaps, broken);
  }

  /// @return false when a part cannot be trusted, or lies beneath an image that has none
  static boolean mergeParts(DirtyBitmap whole, List<BitmapStore> beneath) throws BlockException {
    boolean ended = false;
    for (BitmapStore image : beneath) {
      Optional<BitmapStore.Stored> part =
          image.stored().stream().filter(one -> one.name().equals(whole.name())).findFirst();
      if (part.isEmpty()) {
        ended = true;
        continue;
      }
      if (ended || part.get().inconsistent() || !part.get().enabled()) {
        return false;
      }
      whole.merge(sized(image.load(whole.name()), whole.size()));
    }
    return true;
  }

  /// Images of a chain may have different sizes; what one gained counts as written.
  private static DirtyBitmap sized(DirtyBitmap bitmap, long size) {
    return bitmap.size() == size ? bitmap : bitmap.resized(size);
  }

  /// The stores of a node and of what lies beneath it, up to the first that keeps no bitmaps.
  static List<BitmapStore> storesFrom(Optional<NodeGraph.Node> first) {
    List<BitmapStore> stores = new ArrayList<>();
    for (Optional<NodeGraph.Node> node = first; node.isPresent(); node = node.get().backing()) {
      Optional<BitmapStore> store = node.get().format().bitmapStore();
      if (store.isEmpty()) {
        break;
      }
      stores.add(store.get());
    }
    return stores;
  }
}
