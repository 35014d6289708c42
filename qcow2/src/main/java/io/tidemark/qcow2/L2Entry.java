// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// The bits of an L1 or L2 table entry. Entries stay raw `long`s, because a read looks at one for
/// every cluster.
///
/// Spec: qcow2.rst, "Cluster mapping".
final class L2Entry {
  static final long COPIED = 1L << 63;
  static final long COMPRESSED = 1L << 62;
  static final long ZERO = 1;
  static final long OFFSET = 0x00ff_ffff_ffff_fe00L; // bits 9 to 55
  static final long L1_RESERVED = 0x7f00_0000_0000_01ffL;
  static final long L2_RESERVED = 0x3f00_0000_0000_01feL;

  private L2Entry() {}

  /// What an entry says about its guest cluster.
  enum Kind {
    UNALLOCATED,
    /// Reads as zeroes, no place in the file.
    ZERO_PLAIN,
    /// Reads as zeroes, and keeps a host cluster.
    ZERO_ALLOCATED,
    DATA,
    COMPRESSED
  }

  static Kind kind(long entry) {
    if ((entry & COMPRESSED) != 0) {
      return Kind.COMPRESSED;
    }
    boolean placed = (entry & OFFSET) != 0;
    if ((entry & ZERO) != 0) {
      return placed ? Kind.ZERO_ALLOCATED : Kind.ZERO_PLAIN;
    }
    return placed ? Kind.DATA : Kind.UNALLOCATED;
  }

  static long host(long entry) {
    return entry & OFFSET;
  }

  /// Whether a write may go to the cluster where it is: data, and nobody else refers to it.
  static boolean writable(long entry) {
    return (entry & (COMPRESSED | ZERO | COPIED)) == COPIED && (entry & OFFSET) != 0;
  }

  /// Whether a host cluster stands ready that nobody else refers to, so that a write need not look
  /// for another.
  static boolean own(long entry) {
    return (entry & (COMPRESSED | COPIED)) == COPIED && (entry & OFFSET) != 0;
  }

  /// Where unit `unit` is, by its entry.
  static long place(long entry, long unit, Geometry geometry) {
    long within = unit & ((1 << geometry.unitsBits()) - 1);
    return host(entry) + (within << geometry.unitBits());
  }

  /// Whether `other`, the entry of the unit `next` after `unit`, says the same and its place, where
  /// it has one, follows.
  static boolean continues(long entry, long unit, long other, long next, Geometry geometry) {
    Kind kind = kind(entry);
    if (kind(other) != kind) {
      return false;
    }
    return switch (kind) {
      case DATA, ZERO_ALLOCATED ->
          place(other, unit + next, geometry)
              == place(entry, unit, geometry) + (next << geometry.unitBits());
      case UNALLOCATED, ZERO_PLAIN -> true;
      case COMPRESSED -> false;
    };
  }

  /// Whether the entry names whole host clusters, so that a run of entries counts up.
  static boolean placed(long entry) {
    return (entry & COMPRESSED) == 0 && (entry & OFFSET) != 0;
  }

  /// The entry `index` clusters into a run that begins with `first`.
  static long step(long first, long index, Geometry geometry) {
    return placed(first) ? first + (index << geometry.clusterBits()) : first;
  }

  /// First host byte of compressed data. Spec: "Compressed Clusters Descriptor".
  static long compressedOffset(long entry, Geometry geometry) {
    return entry & ((1L << compressedShift(geometry)) - 1);
  }

  /// Bytes from [#compressedOffset] to the end of the last sector.
  static int compressedLength(long entry, Geometry geometry) {
    int shift = compressedShift(geometry);
    long sectors = ((entry >>> shift) & ((1L << (62 - shift)) - 1)) + 1;
    return (int) (sectors * 512 - (compressedOffset(entry, geometry) & 511));
  }

  /// Host byte where the last sector of compressed data ends.
  static long compressedEnd(long entry, Geometry geometry) {
    return compressedOffset(entry, geometry) + compressedLength(entry, geometry);
  }

  private static int compressedShift(Geometry geometry) {
    return 62 - (geometry.clusterBits() - 8);
  }

  /// The entry of `length` compressed bytes at a host offset that [#canName] allows.
  static long compressed(long hostOffset, int length, Geometry geometry) {
    long sectors = (hostOffset + length - 1) / 512 - hostOffset / 512;
    return COMPRESSED | sectors << compressedShift(geometry) | hostOffset;
  }

  /// Whether compressed data that ends before `end` can be named.
  static boolean canName(long end, Geometry geometry) {
    return end <= Math.min(1L << compressedShift(geometry), Geometry.MAX_HOST_OFFSET);
  }
}
