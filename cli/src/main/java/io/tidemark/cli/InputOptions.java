// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import java.util.Optional;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// How the images that a command line names are to be understood: `-f`, `--image-opts` and, for
/// `tls-creds=ID` in their options, `--object`.
final class InputOptions {
  @Option(
      names = "-f",
      paramLabel = "FORMAT",
      description = "format of the image; default: what its first bytes show")
  Optional<String> format = Optional.empty();

  @Option(
      names = "--image-opts",
      description = "images are named by options: driver=qcow2,file.filename=disk.qcow2")
  boolean imageOptions;

  @Mixin TlsObjects objects = new TlsObjects();

  private final ImageFiles files = new ImageFiles();

  ImageFiles files() {
    return files;
  }

  /// Opens an image with its chain.
  FormatNode open(String name, OpenOptions options) throws BlockException, CommandException {
    return open(name, format, options);
  }

  /// As [#open(String, OpenOptions)], in another format than `-f` says.
  FormatNode open(String name, Optional<String> otherFormat, OpenOptions options)
      throws BlockException, CommandException {
    check();
    return open(name, otherFormat, imageOptions, options);
  }

  /// As [#open(String, OpenOptions)], for a name that is to be understood in another way.
  FormatNode open(String name, Optional<String> otherFormat, boolean byOptions, OpenOptions options)
      throws BlockException, CommandException {
    ImageSource source = objects.resolve(ImageFiles.source(name, byOptions));
    return files.opener().open(source, otherFormat, options);
  }

  /// Opens an image alone: ranges that it does not hold read as zeroes.
  FormatNode openLayer(String name, OpenOptions options) throws BlockException, CommandException {
    check();
    return files.opener().openLayer(source(name), format, options);
  }

  /// What a name names.
  ImageSource source(String name) throws BlockException, CommandException {
    check();
    return objects.resolve(ImageFiles.source(name, imageOptions));
  }

  private void check() throws CommandException {
    if (imageOptions && format.isPresent()) {
      throw new CommandException("--image-opts and -f cannot be used together: use driver=");
    }
  }
}
