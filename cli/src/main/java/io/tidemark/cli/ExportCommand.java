// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.cli.Subcommands.Subcommand;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;

/// `tidemark export`: images over NBD.
final class ExportCommand implements Runnable {
  static final Subcommands BENEATH =
      Subcommands.of(
          Subcommand.of("serve", ExportServe::command), Subcommand.of("list", ExportList::new));

  private final CommandSpec spec =
      new DeclaredCommand("export", this, "Offers images over NBD, and lists what a server offers.")
          .withCommands()
          .spec();

  private ExportCommand() {}

  /// The command as picocli takes it.
  static CommandSpec command() {
    return new ExportCommand().spec;
  }

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no export command given");
  }
}
