// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.NamedFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/// The further files of an image that is being created. A relative name starts at the image's
/// folder, as when it is opened.
///
/// @param image the image's own file, which no other name may lead to
record NewFiles(Path image) implements NamedFiles {
  @Override
  public BlockNode open(String name) throws BlockException {
    return FileNode.open(path(name), OpenOptions.readWrite());
  }

  @Override
  public BlockNode create(String name) throws BlockException {
    Path path = path(name);
    try {
      if (!Files.exists(path)) {
        FileNode made = FileNode.create(path);
        try {
          if (Files.exists(image)) { // read and written by the same people
            Files.setPosixFilePermissions(path, Files.getPosixFilePermissions(image));
          }
          return made;
        } catch (IOException e) {
          ChainOpening.closeAfter(e, made);
          throw e;
        }
      }
      if (Files.exists(image) && Files.isSameFile(path, image)) {
        throw new UnsupportedImageException(
            image + ": data file '" + name + "' is the image itself");
      }
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
    FileNode node = FileNode.open(path, OpenOptions.readWrite());
    try {
      if (node.isDevice()) {
        node.writeZeroes(0, node.virtualSize(), ZeroMode.MAY_UNMAP);
      } else {
        node.resize(0);
      }
      return node;
    } catch (BlockException e) {
      ChainOpening.closeAfter(e, node);
      throw e;
    }
  }

  private Path path(String name) throws BlockException {
    return ImageOpener.resolve(ImageSource.of(image), new BackingReference(name, Optional.empty()))
        .localFile()
        .orElseThrow(() ->
            new UnsupportedImageException(
                image + ": data file '" + name + "' is not a local file"));
  }
}
