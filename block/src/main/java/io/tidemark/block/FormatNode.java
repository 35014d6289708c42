// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Optional;

/// A node that gives the bytes of another node, its `file`, the meaning of an image format.
public interface FormatNode extends BlockNode {
  /// The format's name as libvirt and QEMU write it: `raw`, `qcow2`.
  String format();

  /// The node that holds the image's bytes. Owned: closed with this node.
  BlockNode file();

  /// The backing file as recorded in the image, whether or not a backing node is attached.
  Optional<BackingReference> backingReference();

  /// Attaches the chain beneath. Called once, before the first request. Owned: closed with this
  /// node, unless [#detachBacking] took it back.
  void attachBacking(BlockNode backing);

  /// Takes the backing node back, for closing or for use beneath another node. Only while no
  /// request is running.
  Optional<BlockNode> detachBacking();

  /// The place for bitmaps that outlive the process, where the format has one.
  default Optional<BitmapStore> bitmapStore() {
    return Optional.empty();
  }
}
