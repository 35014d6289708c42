// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.util.Arrays;

/// What Jazzer calls with the bytes that it makes up: see [FuzzedImageTest].
final class FuzzedImage {
  private FuzzedImage() {}

  public static void fuzzerTestOneInput(byte[] image) throws BlockException {
    HostileRun.use(image, Arrays.hashCode(image), true);
    HostileRun.use(image, Arrays.hashCode(image), false);
  }
}
