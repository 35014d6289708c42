// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// What may become of the space under a range that is zeroed.
public enum ZeroMode {
  /// Space may be given back (NBD: WRITE_ZEROES without NO_HOLE).
  MAY_UNMAP,
  /// The range stays or becomes allocated (NBD: NO_HOLE).
  NO_UNMAP
}
