// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block.spi;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.UnsupportedImageException;

/// Opens the further files that an image is made of, by the names its header gives them. What is
/// opened is a plain file or device; nothing is ever probed in it.
public interface NamedFiles {
  /// Nothing but the image's own file may be opened.
  NamedFiles NONE =
      name -> {
        throw new UnsupportedImageException("file '" + name + "' cannot be opened from here");
      };

  /// Opens a file with the image's own rights and locks. A relative name starts at the image's
  /// folder.
  ///
  /// @throws UnsupportedImageException when the name is not a local file, or is a file of this
  ///   chain already
  BlockNode open(String name) throws BlockException;

  /// Makes an empty file for writing; one that is there loses its content.
  default BlockNode create(String name) throws BlockException {
    throw new UnsupportedImageException("file '" + name + "' cannot be created from here");
  }
}
