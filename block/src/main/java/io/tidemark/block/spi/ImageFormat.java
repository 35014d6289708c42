// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block.spi;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Measurement;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.Set;

/// An image format, found with `ServiceLoader`.
public interface ImageFormat {
  /// The name libvirt and QEMU use: `raw`, `qcow2`.
  String name();

  /// Whether the first bytes of a file (up to 512) are of this format. `raw` matches nothing: it is
  /// what remains.
  boolean probe(ByteBuffer head);

  /// Options of an open image, by QEMU's names, that make no difference here: sizes of caches, how
  /// soon space is given back. Others are refused.
  default Set<String> openOptions() {
    return Set.of();
  }

  /// Gives `file` the meaning of this format. On success the result owns `file`; on failure the
  /// caller still does.
  FormatNode open(BlockNode file, OpenOptions options) throws BlockException;

  /// As [#open(BlockNode, OpenOptions)], for an image that may be made of several files. The result
  /// owns those it opened.
  default FormatNode open(BlockNode file, OpenOptions options, NamedFiles others)
      throws BlockException {
    return open(file, options);
  }

  /// Writes an empty image into `file`, which is empty, and syncs it. The caller keeps `file`.
  void create(BlockNode file, CreateOptions options) throws BlockException;

  /// As [#create(BlockNode, CreateOptions)], for an image that may be made of several files.
  default void create(BlockNode file, CreateOptions options, NamedFiles others)
      throws BlockException {
    create(file, options);
  }

  /// Bytes that an image of these options would take. Nothing is written.
  ///
  /// @param options as for [#create]; with a source, its size is the source's
  /// @param source what would be copied into it, with its chain
  /// @throws UnsupportedImageException when an option is not handled, or the format cannot tell
  default Measurement measure(CreateOptions options, Optional<BlockNode> source)
      throws BlockException {
    throw new UnsupportedImageException("format " + name() + " does not support size measurement");
  }
}
