// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FormatNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image convert`.
///
/// A target that this call made is removed again when the call fails; one that was there before
/// stays, with any part of the data.
@Command(
    name = "convert",
    description = "Copies what a guest reads in an image into another image.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageConvert implements Callable<Integer> {
  private static final int SECTOR = 512;
  private static final int MAX_SPARSE = 16 << 20;
  private static final int MAX_WORKERS = 16;
  private static final Set<String> CACHE_MODES =
      Set.of("none", "off", "writeback", "writethrough", "directsync", "unsafe");

  @Spec CommandSpec spec = CommandSpec.create();

  @Option(
      names = "-f",
      paramLabel = "FORMAT",
      description = "format of the sources; default: what their first bytes show")
  Optional<String> format = Optional.empty();

  @Option(
      names = "-O",
      paramLabel = "FORMAT",
      description = "format of the target: raw (the default) or qcow2")
  String targetFormat = "raw";

  @Option(
      names = "-o",
      paramLabel = "NAME=VALUE,…",
      description = "options of the target's format; help lists them")
  List<String> options = new ArrayList<>();

  @Option(
      names = {"-B", "-b"},
      paramLabel = "FILE",
      description = "backing file of the target: must read like the source's own")
  Optional<String> backingFile = Optional.empty();

  @Option(names = "-F", paramLabel = "FORMAT", description = "format of the backing file")
  Optional<String> backingFormat = Optional.empty();

  @Option(names = "-n", description = "do not make the target: it is there")
  boolean noCreate;

  @Option(names = "--target-is-zero", description = "with -n: the target reads as zeroes")
  boolean targetIsZero;

  @Option(names = "--bitmaps", description = "copy the persistent bitmaps too")
  boolean bitmaps;

  @Option(
      names = "--skip-broken-bitmaps",
      description = "with --bitmaps: leave out inconsistent ones")
  boolean skipBroken;

  @Option(
      names = "-S",
      paramLabel = "BYTES",
      description = "zeroes of this length become holes (default 4k); 0: write everything")
  String sparse = "4k";

  @Option(names = "-c", description = "compress (not offered)")
  boolean compress;

  @Option(
      names = "-l",
      paramLabel = "SNAPSHOT",
      description = "convert a snapshot inside the source (not offered)")
  Optional<String> snapshot = Optional.empty();

  @Option(
      names = "-m",
      paramLabel = "N",
      description = "requests in flight, 1 to 16: accepted, reading and writing always overlap")
  int workers = 8;

  @Option(names = "-W", description = "write out of order: accepted, writes are in order")
  boolean outOfOrder;

  @Option(
      names = "-t",
      paramLabel = "CACHE",
      description = "unsafe: do not sync the target; other modes sync it once at the end")
  String cache = "writeback";

  @Option(names = "-T", paramLabel = "CACHE", description = "accepted for qemu-img's sake")
  String sourceCache = "writeback";

  @Option(names = "-p", description = "show progress")
  boolean progress;

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Option(
      names = {"-U", "--force-share"},
      description = "read beside a writer")
  boolean forceShare;

  @Parameters(
      paramLabel = "FILE",
      arity = "0..*",
      description = "sources, one behind the other, and the target")
  List<String> names = new ArrayList<>();

  private final ImageFiles files = new ImageFiles();

  @Override
  public Integer call() throws IOException, CommandException {
    if (FormatOptions.helpAsked(options)) {
      spec.commandLine().getOut().print(new FormatOptions("", targetFormat).help());
      return ExitStatus.DONE.code();
    }
    if (names.size() < 2) {
      throw new CommandException("expecting the names of a source and of the target");
    }
    int sparseBytes = checkOptions();
    String targetName = names.getLast();
    Path target = ImageFiles.path(targetName);
    List<Path> sourcePaths = new ArrayList<>();
    for (String name : names.subList(0, names.size() - 1)) {
      sourcePaths.add(ImageFiles.path(name));
    }
    FormatOptions wanted = new FormatOptions(targetName, targetFormat);
    wanted.addAll(targetName, options);
    if (backingFile.isPresent()) {
      wanted.put(targetName, "backing_file", backingFile.get());
    }
    if (backingFormat.isPresent()) {
      wanted.put(targetName, "backing_fmt", backingFormat.get());
    }
    for (Path source : sourcePaths) {
      files.refuseTargetInChain(target, source, format, ImageFiles.reading(forceShare));
    }
    List<FormatNode> sources = new ArrayList<>();
    try {
      for (Path source : sourcePaths) {
        sources.add(files.open(source, format, ImageFiles.reading(forceShare)));
      }
      convert(sources, target, wanted, sparseBytes);
    } finally {
      for (FormatNode source : sources) {
        source.close();
      }
    }
    return ExitStatus.DONE.code();
  }

  /// @return the sparse size, bytes
  private int checkOptions() throws CommandException {
    if (compress) {
      throw new CommandException("compressed images are read, not written: leave out -c");
    }
    if (snapshot.isPresent()) {
      throw new CommandException("snapshots inside an image cannot be read: leave out -l");
    }
    if (noCreate && !options.isEmpty()) {
      throw new CommandException("-o has no effect when the target is not made (-n)");
    }
    if (noCreate && backingFile.isPresent()) {
      throw new CommandException("-B has no effect when the target is not made (-n)");
    }
    if (targetIsZero && !noCreate) {
      throw new CommandException("--target-is-zero goes with -n");
    }
    if (skipBroken && !bitmaps) {
      throw new CommandException("--skip-broken-bitmaps goes with --bitmaps");
    }
    if (bitmaps && names.size() != 2) {
      throw new CommandException("--bitmaps goes with one source");
    }
    if (workers < 1 || workers > MAX_WORKERS) {
      throw new CommandException("-m " + workers + " is not between 1 and " + MAX_WORKERS);
    }
    for (String mode : List.of(cache, sourceCache)) {
      if (!CACHE_MODES.contains(mode)) {
        throw new CommandException("'" + mode + "' is not a cache mode");
      }
    }
    long bytes = ImageSize.parse("-S", sparse);
    if (bytes % SECTOR != 0 || bytes > MAX_SPARSE) {
      throw new CommandException(
          "-S "
              + sparse
              + " is not a multiple of "
              + SECTOR
              + " up to "
              + MAX_SPARSE
              + " (0: write everything)");
    }
    return (int) bytes;
  }

  private void convert(List<FormatNode> sources, Path target, FormatOptions wanted, int sparseBytes)
      throws IOException, CommandException {
    long total = 0;
    for (FormatNode source : sources) {
      if (source.virtualSize() > Long.MAX_VALUE - total) {
        throw new CommandException(target + ": the sources have more than 2^63 - 1 bytes together");
      }
      total += source.virtualSize();
    }
    List<DirtyBitmap> copied = bitmaps ? bitmaps(sources.getFirst()) : List.of();
    boolean existed = Files.exists(target);
    // A block device has its size, and holds anything: only a format can be made in it.
    boolean given =
        noCreate || (existed && !Files.isRegularFile(target) && targetFormat.equals("raw"));
    if (!given) {
      make(target, wanted, total, sources.size());
    }
    try (FormatNode node = files.openTarget(target, targetFormat)) {
      if (node.virtualSize() < total) {
        throw new CommandException(
            target + ": has " + node.virtualSize() + " bytes, the source has " + total);
      }
      Progress line = new Progress(spec.commandLine().getOut(), progress && !quiet, 1.0);
      try {
        new Conversion(sources, node, plan(node, given, wanted, sparseBytes), line).run();
        line.update(total, total);
      } finally {
        line.end();
      }
      if (!copied.isEmpty()) {
        BitmapStore store =
            node.bitmapStore()
                .orElseThrow(() ->
                    new CommandException(
                        target + ": format '" + targetFormat + "' has no place for bitmaps"));
        store.store(copied);
      }
      if (!cache.equals("unsafe")) {
        node.flush();
      }
    } catch (IOException | CommandException | RuntimeException failure) {
      if (!given && !existed) {
        Files.deleteIfExists(target);
      }
      throw failure;
    }
  }

  private void make(Path target, FormatOptions wanted, long total, int sourceCount)
      throws BlockException, CommandException {
    if (wanted.backingFile().isPresent() && sourceCount > 1) {
      throw new CommandException("-B goes with one source");
    }
    if (wanted.size().isEmpty()) {
      wanted.put(target.toString(), "size", Long.toString(total));
    }
    Optional<BackingReference> backing = ImageCreate.backing(files, target, wanted, false);
    long size = wanted.size().orElse(total);
    ImageCreate.create(
        files.opener(), target, targetFormat, new CreateOptions(size, backing, wanted.forFormat()));
  }

  private Conversion.Plan plan(
      FormatNode node, boolean given, FormatOptions wanted, int sparseBytes) {
    Conversion.Target holds =
        given
            ? (targetIsZero ? Conversion.Target.ZERO : Conversion.Target.UNKNOWN)
            : wanted.backingFile().isPresent() ? Conversion.Target.BACKING : Conversion.Target.ZERO;
    long backingSize = node.backing().map(b -> b.virtualSize()).orElse(0L);
    return new Conversion.Plan(holds, sparseBytes, backingSize);
  }

  /// The source's persistent bitmaps, before anything is written.
  private List<DirtyBitmap> bitmaps(FormatNode source) throws BlockException, CommandException {
    Optional<BitmapStore> store = source.bitmapStore();
    List<DirtyBitmap> all = new ArrayList<>();
    for (BitmapStore.Stored bitmap : store.map(BitmapStore::stored).orElse(List.of())) {
      if (!bitmap.inconsistent()) {
        all.add(store.orElseThrow().load(bitmap.name()));
      } else if (!skipBroken) {
        throw new CommandException(
            source.name()
                + ": bitmap '"
                + bitmap.name()
                + "' is inconsistent: leave it out with --skip-broken-bitmaps");
      }
    }
    return all;
  }
}
