// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import picocli.CommandLine.Option;

/// `--output`.
final class OutputOption {
  @Option(names = "--output", paramLabel = "human|json", description = "layout of the answer")
  OutputFormat layout = OutputFormat.HUMAN;

  boolean json() {
    return layout == OutputFormat.JSON;
  }
}
