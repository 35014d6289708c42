// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// virDomainGetInfo.
public record DomainInfo(
    int state, long maxMemoryKib, long memoryKib, int vcpus, long cpuTimeNanos) {}
