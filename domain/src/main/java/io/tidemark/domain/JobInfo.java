// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// virDomainGetJobInfo, the fields that a backup fills; the memory fields are always 0.
///
/// @param type virDomainJobType: 0 none, 2 unbounded
public record JobInfo(
    int type,
    long timeElapsedMillis,
    long dataTotal,
    long dataProcessed,
    long dataRemaining,
    long fileTotal,
    long fileProcessed,
    long fileRemaining) {
  static final JobInfo NONE = new JobInfo(0, 0, 0, 0, 0, 0, 0, 0);
}
