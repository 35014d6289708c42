// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// Sizes of an image in bytes, as `virDomainGetBlockInfo` tells them.
///
/// @param capacity what the guest sees
/// @param allocation blocks taken on the host; QEMU reports the highest used offset of a running
///   qcow2 image instead
/// @param physical length of the file
public record ImageSizes(long capacity, long allocation, long physical) {}
