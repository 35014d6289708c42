// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// Guest requests of a drive since the domain started; times are nanoseconds summed.
public record DriveStatistics(
    long readOperations,
    long readBytes,
    long readNanos,
    long writeOperations,
    long writeBytes,
    long writeNanos,
    long flushOperations,
    long flushNanos,
    long errors) {}
