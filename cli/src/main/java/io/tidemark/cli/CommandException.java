// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

/// A command that was refused or failed for a reason its user can act on: printed as one line
/// `tidemark: …` without a stack, and turned into the exit code.
public final class CommandException extends Exception {
  private static final long serialVersionUID = 1L;

  private final int exitCode;

  /// @param message object, place, what was found, what was wanted; lower case, no full stop
  public CommandException(String message) {
    this(message, ExitStatus.FAILED.code());
  }

  public CommandException(String message, int exitCode) {
    super(message);
    this.exitCode = exitCode;
  }

  /// A command line that picocli let pass and that still makes no sense.
  public static CommandException usage(String message) {
    return new CommandException(message, ExitStatus.USAGE.code());
  }

  public int exitCode() {
    return exitCode;
  }
}
