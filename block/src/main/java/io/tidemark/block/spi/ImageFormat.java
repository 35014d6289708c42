// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block.spi;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import java.nio.ByteBuffer;

/// An image format, found with `ServiceLoader`.
public interface ImageFormat {
  /// The name libvirt and QEMU use: `raw`, `qcow2`.
  String name();

  /// Whether the first bytes of a file (up to 512) are of this format. `raw` matches nothing: it is
  /// what remains.
  boolean probe(ByteBuffer head);

  /// Gives `file` the meaning of this format. On success the result owns `file`; on failure the
  /// caller still does.
  FormatNode open(BlockNode file, OpenOptions options) throws BlockException;

  /// Writes an empty image into `file`, which is empty, and syncs it. The caller keeps `file`.
  void create(BlockNode file, CreateOptions options) throws BlockException;
}
