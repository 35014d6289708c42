// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
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

  /// Workers for each processor, at most: enough for one to read while another waits for a disk.
  private static final int WORKERS_A_PROCESSOR = 2;

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin ShareOption share = new ShareOption();

  @Mixin TalkOptions talk = new TalkOptions();

  @Option(
      names = "-O",
      paramLabel = "FORMAT",
      description = "format of the target: raw (the default) or qcow2")
  Optional<String> targetFormat = Optional.empty();

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

  @Option(
      names = "--target-image-opts",
      description = "with -n: the target is named by options, as with --image-opts")
  boolean targetByOptions;

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
  Optional<String> sparse = Optional.empty();

  @Option(names = "-c", description = "write the target compressed")
  boolean compress;

  @Option(
      names = {"-l", "--snapshot"},
      paramLabel = "SNAPSHOT",
      description =
          "convert a snapshot inside the source: its id or name, or snapshot.id=…,snapshot.name=…")
  Optional<String> snapshot = Optional.empty();

  @Option(names = "-m", paramLabel = "N", description = "workers, 1 to 16 (default 8)")
  int workers = 8;

  @Option(names = "-W", description = "write out of order")
  boolean outOfOrder;

  @Option(names = "-r", paramLabel = "BYTES", description = "copy at most this much a second")
  Optional<String> rate = Optional.empty();

  @Option(names = "--salvage", description = "take what cannot be read for zeroes")
  boolean salvage;

  @Option(names = "-C", description = "let the host copy: accepted, means nothing")
  boolean offload;

  @Option(
      names = "-t",
      paramLabel = "CACHE",
      description = "unsafe (the default): do not sync the target; others sync it at the end")
  String cache = "unsafe";

  @Option(names = "-T", paramLabel = "CACHE", description = "accepted for qemu-img's sake")
  String sourceCache = "writeback";

  @Parameters(
      paramLabel = "FILE",
      arity = "0..*",
      description = "sources, one behind the other, and the target")
  List<String> names = new ArrayList<>();

  @Override
  public Integer call() throws IOException, CommandException {
    String format = targetFormat.orElse("raw");
    if (FormatOptions.helpAsked(options)) {
      spec.commandLine().getOut().print(new FormatOptions("", format).help());
      return ExitStatus.DONE.code();
    }
    if (names.size() < 2) {
      throw new CommandException("expecting the names of a source and of the target");
    }
    int sparseBytes = checkOptions();
    List<FormatNode> sources = new ArrayList<>();
    try {
      for (String name : names.subList(0, names.size() - 1)) {
        sources.add(input.open(name, share.reading()));
      }
      new Run(sources, format, sparseBytes).run();
    } finally {
      for (FormatNode source : sources) {
        source.close();
      }
    }
    return ExitStatus.DONE.code();
  }

  /// @return the sparse size, bytes
  private int checkOptions() throws CommandException {
    if (noCreate && !options.isEmpty()) {
      throw new CommandException("-o has no effect when the target is not made (-n)");
    }
    if (targetIsZero && !noCreate) {
      throw new CommandException("--target-is-zero goes with -n");
    }
    if (targetByOptions && !noCreate) {
      throw new CommandException("--target-image-opts goes with -n");
    }
    if (targetByOptions && targetFormat.isPresent()) {
      throw new CommandException("--target-image-opts and -O cannot be used together");
    }
    if (offload && (compress || sparse.isPresent() || salvage)) {
      throw new CommandException("-C cannot be used with -c, -S or --salvage");
    }
    if (skipBroken && !bitmaps) {
      throw new CommandException("--skip-broken-bitmaps goes with --bitmaps");
    }
    if (names.size() > 2) {
      if (bitmaps) {
        throw new CommandException("--bitmaps goes with one source");
      }
      if (snapshot.isPresent()) {
        throw new CommandException("-l goes with one source");
      }
      if (backingFile.isPresent()) {
        throw new CommandException("-B goes with one source");
      }
    }
    if (workers < 1 || workers > MAX_WORKERS) {
      throw new CommandException("-m " + workers + " is not between 1 and " + MAX_WORKERS);
    }
    CacheMode.of("-T", sourceCache);
    CacheMode.of("-t", cache);
    String wanted = sparse.orElse("4k");
    long bytes = ImageSize.parse("-S", wanted);
    if (bytes % SECTOR != 0 || bytes > MAX_SPARSE) {
      throw new CommandException(
          "-S "
              + wanted
              + " is not a multiple of "
              + SECTOR
              + " up to "
              + MAX_SPARSE
              + " (0: write everything)");
    }
    return (int) bytes;
  }

  /// One conversion, its sources open and its options checked.
  private final class Run {
    private final List<FormatNode> sources;
    private final List<? extends BlockNode> disks; // the sources, or the snapshot in the only one
    private final String format;
    private final int sparseBytes;
    private final String target = names.getLast();
    private final OpenOptions targetOptions;

    Run(List<FormatNode> sources, String format, int sparseBytes)
        throws BlockException, CommandException {
      this.sources = sources;
      this.format = format;
      this.sparseBytes = sparseBytes;
      this.disks =
          snapshot.isPresent()
              ? List.of(SnapshotName.parse(snapshot.get()).view(sources.getFirst()))
              : sources;
      this.targetOptions = OpenOptions.readWrite().with(CacheMode.of("-t", cache).durability());
    }

    void run() throws IOException, CommandException {
      long total = total();
      var copied =
          bitmaps
              ? Optional.of(BitmapCopy.of(sources.getFirst(), skipBroken))
              : Optional.<BitmapCopy>empty();
      if (noCreate) {
        Optional<Path> there = ImageFiles.source(target, targetByOptions).localFile();
        if (there.isPresent()) {
          refuseSource(there.get());
        }
        fill(total, true, copied);
        return;
      }
      Path path = ImageFiles.path(target);
      refuseSource(path);
      boolean existed = Files.exists(path);
      // A block device has its size, and holds anything: only a format can be made in it.
      boolean given = existed && !Files.isRegularFile(path) && format.equals("raw");
      if (!given) {
        make(path, total);
      }
      try {
        fill(total, given, copied);
      } catch (IOException | CommandException | RuntimeException failure) {
        if (!given && !existed) {
          Files.deleteIfExists(path);
        }
        throw failure;
      }
    }

    private void refuseSource(Path path) throws IOException, CommandException {
      for (FormatNode source : sources) {
        ImageFiles.refuseTargetInChain(path, source);
      }
    }

    private long total() throws CommandException {
      long total = 0;
      for (BlockNode disk : disks) {
        if (disk.virtualSize() > Long.MAX_VALUE - total) {
          throw new CommandException(
              target + ": the sources have more than 2^63 - 1 bytes together");
        }
        total += disk.virtualSize();
      }
      return total;
    }

    private void make(Path path, long total) throws IOException, CommandException {
      FormatOptions wanted = new FormatOptions(target, format);
      wanted.addAll(target, options);
      if (backingFile.isPresent()) {
        wanted.put(target, "backing_file", backingFile.get());
      }
      if (backingFormat.isPresent()) {
        wanted.put(target, "backing_fmt", backingFormat.get());
      }
      if (wanted.backingFile().isPresent()) {
        backingFile = wanted.backingFile();
        if (sources.size() > 1) {
          throw new CommandException("-B goes with one source");
        }
      }
      if (compress && wanted.preallocates()) {
        throw new CommandException(target + ": -c and preallocation cannot be used together");
      }
      if (wanted.size().isEmpty()) {
        wanted.put(target, "size", Long.toString(total));
      }
      Optional<BackingReference> backing = ImageCreate.backing(input.files(), path, wanted, false);
      ImageCreate.create(
          input.files().opener(),
          path,
          format,
          new CreateOptions(wanted.size().orElse(total), backing, wanted.forFormat()));
    }

    private void fill(long total, boolean given, Optional<BitmapCopy> copied)
        throws IOException, CommandException {
      Optional<String> targetsFormat = targetByOptions ? Optional.empty() : Optional.of(format);
      try (FormatNode node = input.open(target, targetsFormat, targetByOptions, targetOptions)) {
        if (node.virtualSize() < total) {
          throw new CommandException(
              target + ": has " + node.virtualSize() + " bytes, the source has " + total);
        }
        if (compress && !node.canWriteCompressed()) {
          throw new CommandException(
              target + ": " + node.format() + " images cannot be written compressed: leave out -c");
        }
        if (copied.isPresent() && node.bitmapStore().isEmpty()) {
          throw new CommandException(
              target + ": format '" + node.format() + "' has no place for bitmaps");
        }
        copy(node, total, given);
        if (copied.isPresent()) {
          copied.get().into(node);
        }
        node.flush();
      }
    }

    private void copy(FormatNode node, long total, boolean given)
        throws BlockException, CommandException {
      PrintWriter err = spec.commandLine().getErr();
      Progress line = talk.progress(spec.commandLine().getOut(), 1.0);
      try {
        new Conversion(
                source(),
                node,
                plan(node, given),
                line,
                pace(),
                w -> err.println("tidemark: warning: " + w))
            .run();
        line.update(total, total);
      } finally {
        line.end();
      }
    }

    /// With `-B`, what lies above the source's own backing node.
    private SourceDisk source() {
      Optional<BlockNode> base =
          backingFile.isPresent() ? disks.getFirst().backing() : Optional.empty();
      return base.isPresent()
          ? new SourceDisk(disks.getFirst(), base.get())
          : new SourceDisk(disks);
    }

    private Conversion.Plan plan(FormatNode node, boolean given) {
      Conversion.Target holds = Conversion.Target.ZERO;
      if (given && !targetIsZero) {
        holds = Conversion.Target.UNKNOWN;
      } else if (!given && backingFile.isPresent()) {
        holds = Conversion.Target.BACKING;
      }
      int threads =
          Math.min(workers, WORKERS_A_PROCESSOR * Runtime.getRuntime().availableProcessors());
      // Where the bytes of a raw file or of compressed clusters lie does not depend on the order.
      boolean anyOrder = outOfOrder || compress || node.format().equals("raw");
      return new Conversion.Plan(
          holds,
          sparseBytes,
          node.backing().map(BlockNode::virtualSize).orElse(0L),
          compress,
          threads,
          anyOrder,
          salvage);
    }

    private Pace pace() throws CommandException {
      return rate.isPresent() ? new Pace(ImageSize.parse("-r", rate.get())) : Pace.UNBOUND;
    }
  }
}
