// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.UUID;

/// A domain as the wire names it.
///
/// @param id positive while it runs, -1 otherwise
public record DomainRef(String name, UUID uuid, int id) {}
