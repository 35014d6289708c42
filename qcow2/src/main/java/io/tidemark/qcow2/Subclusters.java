// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// The bitmap of an extended L2 entry: what each of a cluster's 32 subclusters holds.
///
/// Bit `i` says that subcluster `i` is in the host cluster, bit `32 + i` that it reads as zeroes;
/// with neither the backing file answers. Both together are corrupt. For a compressed cluster the
/// bitmap means nothing and is 0.
///
/// Spec: qcow2.rst, "Extended L2 Entries".
final class Subclusters {
  static final int COUNT = 32;
  static final long ALL_DATA = 0xffff_ffffL;
  static final long ALL_ZERO = ALL_DATA << COUNT;

  private Subclusters() {}

  /// Bits of the subclusters `[first, end)`, as in the lower half of a bitmap.
  static long mask(int first, int end) {
    return ((1L << end) - 1) & -(1L << first);
  }

  static long data(long bitmap) {
    return bitmap & ALL_DATA;
  }

  static long zero(long bitmap) {
    return bitmap >>> COUNT;
  }

  /// Whether the entry and its bitmap contradict one another.
  static boolean corrupt(long entry, long bitmap) {
    if ((entry & L2Entry.COMPRESSED) != 0) {
      return false;
    }
    return (data(bitmap) & zero(bitmap)) != 0 || (data(bitmap) != 0 && L2Entry.host(entry) == 0);
  }

  /// What a standard entry would say if the whole cluster were as this subcluster.
  static long plain(long entry, long bitmap, int index) {
    if ((entry & L2Entry.COMPRESSED) != 0) {
      return entry;
    }
    if ((zero(bitmap) >>> index & 1) != 0) {
      return entry | L2Entry.ZERO;
    }
    // Bit 0 of an extended entry has no meaning.
    return (bitmap >>> index & 1) != 0 ? entry & ~L2Entry.ZERO : 0;
  }

  /// The first word of the extended entry that says for a whole cluster what a standard one says.
  static long wholeEntry(long standard) {
    return (standard & L2Entry.COMPRESSED) != 0 ? standard : standard & ~L2Entry.ZERO;
  }

  /// The bitmap that goes with [#wholeEntry].
  static long whole(long standard) {
    return switch (L2Entry.kind(standard)) {
      case UNALLOCATED, COMPRESSED -> 0;
      case ZERO_PLAIN, ZERO_ALLOCATED -> ALL_ZERO;
      case DATA -> ALL_DATA;
    };
  }

  /// The bitmap after the subclusters of `mask` were written in a cluster that keeps or gets a
  /// place. What a compressed cluster held was written there too.
  static long written(long entry, long bitmap, long mask) {
    if ((entry & L2Entry.COMPRESSED) != 0) {
      return ALL_DATA;
    }
    return data(bitmap) | mask | (zero(bitmap) & ~mask) << COUNT;
  }

  /// The bitmap after the subclusters of `mask` were made zero.
  static long zeroed(long bitmap, long mask) {
    return (data(bitmap) & ~mask) | (zero(bitmap) | mask) << COUNT;
  }
}
