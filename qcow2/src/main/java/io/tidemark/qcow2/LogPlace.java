// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import java.nio.file.Path;
import java.util.Optional;

/// Where an image's log is, and what it must be bound to.
record LogPlace(Path path, ChangeLog.Identity identity) {
  /// None for an image without a run dir, or that is no file of this machine.
  static Optional<LogPlace> of(BlockNode file, OpenOptions options) {
    if (options.runDir().isEmpty() || !(file instanceof FileNode node)) {
      return Optional.empty();
    }
    return ChangeLog.Identity.of(node.path())
        .map(identity -> new LogPlace(identity.logIn(options.runDir().get()), identity));
  }
}
