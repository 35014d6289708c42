// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/// Opens the images that a user names on the command line. Such a user is trusted to mean what the
/// file is: without `-f` the format is probed, for backing files too, as qemu-img does.
final class ImageFiles {
  private final ImageOpener opener =
      new ImageOpener(ImageOpener.Probing.ALLOWED, LogFolder.present());

  /// How an image is opened for reading.
  ///
  /// @param forceShare beside a writer, without locks (`-U`)
  static OpenOptions reading(boolean forceShare) {
    return forceShare ? OpenOptions.forceShare() : OpenOptions.reading();
  }

  /// The local file that a name leads to, for a file that is to be made.
  static Path path(String name) throws BlockException, CommandException {
    return ImageSource.parse(name)
        .localFile()
        .orElseThrow(() -> new CommandException(name + ": is not the name of a local file"));
  }

  /// What a name on the command line names.
  ///
  /// @param byOptions it is a list of options (`--image-opts`)
  static ImageSource source(String name, boolean byOptions) throws BlockException {
    return byOptions ? ImageSource.ofOptions(name) : ImageSource.parse(name);
  }

  ImageOpener opener() {
    return opener;
  }

  /// Opens an image alone.
  FormatNode openLayer(String name, Optional<String> format, boolean byOptions, OpenOptions options)
      throws BlockException {
    return opener.openLayer(source(name, byOptions), format, options);
  }

  /// Refuses a target that is one of the files of an open chain: writing it would change what is
  /// read.
  static void refuseTargetInChain(Path target, BlockNode top) throws IOException, CommandException {
    if (!Files.exists(target)) {
      return;
    }
    for (Optional<BlockNode> layer = Optional.of(top);
        layer.isPresent();
        layer = layer.get().backing()) {
      if (layer.get() instanceof FormatNode format
          && format.file() instanceof FileNode file
          && Files.isSameFile(file.path(), target)) {
        throw new CommandException(target + ": is read as a source, cannot be the target as well");
      }
    }
  }
}
