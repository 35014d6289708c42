// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.OptionalLong;

/// Bytes that a new image will take.
///
/// @param required for the data there is now
/// @param fullyAllocated when every byte of the disk has been written
/// @param bitmaps for copies of the source's persistent bitmaps; empty where source or target
///   cannot hold any
public record Measurement(long required, long fullyAllocated, OptionalLong bitmaps) {}
