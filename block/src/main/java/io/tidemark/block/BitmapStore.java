// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Collection;
import java.util.List;

/// Bitmaps kept inside an image, with the in-use flag that tells a clean end from a crash.
///
/// Life: [#stored] after opening; [#claim] before the first guest write marks every consistent
/// bitmap in use on stable storage, so that a crash leaves them inconsistent and never wrongly
/// clean; [#store] on a clean stop writes contents and clears the mark.
public interface BitmapStore {
  /// @param inconsistent the in-use flag was found set at open: contents are not to be trusted
  /// @param enabled QEMU's `auto` flag: the bitmap records writes
  record Stored(String name, long granularity, boolean inconsistent, boolean enabled) {}

  /// What the image holds now, in the order of its directory.
  List<Stored> stored();

  /// Whether the image holds a bitmap of this name, consistent or not.
  default boolean holds(String name) {
    return stored().stream().anyMatch(bitmap -> bitmap.name().equals(name));
  }

  /// Reads a consistent bitmap's contents; not while the bitmaps are claimed.
  DirtyBitmap load(String name) throws BlockException;

  /// Marks all consistent bitmaps in use and syncs. Idempotent.
  void claim() throws BlockException;

  /// Adds a bitmap that is in use from the start, and syncs: its name, granularity and flags are
  /// kept, no contents. So a crash before the next [#store] leaves it inconsistent rather than
  /// missing. Until then it counts as consistent here, as a claimed one does. Refused when the name
  /// is taken.
  void add(DirtyBitmap bitmap) throws BlockException;

  /// Replaces every consistent bitmap by these, not in use, and syncs. Inconsistent ones stay as
  /// they are, unless one of `bitmaps` has the same name.
  void store(Collection<DirtyBitmap> bitmaps) throws BlockException;

  /// Removes one, consistent or not, and syncs.
  void remove(String name) throws BlockException;

  /// Adds an empty bitmap that records writes and is not in use, and syncs: `qemu-img bitmap
  /// --add`. This and the calls below are for images that no guest writes to: not while the bitmaps
  /// are claimed.
  ///
  /// @param granularity bytes of a bit, a power of two from 512 to 2 GiB
  /// @throws UnsupportedImageException when the name is taken or a limit is met
  default void add(String name, long granularity) throws BlockException {
    throw unsupported(name);
  }

  /// Forgets what a consistent bitmap recorded, and syncs.
  default void clear(String name) throws BlockException {
    throw unsupported(name);
  }

  /// From now on the bitmap records writes; syncs.
  default void enable(String name) throws BlockException {
    throw unsupported(name);
  }

  /// From now on the bitmap stays as it is; syncs.
  default void disable(String name) throws BlockException {
    throw unsupported(name);
  }

  /// Adds to a consistent bitmap what `source` recorded, from this image or another; granularities
  /// may differ, sizes may not. Syncs.
  default void merge(String target, DirtyBitmap source) throws BlockException {
    throw unsupported(target);
  }

  private static UnsupportedImageException unsupported(String name) {
    return new UnsupportedImageException("bitmap " + name + ": cannot be changed where it is kept");
  }
}
