// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.file.Path;
import java.util.Optional;

/// Opens an image and the chain beneath it.
///
/// Backing images are opened read-only. Refused: a chain deeper than [#MAX_DEPTH], a chain that
/// meets the same file twice (by device and inode), a backing file without a recorded format
/// (unless probing is allowed).
public final class ImageOpener {
  /// Images in one chain.
  public static final int MAX_DEPTH = 200;

  /// Whether a backing file whose format is not recorded may be probed.
  public enum Probing {
    /// The daemon: a guest could have written what the probe finds (rule 4).
    REFUSED,
    /// `tidemark image`, as qemu-img without `-f`.
    ALLOWED
  }

  public ImageOpener(Probing probing) {
    throw new UnsupportedOperationException();
  }

  /// Opens `path` as `format` with its whole chain.
  public FormatNode open(Path path, String format, OpenOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Opens only this image: the caller attaches the backing node, or none (then unallocated ranges
  /// read as zeroes).
  public FormatNode openLayer(Path path, String format, OpenOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// The format that the first bytes of the file show, `raw` when none matches.
  public String probe(Path path) throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Where a backing reference found in `image` leads: relative names start at the image's folder.
  /// Empty when the name is not a local file.
  public static Optional<Path> resolve(Path image, BackingReference reference) {
    throw new UnsupportedOperationException();
  }

  /// Creates a file and an image in it. A file made by a call that then fails is removed.
  public void create(Path path, String format, CreateOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }
}
