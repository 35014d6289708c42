// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/// `tidemark image dd`: a part of a disk as a new image, in dd's words.
@Command(
    name = "dd",
    description = "Copies a part of the disk in an image into a new image.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageDd implements Callable<Integer> {
  private static final Set<String> OPERANDS = Set.of("if", "of", "bs", "count", "skip");
  private static final long DEFAULT_BLOCK = 512;
  private static final int SECTOR = 512;
  private static final int SPARSE = 4096;

  @Mixin InputOptions input = new InputOptions();

  @Mixin ShareOption share = new ShareOption();

  @Option(
      names = "-O",
      paramLabel = "FORMAT",
      description = "format of the new image: raw (the default) or qcow2")
  String targetFormat = "raw";

  @Parameters(
      arity = "1..*",
      paramLabel = "OPERAND",
      description = "if=FILE of=FILE [bs=BYTES (512)] [count=BLOCKS] [skip=BLOCKS]")
  List<String> operands = new ArrayList<>();

  @Override
  public Integer call() throws IOException, CommandException {
    Map<String, String> given = parse();
    if (!given.containsKey("if") || !given.containsKey("of")) {
      throw new CommandException("expecting both if= and of=");
    }
    long block = number(given, "bs", DEFAULT_BLOCK);
    if (block < 1 || block > Integer.MAX_VALUE) {
      throw new CommandException("bs=" + block + " is not between 1 and " + Integer.MAX_VALUE);
    }
    long count = number(given, "count", -1);
    long skip = number(given, "skip", 0);
    Path target = ImageFiles.path(given.get("of"));
    try (FormatNode source = input.open(given.get("if"), share.reading())) {
      ImageFiles.refuseTargetInChain(target, source);
      long size = source.virtualSize();
      long from = blocks(skip, block, size);
      long bytes = count < 0 ? size - from : Math.min(blocks(count, block, size), size - from);
      long rounded = (bytes + SECTOR - 1) / SECTOR * SECTOR;
      ImageCreate.create(
          input.files().opener(),
          target,
          targetFormat,
          new CreateOptions(
              targetFormat.equals("raw") ? bytes : rounded,
              Optional.<BackingReference>empty(),
              Map.of()));
      copy(new Part(source, from, bytes), target);
    }
    return ExitStatus.DONE.code();
  }

  private void copy(Part part, Path target) throws BlockException {
    try (FormatNode node =
        input
            .files()
            .opener()
            .open(target, targetFormat, OpenOptions.readWrite().with(Durability.FLUSHED))) {
      var plan = new Conversion.Plan(Conversion.Target.ZERO, SPARSE, 0);
      if (part.size > 0) {
        Progress unseen =
            new Progress(new java.io.PrintWriter(java.io.Writer.nullWriter()), false, 1);
        new Conversion(new SourceDisk(List.of(part)), node, plan, unseen).run();
      }
      node.flush();
    }
  }

  private Map<String, String> parse() throws CommandException {
    Map<String, String> given = new HashMap<>();
    for (String operand : operands) {
      int equals = operand.indexOf('=');
      String name = equals < 0 ? operand : operand.substring(0, equals);
      if (equals < 0 || !OPERANDS.contains(name)) {
        throw new CommandException("'" + operand + "' is none of if=, of=, bs=, count=, skip=");
      }
      given.put(name, operand.substring(equals + 1));
    }
    return given;
  }

  private static long number(Map<String, String> given, String name, long preset)
      throws CommandException {
    String text = given.get(name);
    return text == null ? preset : ImageSize.parse(name, text);
  }

  /// Bytes of some blocks, at most `most`.
  private static long blocks(long count, long block, long most) {
    return count > most / block ? most : Math.min(most, count * block);
  }

  /// A part of a disk, to be read.
  ///
  /// @param start its first byte in the disk
  private record Part(BlockNode disk, long start, long size) implements ReadOnlyNode {
    @Override
    public String name() {
      return disk.name();
    }

    @Override
    public long virtualSize() {
      return size;
    }

    @Override
    public void read(long offset, ByteBuffer into) throws BlockException {
      disk.read(start + offset, into);
    }

    @Override
    public String whyReadOnly() {
      return "a part of it is only read";
    }

    /// Everything is data here: what is zero is found when it is read.
    @Override
    public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
      visitor.visit(
          new io.tidemark.block.Extent(
              offset, length, io.tidemark.block.Extent.State.DATA, -1, false));
    }

    /// The disk stays open: it is its opener's.
    @Override
    public void close() {}
  }
}
