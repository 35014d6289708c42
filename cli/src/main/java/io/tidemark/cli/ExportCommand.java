// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.cli.Subcommands.Subcommand;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/// `tidemark export`: images over NBD.
@Command(
    name = "export",
    description = "Offers images over NBD, and lists what a server offers.",
    mixinStandardHelpOptions = true,
    synopsisSubcommandLabel = "COMMAND",
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class ExportCommand implements Runnable {
  static final Subcommands BENEATH =
      Subcommands.of(
          Subcommand.of("serve", ExportServe::new), Subcommand.of("list", ExportList::new));

  @Spec CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no export command given");
  }
}
