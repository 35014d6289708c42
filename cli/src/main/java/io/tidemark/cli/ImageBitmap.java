// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image bitmap`: the persistent bitmaps of an image. The actions are done in the order
/// in which they are given.
@Command(
    name = "bitmap",
    description = "Adds, removes, clears, enables, disables and merges persistent bitmaps.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageBitmap implements Callable<Integer> {
  /// Bytes of a bit of a new bitmap: QEMU's bounds for what it makes by itself.
  private static final long DEFAULT_GRANULARITY = 65536;

  private static final long LEAST_DEFAULT = 4096;

  /// One change of the bitmap that the command names.
  private interface Action {
    void apply(BitmapStore bitmaps, long clusterSize) throws BlockException, CommandException;
  }

  private final List<Action> actions = new ArrayList<>();
  private boolean adds;
  private boolean merges;

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Option(
      names = {"-b", "--source-file"},
      paramLabel = "FILE",
      description = "image that --merge takes its bitmaps from; default: the same")
  Optional<String> sourceFile = Optional.empty();

  @Option(
      names = {"-F", "--source-format"},
      paramLabel = "FORMAT",
      description = "format of that image")
  Optional<String> sourceFormat = Optional.empty();

  @Option(
      names = {"-g", "--granularity"},
      paramLabel = "BYTES",
      description = "granularity of an added bitmap; default: the image's clusters, 4k to 64k")
  Optional<String> granularity = Optional.empty();

  @Parameters(index = "0", paramLabel = "FILE")
  String file = "";

  @Parameters(index = "1", paramLabel = "BITMAP")
  String bitmap = "";

  // picocli calls the methods below in the order of the command line, and once with false before.

  @Option(names = "--add", description = "add an enabled bitmap")
  void add(boolean asked) {
    if (asked) {
      adds = true;
      actions.add((bitmaps, clusterSize) -> bitmaps.add(bitmap, granularity(clusterSize)));
    }
  }

  @Option(names = "--remove", description = "remove the bitmap")
  void remove(boolean asked) {
    if (asked) {
      actions.add((bitmaps, _) -> bitmaps.remove(bitmap));
    }
  }

  @Option(names = "--clear", description = "forget what it recorded")
  void clear(boolean asked) {
    if (asked) {
      actions.add((bitmaps, _) -> bitmaps.clear(bitmap));
    }
  }

  @Option(names = "--enable", description = "let it record writes")
  void enable(boolean asked) {
    if (asked) {
      actions.add((bitmaps, _) -> bitmaps.enable(bitmap));
    }
  }

  @Option(names = "--disable", description = "keep it as it is")
  void disable(boolean asked) {
    if (asked) {
      actions.add((bitmaps, _) -> bitmaps.disable(bitmap));
    }
  }

  @Option(names = "--merge", paramLabel = "SOURCE", description = "add what SOURCE recorded")
  void merge(Optional<String> source) {
    if (source.isPresent()) {
      merges = true;
      actions.add((bitmaps, _) -> bitmaps.merge(bitmap, source(bitmaps, source.get())));
    }
  }

  @Override
  public Integer call() throws BlockException, CommandException {
    if (actions.isEmpty()) {
      throw new CommandException(
          "need at least one of --add, --remove, --clear, --enable, --disable, --merge");
    }
    if (granularity.isPresent() && !adds) {
      throw new CommandException("-g goes with --add");
    }
    if (sourceFile.isPresent() && !merges) {
      throw new CommandException("-b goes with --merge");
    }
    if (sourceFormat.isPresent() && sourceFile.isEmpty()) {
      throw new CommandException("-F goes with -b");
    }
    try (FormatNode node =
        input.openLayer(file, OpenOptions.readWrite().with(Durability.FLUSHED))) {
      BitmapStore bitmaps = store(file, node);
      for (Action action : actions) {
        action.apply(bitmaps, node.clusterSize());
      }
    }
    return ExitStatus.DONE.code();
  }

  private static BitmapStore store(String name, FormatNode node) throws CommandException {
    return node.bitmapStore()
        .orElseThrow(() ->
            new CommandException(
                name + ": format '" + node.format() + "' has no place for bitmaps"));
  }

  private long granularity(long clusterSize) throws CommandException {
    OptionalLong given =
        granularity.isPresent()
            ? OptionalLong.of(ImageSize.parse("-g", granularity.get()))
            : OptionalLong.empty();
    return given.orElse(
        clusterSize == 0
            ? DEFAULT_GRANULARITY
            : Math.clamp(clusterSize, LEAST_DEFAULT, DEFAULT_GRANULARITY));
  }

  private DirtyBitmap source(BitmapStore own, String name) throws BlockException, CommandException {
    if (sourceFile.isEmpty()) {
      return own.load(name);
    }
    try (FormatNode other =
        input.files().openLayer(sourceFile.get(), sourceFormat, false, OpenOptions.reading())) {
      return store(sourceFile.get(), other).load(name);
    }
  }
}
