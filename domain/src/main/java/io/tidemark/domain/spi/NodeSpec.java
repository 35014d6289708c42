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
/// @param worth what is to become of its content when the driver dies
/// @param way how its host file is reached
public record NodeSpec(
    String name,
    Storage storage,
    String format,
    boolean readOnly,
    Optional<NodeSpec> backing,
    Worth worth,
    Way way) {
  /// How a host file is reached (QEMU: `cache.direct`, `aio`).
  public enum Way {
    /// By the page cache.
    CACHED,
    /// Past it, one request of a thread at a time.
    DIRECT,
    /// Past it, several requests of a thread at a time.
    DIRECT_QUEUED
  }

  /// What an image's content is worth after the death of the driver, or of the host.
  public enum Worth {
    /// A guest's disk: what was acknowledged is there after the death of the driver, what was
    /// flushed after that of the host.
    DISK,
    /// What a job writes and then flushes, once: nothing before that flush, as much as a disk after
    /// it.
    ONCE_FLUSHED,
    /// Nothing: it is not flushed either (QEMU: `cache.no-flush`).
    NONE
  }

  /// By the page cache.
  public NodeSpec(
      String name,
      Storage storage,
      String format,
      boolean readOnly,
      Optional<NodeSpec> backing,
      Worth worth) {
    this(name, storage, format, readOnly, backing, worth, Way.CACHED);
  }

  /// This and the chain beneath, reached by another way.
  public NodeSpec by(Way other) {
    return new NodeSpec(
        name, storage, format, readOnly, backing.map(node -> node.by(other)), worth, other);
  }

  /// Of a guest's disk.
  public NodeSpec(
      String name, Storage storage, String format, boolean readOnly, Optional<NodeSpec> backing) {
    this(name, storage, format, readOnly, backing, Worth.DISK);
  }

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
