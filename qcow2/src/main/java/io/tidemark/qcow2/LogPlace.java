// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import io.tidemark.block.FileTrace;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import java.nio.file.Path;
import java.util.Optional;

/// Where an image's log is, and what it must be bound to.
///
/// @param file asked for its trace when a log is made; empty: the identity is trusted
record LogPlace(Path path, ChangeLog.Identity identity, Optional<FileNode> file) {
  LogPlace(Path path, ChangeLog.Identity identity) {
    this(path, identity, Optional.empty());
  }

  /// None for an image without a run dir, or that is no file of this machine.
  static Optional<LogPlace> of(BlockNode file, OpenOptions options) {
    if (options.runDir().isEmpty() || !(file instanceof FileNode node)) {
      return Optional.empty();
    }
    return ChangeLog.Identity.of(node.path())
        .map(identity ->
            new LogPlace(identity.logIn(options.runDir().get()), identity, Optional.of(node)));
  }

  /// Makes the log, empty.
  ///
  /// @throws UnsupportedImageException when no log can be bound to this image
  ChangeLog create(Geometry geometry) throws BlockException {
    if (file.isEmpty()) {
      return ChangeLog.create(path, identity, Optional.empty(), geometry);
    }
    FileTrace trace =
        file.get()
            .trace()
            .orElseThrow(() ->
                new UnsupportedImageException(
                    file.get().name()
                        + ": its file system does not keep when a file was made, so nothing tells"
                        + " it from a later file with its inode number"));
    // The identity was read by name: who renames an image while it is opened gets no log.
    if (trace.device() != identity.device()
        || trace.inode() != identity.inode()
        || trace.birthNanos() != identity.birthNanos()) {
      throw new UnsupportedImageException(
          file.get().name() + ": another file took its name while it was opened");
    }
    return ChangeLog.create(path, identity, Optional.of(trace), geometry);
  }
}
