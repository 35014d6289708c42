// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.OpenOptions;
import picocli.CommandLine.Option;

/// `-U`, of commands that read.
final class ShareOption {
  @Option(
      names = {"-U", "--force-share"},
      description = "read beside a writer")
  boolean forceShare;

  OpenOptions reading() {
    return ImageFiles.reading(forceShare);
  }
}
