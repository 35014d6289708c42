// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// What the L2 slots of a run of guest clusters are to be.
///
/// @param entry of the first; those that follow count up when it names a host cluster
/// @param first bitmap of the first
/// @param middle bitmap of those between
/// @param last bitmap of the last, where there is more than one
record NewSlots(long entry, long first, long middle, long last) {
  static NewSlots all(L2Slot slot) {
    return new NewSlots(slot.entry(), slot.bitmap(), slot.bitmap(), slot.bitmap());
  }

  long bitmap(int index, int count) {
    if (index == 0) {
      return first;
    }
    return index == count - 1 ? last : middle;
  }
}
