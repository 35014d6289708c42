// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.qcow2.Qcow2Image;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image snapshot`: snapshots inside an image.
@Command(
    name = "snapshot",
    description = "Lists, makes, applies and deletes snapshots inside an image.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageSnapshot implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin ShareOption share = new ShareOption();

  @Option(names = "-l", description = "list the snapshots (this is done when nothing is asked)")
  boolean list;

  @Option(names = "-c", paramLabel = "NAME", description = "make a snapshot of the disk")
  Optional<String> create = Optional.empty();

  @Option(
      names = "-a",
      paramLabel = "SNAPSHOT",
      description = "make the disk as it was in the snapshot")
  Optional<String> apply = Optional.empty();

  @Option(names = "-d", paramLabel = "SNAPSHOT", description = "delete the snapshot")
  Optional<String> delete = Optional.empty();

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Parameters(paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws BlockException, CommandException {
    long changes = Stream.of(create, apply, delete).filter(Optional::isPresent).count();
    if (changes + (list ? 1 : 0) > 1) {
      throw new CommandException("use one of -l, -a, -c, -d at a time");
    }
    if (changes == 0) {
      list();
    } else {
      change();
    }
    return ExitStatus.DONE.code();
  }

  private void list() throws BlockException, CommandException {
    try (FormatNode node = input.openLayer(file, share.reading())) {
      if (node instanceof Qcow2Image image) {
        image.requireSnapshots();
      }
      List<InternalSnapshot> snapshots =
          node.snapshots().map(SnapshotStore::list).orElse(List.of());
      if (!quiet) {
        spec.commandLine().getOut().print(SnapshotList.text(snapshots));
      }
    }
  }

  private void change() throws BlockException, CommandException {
    if (share.forceShare) {
      throw new CommandException("-U is for -l: a snapshot cannot be changed beside a writer");
    }
    // With its chain: applying a snapshot of another size asks what lies beneath.
    try (FormatNode node = input.open(file, OpenOptions.readWrite().with(Durability.FLUSHED))) {
      SnapshotStore snapshots =
          node.snapshots()
              .orElseThrow(() ->
                  new CommandException(
                      file + ": format '" + node.format() + "' has no internal snapshots"));
      if (create.isPresent()) {
        snapshots.create(create.get(), Instant.now());
      } else if (apply.isPresent()) {
        snapshots.apply(apply.get());
      } else {
        snapshots.delete(delete.orElseThrow());
      }
    }
  }
}
