// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.cli.Subcommands.Subcommand;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/// `tidemark image`: offline work on images, with qemu-img's words, options and exit codes.
@Command(
    name = "image",
    description = "Works on image files, with qemu-img's words, options and exit codes.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    synopsisSubcommandLabel = "COMMAND",
    exitCodeOnInvalidInput = 1)
final class ImageCommand implements Runnable {
  static final Subcommands BENEATH =
      Subcommands.of(
          Subcommand.of("amend", ImageAmend::new),
          Subcommand.of("bitmap", ImageBitmap::new),
          Subcommand.of("check", ImageCheck::new),
          Subcommand.of("commit", ImageCommit::new),
          Subcommand.of("compare", ImageCompare::new),
          Subcommand.of("convert", ImageConvert::new),
          Subcommand.of("create", ImageCreate::new),
          Subcommand.of("dd", ImageDd::new),
          Subcommand.of("info", ImageInfo::new),
          Subcommand.of("map", ImageMap::new),
          Subcommand.of("measure", ImageMeasure::new),
          Subcommand.of("rebase", ImageRebase::new),
          Subcommand.of("resize", ImageResize::new),
          Subcommand.of("snapshot", ImageSnapshot::new));

  @Spec CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no image command given");
  }
}
