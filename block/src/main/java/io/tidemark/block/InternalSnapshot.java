// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.time.Duration;
import java.time.Instant;
import java.util.OptionalLong;

/// A snapshot inside an image, as its table records it: the disk as it was, kept in the same file.
///
/// Spec: qcow2.rst, "Snapshots".
///
/// @param id unique in the image, usually a number
/// @param date when it was taken
/// @param guestClock running time of the guest then
/// @param vmStateBytes size of the saved guest state, 0 when there is none
/// @param virtualSize size of the disk then, bytes
/// @param instructions how many the guest had executed, an unsigned number; absent where not
///   counted
public record InternalSnapshot(
    String id,
    String name,
    Instant date,
    Duration guestClock,
    long vmStateBytes,
    long virtualSize,
    OptionalLong instructions) {}
