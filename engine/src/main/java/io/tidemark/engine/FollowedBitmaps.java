// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FormatNode;
import io.tidemark.block.UnsupportedImageException;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The bitmaps of an image that a job writes while no drive stands on it: the base of a commit, the
/// target of a copy. Those that are enabled record what the job writes, as QEMU's do.
///
/// On disk:
/// - [#begin] reads them, then marks them in use, durably, before the job writes. A crash from here
///   on leaves them inconsistent.
/// - [#putBack], when nobody writes the image any more, stores them with all that the job wrote,
///   not in use. What did not come to it stays in use: an image never claims that bytes are as they
///   were that are not.
///
/// An image that becomes a drive's top instead keeps its marks, and the drive takes the bitmaps.
///
/// Not thread-safe: guarded by the domain's lock, but for the bits, which jobs set.
final class FollowedBitmaps {
  private final Map<String, DirtyBitmap> bitmaps = new LinkedHashMap<>();
  private final Set<String> broken;
  private final Set<String> own;

  private FollowedBitmaps(StoredBitmaps stored) {
    stored.bitmaps().forEach(bitmap -> bitmaps.put(bitmap.name(), bitmap));
    broken = new LinkedHashSet<>(stored.broken());
    own = new LinkedHashSet<>(bitmaps.keySet());
    own.removeAll(broken);
  }

  /// Before the image is written.
  ///
  /// @param beneath what the images beneath it keep
  /// @param size that the image has once it is written, at least its own
  /// @return empty when the image keeps no bitmaps
  static Optional<FollowedBitmaps> begin(FormatNode image, List<BitmapStore> beneath, long size)
      throws BlockException {
    Optional<BitmapStore> store = image.bitmapStore();
    if (store.isEmpty()) {
      return Optional.empty();
    }
    if (store.get().stored().size() > DriveBitmaps.MAX_BITMAPS) {
      throw new UnsupportedImageException(
          image.name()
              + ": "
              + store.get().stored().size()
              + " stored bitmaps, at most "
              + DriveBitmaps.MAX_BITMAPS);
    }
    var followed = new FollowedBitmaps(StoredBitmaps.readable(store.get(), size, beneath));
    store.get().claim();
    return Optional.of(followed);
  }

  List<DirtyBitmap> bitmaps() {
    return List.copyOf(bitmaps.values());
  }

  /// Whether what lies beneath makes the bitmap untrustworthy.
  boolean broken(String name) {
    return broken.contains(name);
  }

  /// Names of those that were in the image before the job wrote it and can be trusted: they know of
  /// each write that the job made.
  Set<String> own() {
    return Set.copyOf(own);
  }

  /// The bitmap was taken out of the image.
  void forget(String name) {
    bitmaps.remove(name);
    own.remove(name);
    broken.remove(name);
  }

  /// A job writes the image once more.
  void resize(long size) {
    bitmaps.replaceAll((_, bitmap) -> bitmap.size() == size ? bitmap : bitmap.resized(size));
  }

  /// The image holds what images above it held: what their bitmaps know goes into its own, or in
  /// beside them. A bitmap that cannot be trusted in one of them, or in what comes next, goes
  /// nowhere.
  ///
  /// @param committed of those images, top first
  /// @param image of this one
  /// @param beneath what the images beneath this one keep
  void mergeFrom(
      List<BitmapStore> committed, BitmapStore image, List<BitmapStore> beneath, long size) {
    if (committed.isEmpty()) {
      return;
    }
    StoredBitmaps above =
        StoredBitmaps.readable(committed.getFirst(), size, committed.subList(1, committed.size()));
    for (DirtyBitmap bitmap : above.bitmaps()) {
      String name = bitmap.name();
      if (above.broken().contains(name) || !bitmap.enabled()) {
        continue;
      }
      DirtyBitmap known = bitmaps.get(name);
      if (known != null) {
        known.merge(bitmap);
      } else if (!image.holds(name)
          && beneath.stream().noneMatch(lower -> lower.holds(name))
          && bitmaps.size() < DriveBitmaps.MAX_BITMAPS) {
        bitmaps.put(name, bitmap);
      }
    }
  }

  /// When nobody writes the image any more.
  void putBack(FormatNode image) throws BlockException {
    resize(image.virtualSize()); // a job that was cut short may not have set it
    image.bitmapStore().orElseThrow().store(bitmaps.values());
  }
}
