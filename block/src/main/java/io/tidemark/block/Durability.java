// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// How soon what was written must outlive the process, and the power.
public enum Durability {
  /// A write that was acknowledged survives the death of the process, a flush survives power: what
  /// a guest's disk needs. A format brings metadata into the log in `OpenOptions.runDir`, or where
  /// that is not possible syncs the data and then writes its tables.
  ACKNOWLEDGED,
  /// Nothing is promised before the next flush or close; a flush survives power. For tools that
  /// work on an image and flush it once.
  FLUSHED,
  /// Nothing is ever synced: a flush returns at once. For an image that would be made again after a
  /// crash (QEMU: cache mode `unsafe`).
  UNSAFE
}
