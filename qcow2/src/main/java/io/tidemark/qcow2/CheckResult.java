// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.List;

/// What [Qcow2Image#check] found; counts as `qemu-img check` gives them.
///
/// @param checkErrors places that could not be read or judged
/// @param corruptions contradictions that can lose or mix up data
/// @param leaks clusters that are counted as used and that nothing refers to
/// @param allocatedClusters guest clusters with a place in the file, compressed ones too
/// @param totalClusters guest clusters of the disk
/// @param fragmentedClusters allocated clusters that do not follow their predecessor in the file
/// @param compressedClusters compressed guest clusters
/// @param imageEndOffset host bytes; the first byte past the last used cluster
/// @param findings one line each for the first [#MAX_FINDINGS] findings
public record CheckResult(
    long checkErrors,
    long corruptions,
    long leaks,
    long allocatedClusters,
    long totalClusters,
    long fragmentedClusters,
    long compressedClusters,
    long imageEndOffset,
    List<String> findings) {
  /// Findings kept as text; more are only counted.
  public static final int MAX_FINDINGS = 1000;

  public CheckResult {
    findings = List.copyOf(findings);
  }

  /// Neither corruptions nor errors; leaks are allowed.
  public boolean sound() {
    return corruptions == 0 && checkErrors == 0;
  }
}
