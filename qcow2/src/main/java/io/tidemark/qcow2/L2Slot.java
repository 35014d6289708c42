// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import org.jspecify.annotations.Nullable;

/// What an L2 table says of one guest cluster.
///
/// @param entry the entry, of an extended one the first word
/// @param bitmap the second word of an extended entry, else 0
record L2Slot(long entry, long bitmap) {
  static final L2Slot EMPTY = new L2Slot(0, 0);

  /// The slot that says of a whole cluster what the standard entry says.
  static L2Slot whole(long standard, Geometry geometry) {
    return geometry.extendedL2()
        ? new L2Slot(Subclusters.wholeEntry(standard), Subclusters.whole(standard))
        : new L2Slot(standard, 0);
  }

  // Spelled out, because what a record makes by itself takes milliseconds to link when first used,
  // on every image command's way.

  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof L2Slot slot && slot.entry == entry && slot.bitmap == bitmap;
  }

  @Override
  public int hashCode() {
    return 31 * Long.hashCode(entry) + Long.hashCode(bitmap);
  }

  /// The slot `index` clusters into a run that begins with this one.
  L2Slot step(long index, Geometry geometry) {
    return index == 0 ? this : new L2Slot(L2Entry.step(entry, index, geometry), bitmap);
  }
}
