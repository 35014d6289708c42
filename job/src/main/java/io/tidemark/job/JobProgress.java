// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

/// How far a job is, read at one moment, in bytes.
///
/// @param current done; never decreases
/// @param total to do as known now; never below `current`, grows while the guest writes. Equal to
///   `current` only when nothing is left: a mirror then is ready
public record JobProgress(long current, long total) {
  public long remaining() {
    return total - current;
  }
}
