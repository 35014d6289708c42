// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

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
    exitCodeOnInvalidInput = 1,
    subcommands = {
      ImageCheck.class,
      ImageCompare.class,
      ImageConvert.class,
      ImageCreate.class,
      ImageInfo.class,
      ImageMap.class,
    })
final class ImageCommand implements Runnable {
  @Spec CommandSpec spec = CommandSpec.create();

  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no image command given");
  }
}
