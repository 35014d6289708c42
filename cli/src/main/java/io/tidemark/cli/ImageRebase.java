// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
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

/// `tidemark image rebase`: another backing file. What reads otherwise there is copied into the
/// image and flushed first; then the header is changed. With `-u` only the header.
@Command(
    name = "rebase",
    description = "Gives an image another backing file, or none.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageRebase implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin ShareOption share = new ShareOption();

  @Mixin TalkOptions talk = new TalkOptions();

  @Option(
      names = "-b",
      paramLabel = "FILE",
      required = true,
      description = "the new backing file, relative to the image's folder; '' for none")
  String backingFile = "";

  @Option(names = "-F", paramLabel = "FORMAT", description = "format of the new backing file")
  Optional<String> backingFormat = Optional.empty();

  @Option(names = "-u", description = "only change the name: no image of either chain is opened")
  boolean unsafe;

  @Option(names = "-t", paramLabel = "CACHE", description = "unsafe: do not sync the image")
  String cache = "writeback";

  @Option(names = "-T", paramLabel = "CACHE", description = "accepted for qemu-img's sake")
  String sourceCache = "writeback";

  @Parameters(paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws IOException, CommandException {
    OpenOptions options = OpenOptions.readWrite().with(CacheMode.of("-t", cache).durability());
    CacheMode.of("-T", sourceCache);
    Optional<BackingReference> reference =
        backingFile.isEmpty()
            ? Optional.empty()
            : Optional.of(new BackingReference(backingFile, backingFormat));
    if (reference.isPresent() && backingFormat.isEmpty()) {
      throw new CommandException(
          file + ": backing file '" + backingFile + "' needs its format: add -F");
    }
    Progress line = talk.progress(spec.commandLine().getOut(), 1.0);
    try (FormatNode overlay = unsafe ? input.openLayer(file, options) : input.open(file, options)) {
      if (!unsafe) {
        rebase(overlay, reference, line);
        overlay.flush();
      }
      overlay.changeBacking(reference);
      line.update(1, 1);
    } finally {
      line.end();
    }
    return ExitStatus.DONE.code();
  }

  private void rebase(FormatNode overlay, Optional<BackingReference> reference, Progress line)
      throws IOException, CommandException {
    if (reference.isEmpty()) {
      new Rebasing(overlay, Optional.empty(), Optional.empty()).run(line);
      return;
    }
    ImageSource source = ImageOpener.resolve(ImageSource.of(path(overlay)), reference.get());
    Optional<Path> path = source.localFile().filter(Files::exists);
    if (path.isPresent() && Files.isSameFile(path.get(), path(overlay))) {
      throw new CommandException(file + ": cannot be its own backing file");
    }
    try (FormatNode backing = input.files().opener().open(source, backingFormat, share.reading())) {
      refuseLoop(overlay, backing);
      new Rebasing(overlay, Optional.of(backing), inChain(overlay, path)).run(line);
    }
  }

  private void refuseLoop(FormatNode overlay, FormatNode backing)
      throws IOException, CommandException {
    for (Optional<BlockNode> node = backing.backing();
        node.isPresent();
        node = node.get().backing()) {
      if (node.get() instanceof FormatNode layer
          && layer.file() instanceof FileNode one
          && Files.isSameFile(one.path(), path(overlay))) {
        throw new CommandException(
            file + ": is beneath its new backing file '" + backingFile + "' already");
      }
    }
  }

  /// The node of the overlay's chain that is this file.
  private static Optional<BlockNode> inChain(FormatNode overlay, Optional<Path> path)
      throws IOException {
    if (path.isEmpty()) {
      return Optional.empty();
    }
    for (Optional<BlockNode> node = overlay.backing();
        node.isPresent();
        node = node.get().backing()) {
      if (node.get() instanceof FormatNode layer
          && layer.file() instanceof FileNode one
          && Files.isSameFile(one.path(), path.get())) {
        return node;
      }
    }
    return Optional.empty();
  }

  private Path path(FormatNode overlay) throws CommandException {
    if (overlay.file() instanceof FileNode node) {
      return node.path();
    }
    throw new CommandException(file + ": is not a local file, cannot be rebased");
  }
}
