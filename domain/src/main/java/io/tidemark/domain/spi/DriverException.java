// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/// A driver or image operation that did not succeed. `kind` is what the domain room acts on; the
/// text is for people.
public final class DriverException extends IOException {
  private static final long serialVersionUID = 1L;

  /// Why, as far as libvirt's answers differ by it.
  public enum Kind {
    /// Anything else (QEMU: GenericError).
    GENERIC,
    /// A job, node, bitmap or disk of that name is not there.
    NOT_FOUND,
    /// The verb does not fit the job's state; for COMPLETE before READY, libvirt says "not ready
    /// for pivot yet".
    JOB_STATE,
    /// Another holder has the image (QEMU: Failed to get "write" lock).
    IMAGE_BUSY,
    /// A file is missing or may not be opened.
    MISSING_FILE,
    /// The file is not what its format says.
    CORRUPT_IMAGE,
    /// Well-formed but not handled.
    UNSUPPORTED,
    /// ENOSPC.
    OUT_OF_SPACE,
    /// A bitmap that is there and not to be trusted.
    INCONSISTENT_BITMAP
  }

  private final Kind kind;

  public DriverException(Kind kind, String message, @Nullable Throwable cause) {
    super(message, cause);
    this.kind = kind;
  }

  public DriverException(Kind kind, String message) {
    this(kind, message, null);
  }

  public Kind kind() {
    return kind;
  }
}
