// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ResizeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image commit`: what an image and the layers beneath it hold goes into a backing image.
///
/// Order: the base grows where it is smaller; all is copied; the base is flushed; then the image is
/// emptied, unless `-d` or `-b` says to leave it. After a crash the image still reads the same.
@Command(
    name = "commit",
    description = "Writes what an image holds into its backing image.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageCommit implements Callable<Integer> {
  private static final int SPARSE = 4096;

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin TalkOptions talk = new TalkOptions();

  @Option(
      names = "-b",
      paramLabel = "FILE",
      description = "image of the chain to commit into; implies -d. Default: the one right beneath")
  Optional<String> baseName = Optional.empty();

  @Option(names = "-d", description = "leave the image as it is: do not empty it")
  boolean keep;

  @Option(names = "-r", paramLabel = "BYTES", description = "copy at most this much a second")
  Optional<String> rate = Optional.empty();

  @Option(names = "-t", paramLabel = "CACHE", description = "unsafe: do not sync the images")
  String cache = "writeback";

  @Parameters(paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws IOException, CommandException {
    OpenOptions options = OpenOptions.readWrite().with(CacheMode.of("-t", cache).durability());
    Pace pace = rate.isPresent() ? new Pace(ImageSize.parse("-r", rate.get())) : Pace.UNBOUND;
    try (FormatNode top = input.open(file, options)) {
      FormatNode base = base(top);
      base.reopen(false);
      if (base.virtualSize() < top.virtualSize()) {
        base.resize(top.virtualSize(), ResizeOptions.GROW);
      }
      Progress line = talk.progress(spec.commandLine().getOut(), 1.0);
      try {
        var plan = new Conversion.Plan(Conversion.Target.UNKNOWN, SPARSE, 0);
        new Conversion(new SourceDisk(top, base), base, plan, line, pace, _ -> {}).run();
        line.update(1, 1);
      } finally {
        line.end();
      }
      base.flush();
      base.reopen(true);
      if (!keep && baseName.isEmpty()) {
        empty(top);
      }
    }
    talk.say(spec.commandLine().getOut(), "Image committed.");
    return ExitStatus.DONE.code();
  }

  private void empty(FormatNode top) throws CommandException {
    try {
      top.empty();
      top.flush();
    } catch (BlockException failure) {
      throw new CommandException(
          file + ": committed, but could not be emptied: " + Tidemark.text(failure));
    }
  }

  private FormatNode base(FormatNode top) throws IOException, CommandException {
    if (top.backing().isEmpty()) {
      throw new CommandException(file + ": has no backing file to commit into");
    }
    FormatNode overlay = top;
    while (overlay.backing().isPresent() && overlay.backing().get() instanceof FormatNode backing) {
      if (baseName.isEmpty() || isBase(overlay, backing)) {
        return backing;
      }
      overlay = backing;
    }
    throw new CommandException(
        file + ": '" + baseName.orElse("") + "' is not in its backing chain");
  }

  /// qemu: the name is understood as one that the overlay could record.
  private boolean isBase(FormatNode overlay, FormatNode backing) throws IOException {
    if (!(overlay.file() instanceof FileNode above)
        || !(backing.file() instanceof FileNode beneath)) {
      return false;
    }
    Optional<Path> named =
        ImageOpener.resolve(
            above.path(), new BackingReference(baseName.orElseThrow(), Optional.empty()));
    return named.isPresent()
        && Files.exists(named.get())
        && Files.isSameFile(named.get(), beneath.path());
  }
}
