// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import java.util.HashSet;
import java.util.List;

/// A node offered over NBD.
///
/// The server never closes `node`. Its size is read when a client opens the export; a later resize
/// is seen when the client reconnects.
///
/// @param name what a client asks for; empty is the default export; at most [#MAX_NAME_BYTES] bytes
///   of UTF-8, unique in a server
/// @param node what is read and written
/// @param description free text for clients that ask
/// @param readOnly refuse changes even where the node would take them
/// @param bitmaps offered as metadata contexts `qemu:dirty-bitmap:NAME`; they may change while they
///   are exported
/// @param allocationDepth offer the metadata context `qemu:allocation-depth`
public record Export(
    String name,
    BlockNode node,
    String description,
    boolean readOnly,
    List<DirtyBitmap> bitmaps,
    boolean allocationDepth) {
  /// Bytes in a name, a description or a context. Spec: proto.md, "Values", string lengths.
  public static final int MAX_NAME_BYTES = 4096;

  public Export {
    checkLength("export name", name);
    checkLength("export description", description);
    bitmaps = List.copyOf(bitmaps);
    var names = new HashSet<String>();
    for (DirtyBitmap bitmap : bitmaps) {
      checkLength("metadata context", MetaContext.BITMAP_PREFIX + bitmap.name());
      if (!names.add(bitmap.name())) {
        throw new IllegalArgumentException(
            "export " + name + ": bitmap " + bitmap.name() + " is given twice");
      }
    }
  }

  /// Without `qemu:allocation-depth`.
  public Export(
      String name,
      BlockNode node,
      String description,
      boolean readOnly,
      List<DirtyBitmap> bitmaps) {
    this(name, node, description, readOnly, bitmaps, false);
  }

  /// A writable export, as far as the node is, without bitmaps.
  public static Export of(String name, BlockNode node) {
    return new Export(name, node, "", node.readOnly(), List.of());
  }

  /// Whether a client may change the export.
  public boolean writable() {
    return !readOnly && !node.readOnly();
  }

  private static void checkLength(String what, String text) {
    int bytes = text.getBytes(UTF_8).length;
    if (bytes > MAX_NAME_BYTES) {
      throw new IllegalArgumentException(
          what + " of " + bytes + " bytes, at most " + MAX_NAME_BYTES + " are allowed");
    }
  }
}
