// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.concurrent.Callable;
import picocli.AutoComplete;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark completion`: the script that completes words in a shell.
@Command(
    name = "completion",
    description = "Prints the script that completes the words of this command in bash or zsh.",
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class CompletionCommand implements Callable<Integer> {
  /// The shells; one script serves both.
  enum Shell {
    BASH,
    ZSH
  }

  @Spec CommandSpec spec = CommandSpec.create();

  @Parameters(paramLabel = "bash|zsh", description = "the shell")
  Shell shell = Shell.BASH;

  @Override
  public Integer call() {
    spec.commandLine().getOut().print(AutoComplete.bash("tidemark", Tidemark.commandFor()));
    return ExitStatus.DONE.code();
  }
}
