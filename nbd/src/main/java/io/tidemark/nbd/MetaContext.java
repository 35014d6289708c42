// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.DirtyBitmap;
import org.jspecify.annotations.Nullable;

/// A metadata context that a client selected: which question a block status request answers.
///
/// Spec: proto.md, "Metadata querying".
///
/// @param id chosen by the server, unique within the connection
/// @param name on the wire
/// @param bitmap what answers for a `qemu:dirty-bitmap:`, else null
record MetaContext(int id, String name, @Nullable DirtyBitmap bitmap) {
  static final String ALLOCATION = "base:allocation";
  static final String DEPTH = "qemu:allocation-depth";
  static final String BITMAP_PREFIX = "qemu:dirty-bitmap:";
}
