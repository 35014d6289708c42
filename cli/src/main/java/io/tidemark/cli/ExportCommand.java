// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

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
    exitCodeOnInvalidInput = Tidemark.USAGE,
    subcommands = {ExportServe.class, ExportList.class})
final class ExportCommand implements Runnable {
  @Spec CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no export command given");
  }
}
