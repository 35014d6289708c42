// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// Guest requests of a drive that ended well, and those that failed. Times are the sums of
/// nanoseconds spent.
public record IoStatistics(
    long readOperations,
    long readBytes,
    long readNanos,
    long writeOperations,
    long writeBytes,
    long writeNanos,
    long flushOperations,
    long flushNanos,
    long errors) {}
