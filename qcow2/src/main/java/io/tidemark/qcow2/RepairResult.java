// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.List;

/// What [Qcow2Image#repair] did.
///
/// @param leaksFixed clusters given back
/// @param corruptionsFixed contradictions put right
/// @param findings one line for each of the first [CheckResult#MAX_FINDINGS] findings, as `qemu-img
///   check -r` words them: `Repairing …` where it was put right
/// @param after what a check found afterwards
public record RepairResult(
    long leaksFixed, long corruptionsFixed, List<String> findings, CheckResult after) {
  public RepairResult {
    findings = List.copyOf(findings);
  }
}
