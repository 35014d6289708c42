// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block.spi;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SourceOptions;
import java.util.Set;

/// A way to reach the bytes of an image, found with `ServiceLoader`: QEMU's protocol drivers.
public interface ProtocolDriver {
  /// The names QEMU gives it in `driver=`.
  Set<String> names();

  /// What stands before the first colon of a file name that is this driver's, in lower case: `nbd`,
  /// `nbd+unix`.
  Set<String> schemes();

  /// Opens what `options` name, and takes from them all that it knows; what is left the caller
  /// refuses. A file name that a scheme chose this driver for is the option `filename`.
  ///
  /// @throws io.tidemark.block.UnsupportedImageException when options are missing or malformed
  BlockNode open(SourceOptions options, OpenOptions how) throws BlockException;
}
