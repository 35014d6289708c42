// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.time.Duration;
import java.time.Instant;
import java.util.OptionalLong;

/// A snapshot inside the image, as its table records it.
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
