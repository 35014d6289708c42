// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// virDomainGetBlockJobInfo of a disk that has a job.
///
/// @param bandwidth bytes/s with the flag BANDWIDTH_BYTES, else MiB/s rounded up; 0: no limit
/// @param current bytes done; equals `end` only when the job is ready
public record BlockJobInfo(BlockJobType type, long bandwidth, long current, long end) {}
