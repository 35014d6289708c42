// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// How far a repair goes: the words of `qemu-img check -r`.
public enum Repair {
  /// Clusters that are counted and that nothing refers to are given back. Nothing else changes.
  LEAKS,
  /// Refcounts too low are raised, too; copied flags are set right, and refcount structures that
  /// cannot be used are written anew.
  ALL
}
