// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
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

  private static final Logger LOG = System.getLogger(StoredBitmaps.class.getName());

  /// Reads them; nothing is changed. One that cannot be read ends it.
  ///
  /// @param size of the bitmaps that are wanted, in bytes of the disk
  /// @param beneath what the images below it keep, upper ones first, up to the first whose format
  ///   keeps none
  static StoredBitmaps read(BitmapStore image, long size, List<BitmapStore> beneath)
      throws BlockException {
    return read(image, size, beneath, true);
  }

  /// As [#read]; one that cannot be read is left out.
  static StoredBitmaps readable(BitmapStore image, long size, List<BitmapStore> beneath) {
    try {
      return read(image, size, beneath, false);
    } catch (BlockException e) {
      throw new AssertionError(e);
    }
  }

  private static StoredBitmaps read(
      BitmapStore image, long size, List<BitmapStore> beneath, boolean all) throws BlockException {
    List<DirtyBitmap> bitmaps = new ArrayList<>();
    Set<String> broken = new LinkedHashSet<>();
    for (BitmapStore.Stored stored : image.stored()) {
      if (stored.inconsistent()) {
        continue;
      }
      try {
        DirtyBitmap bitmap = load(image, stored, size);
        bitmap.setEnabled(stored.enabled());
        bitmaps.add(bitmap);
        if (!mergeParts(bitmap, beneath)) {
          broken.add(bitmap.name());
        }
      } catch (BlockException e) {
        if (all) {
          throw e;
        }
        LOG.log(Level.WARNING, "bitmap {0} is left out: {1}", stored.name(), e.getMessage());
      }
    }
    return new StoredBitmaps(bitmaps, broken);
  }

  /// @return false when a part cannot be trusted or read, or lies beneath an image that has none
  static boolean mergeParts(DirtyBitmap whole, List<BitmapStore> beneath) {
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
      try {
        whole.merge(load(image, part.get(), whole.size()));
      } catch (BlockException e) {
        LOG.log(Level.WARNING, "bitmap {0}, a part beneath: {1}", whole.name(), e.getMessage());
        return false;
      }
    }
    return true;
  }

  /// Images of a chain may have different sizes; what one gained counts as written.
  private static DirtyBitmap load(BitmapStore image, BitmapStore.Stored stored, long size)
      throws BlockException {
    DriveBitmaps.requireSize(stored, size);
    DirtyBitmap bitmap = image.load(stored.name());
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
