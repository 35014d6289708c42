// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// A disk in error.
///
/// @param target `vda`
/// @param code virDomainDiskErrorCode: 1 some error, 2 no space
public record DiskError(String target, int code) {}
