// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.PrintWriter;
import picocli.CommandLine.Option;

/// `-p` and `-q`, of commands that take long.
final class TalkOptions {
  @Option(names = "-p", description = "show progress")
  boolean progress;

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  /// The progress line, drawn when it is asked for.
  ///
  /// @param step percent between two lines
  Progress progress(PrintWriter out, double step) {
    return new Progress(out, progress && !quiet, step);
  }

  void say(PrintWriter out, String text) {
    if (!quiet) {
      out.println(text);
    }
  }
}
