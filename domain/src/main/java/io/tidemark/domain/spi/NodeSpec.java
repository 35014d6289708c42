// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.nio.file.Path;
import java.util.Optional;

/// An image as a node of a running domain's block graph (QEMU: a `blockdev-add` of format over
/// storage).
///
/// The domain room chooses `name` and never uses it twice in one run: `libvirt-N-format`, N the
/// index that clients see.
///
/// @param name node name
/// @param storage where the image lies
/// @param format `raw` or `qcow2`; never probed by a driver
/// @param readOnly whether guests and jobs may write it
/// @param backing the node beneath: added with this one, or already there under that name; absent:
///   the chain ends here, whatever the image's header says
public record NodeSpec(
    String name, Storage storage, String format, boolean readOnly, Optional<NodeSpec> backing) {
  /// In a regular file.
  ///
  /// @param file absolute
  public NodeSpec(
      String name, Path file, String format, boolean readOnly, Optional<NodeSpec> backing) {
    this(name, new Storage.LocalFile(file), format, readOnly, backing);
  }

  /// The image's path on this host.
  ///
  /// @throws java.util.NoSuchElementException when it has none
  public Path file() {
    return storage.path().orElseThrow();
  }
}
