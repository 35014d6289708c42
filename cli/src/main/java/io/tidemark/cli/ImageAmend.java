// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image amend`.
@Command(
    name = "amend",
    description = "Changes options that an image was made with.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageAmend implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Option(
      names = "-o",
      paramLabel = "NAME=VALUE,…",
      description = "options of the format; help lists those that can be amended")
  List<String> options = new ArrayList<>();

  @Option(names = "-p", description = "show progress")
  boolean progress;

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Option(
      names = "-t",
      paramLabel = "CACHE",
      description = "cache mode of writing; default writeback")
  String cache = "writeback";

  @Option(names = "--force", description = "accepted as qemu-img has it: nothing here is forced")
  boolean force;

  @Parameters(index = "0", paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws BlockException, CommandException {
    if (options.isEmpty()) {
      throw new CommandException("must specify options (-o)");
    }
    boolean help = FormatOptions.helpAsked(options);
    OpenOptions how =
        help
            ? OpenOptions.reading()
            : OpenOptions.readWrite().with(CacheMode.of("-t", cache).durability());
    try (FormatNode node = input.open(file, how)) {
      var wanted = new FormatOptions(file, node.format());
      if (help) {
        spec.commandLine().getOut().print(wanted.amendHelp());
        return ExitStatus.DONE.code();
      }
      wanted.addAll(file, options);
      var line = new Progress(spec.commandLine().getOut(), progress && !quiet, 1);
      try {
        node.amend(wanted.all());
        line.update(1, 1);
      } finally {
        line.end();
      }
    }
    return ExitStatus.DONE.code();
  }
}
