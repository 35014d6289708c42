// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
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

  static Path path(String name) throws CommandException {
    try {
      return Path.of(name);
    } catch (InvalidPathException malformed) {
      throw new CommandException(name + ": not a file name: " + malformed.getReason());
    }
  }

  ImageOpener opener() {
    return opener;
  }

  String format(Path path, Optional<String> format) throws BlockException {
    return format.isPresent() ? format.get() : opener.probe(path);
  }

  /// Opens an image with its chain.
  FormatNode open(Path path, Optional<String> format, OpenOptions options) throws BlockException {
    return opener.open(path, format(path, format), options);
  }

  /// Opens an image alone.
  FormatNode openLayer(Path path, Optional<String> format, OpenOptions options)
      throws BlockException {
    return opener.openLayer(path, format(path, format), options);
  }

  /// Opens an image that is about to be written as a whole and flushed once, with its chain.
  FormatNode openTarget(Path path, String format) throws BlockException {
    OpenOptions options = OpenOptions.readWrite().with(Durability.FLUSHED);
    FormatNode target = opener.openLayer(path, format, options);
    try {
      var reference = target.backingReference();
      if (reference.isPresent()) {
        Path backing =
            ImageOpener.resolve(path, reference.get())
                .orElseThrow(() ->
                    new io.tidemark.block.UnsupportedImageException(
                        path
                            + ": backing file '"
                            + reference.get().name()
                            + "' is not a local file"));
        target.attachBacking(open(backing, reference.get().format(), OpenOptions.reading()));
      }
      return target;
    } catch (BlockException | RuntimeException failure) {
      closeAfter(failure, target);
      throw failure;
    }
  }

  private static void closeAfter(Exception failure, FormatNode node) {
    try {
      node.close();
    } catch (BlockException second) {
      failure.addSuppressed(second);
    }
  }

  /// Refuses a target that is one of the files of a chain: writing it would change what is read.
  void refuseTargetInChain(Path target, Path top, Optional<String> format, OpenOptions options)
      throws IOException, CommandException {
    if (!Files.exists(target)) {
      return;
    }
    Optional<Path> layer = Optional.of(top);
    Optional<String> layerFormat = format;
    for (int depth = 0; layer.isPresent() && depth < ImageOpener.MAX_DEPTH; depth++) {
      Path path = layer.get();
      if (Files.isSameFile(path, target)) {
        throw new CommandException(target + ": is read as a source, cannot be the target as well");
      }
      try (FormatNode node = openLayer(path, layerFormat, options)) {
        layer = node.backingReference().flatMap(reference -> ImageOpener.resolve(path, reference));
        layerFormat = node.backingReference().flatMap(reference -> reference.format());
      }
    }
  }
}
