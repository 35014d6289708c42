// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// A bitmap of a running drive. An inconsistent one is known only by name: it cannot be read,
/// merged or recorded into.
public record BitmapState(
    String name,
    long granularityBytes,
    long dirtyBytes,
    boolean recording,
    boolean persistent,
    boolean inconsistent) {}
