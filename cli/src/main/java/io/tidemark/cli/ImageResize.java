// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ResizeOptions;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image resize`.
@Command(
    name = "resize",
    description = "Changes the size of the disk in an image.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageResize implements Callable<Integer> {
  private CommandSpec spec = CommandSpec.create();

  @Spec
  void spec(CommandSpec own) {
    spec = own;
    spec.parser().unmatchedOptionsArePositionalParams(true); // -1G is a size
  }

  @Mixin InputOptions input = new InputOptions();

  @Option(
      names = "--preallocation",
      paramLabel = "off|metadata|falloc|full",
      description = "what is done ahead for the new bytes")
  String preallocation = Preallocation.OFF.word();

  @Option(names = "--shrink", description = "allow a smaller size: what is cut off is lost")
  boolean shrink;

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Parameters(index = "0", paramLabel = "FILE")
  String file = "";

  @Parameters(
      index = "1",
      paramLabel = "[+|-]SIZE",
      description = "the new size, or how much larger or smaller")
  String size = "";

  @Override
  public Integer call() throws BlockException, CommandException {
    Preallocation ahead =
        Preallocation.of(preallocation)
            .orElseThrow(() ->
                new CommandException(
                    "--preallocation '"
                        + preallocation
                        + "' is not known: use off, metadata, falloc or full"));
    boolean relative = size.startsWith("+") || size.startsWith("-");
    long amount = ImageSize.parse("size", relative ? size.substring(1) : size);
    try (FormatNode node = input.open(file, OpenOptions.readWrite().with(Durability.FLUSHED))) {
      long before = node.virtualSize();
      long wanted = relative ? added(before, size.startsWith("-") ? -amount : amount) : amount;
      if (wanted <= 0) {
        throw new CommandException(file + ": new size " + wanted + " is not above 0");
      }
      if (wanted <= before && ahead != Preallocation.OFF) {
        throw new CommandException(
            file + ": preallocation is for growing; the disk has " + before + " bytes already");
      }
      if (wanted < before && !shrink) {
        throw new CommandException(
            file
                + ": shrinking from "
                + before
                + " to "
                + wanted
                + " bytes deletes what is cut off; use --shrink if that is meant");
      }
      node.resize(wanted, new ResizeOptions(ahead, shrink));
      node.flush();
    }
    if (!quiet) {
      spec.commandLine().getOut().println("Image resized.");
    }
    return ExitStatus.DONE.code();
  }

  private long added(long before, long amount) throws CommandException {
    try {
      return Math.addExact(before, amount);
    } catch (ArithmeticException overflow) {
      throw new CommandException(file + ": " + before + " bytes " + size + " is past 2^63 - 1");
    }
  }
}
