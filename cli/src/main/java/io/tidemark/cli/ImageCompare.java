// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Zeroes;
import java.nio.ByteBuffer;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image compare`, with qemu-img's codes: 0 identical, 1 different, 2 an image cannot be
/// opened, 3 what it holds where cannot be told, 4 it cannot be read.
@Command(
    name = "compare",
    description = "Tells whether a guest would see the same in two images.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageCompare implements Callable<Integer> {
  private static final int DIFFERENT = 1;
  private static final int CANNOT_OPEN = 2;
  private static final int CANNOT_MAP = 3;
  private static final int CANNOT_READ = 4;

  private static final int BUFFER = 2 << 20;
  private static final int SECTOR = 512;

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Option(names = "-F", paramLabel = "FORMAT", description = "format of the second image")
  Optional<String> secondFormat = Optional.empty();

  @Option(names = "-s", description = "strict: sizes and allocation must agree too")
  boolean strict;

  @Mixin TalkOptions talk = new TalkOptions();

  @Mixin ShareOption share = new ShareOption();

  @Option(names = "-T", paramLabel = "CACHE", description = "accepted for qemu-img's sake")
  Optional<String> cache = Optional.empty();

  @Parameters(index = "0", paramLabel = "FILE1")
  String first = "";

  @Parameters(index = "1", paramLabel = "FILE2")
  String second = "";

  private final ByteBuffer firstBuffer = ByteBuffer.allocateDirect(BUFFER);
  private final ByteBuffer secondBuffer = ByteBuffer.allocateDirect(BUFFER);

  @Override
  public Integer call() throws BlockException, CommandException {
    try (FormatNode one = open(first, input.format);
        FormatNode other = open(second, secondFormat)) {
      Progress line = talk.progress(spec.commandLine().getOut(), 2.0);
      try {
        boolean same = compare(one, other, line);
        if (same) {
          print("Images are identical.");
        }
        return same ? ExitStatus.DONE.code() : DIFFERENT;
      } finally {
        line.end();
      }
    }
  }

  private FormatNode open(String name, Optional<String> nodeFormat) throws CommandException {
    try {
      return input.open(name, nodeFormat, share.reading());
    } catch (BlockException failure) {
      throw new CommandException(Tidemark.text(failure), CANNOT_OPEN);
    }
  }

  private boolean compare(FormatNode one, FormatNode other, Progress line) throws CommandException {
    long total = Math.max(one.virtualSize(), other.virtualSize());
    long common = Math.min(one.virtualSize(), other.virtualSize());
    if (strict && total != common) {
      print("Strict mode: Image size mismatch!");
      return false;
    }
    LayerStatus oneStatus = LayerStatus.ofChain(one);
    LayerStatus otherStatus = LayerStatus.ofChain(other);
    for (long offset = 0; offset < common; ) {
      Extent here = status(oneStatus, offset);
      Extent there = status(otherStatus, offset);
      if (strict && here.state() != there.state()) {
        print("Strict mode: Offset " + offset + " block status mismatch!");
        return false;
      }
      long end = Math.min(common, Math.min(here.end(), there.end()));
      boolean hereData = here.state() == Extent.State.DATA;
      boolean thereData = there.state() == Extent.State.DATA;
      long mismatch = -1;
      if (hereData && thereData) {
        end = Math.min(end, offset + BUFFER);
        mismatch = mismatch(one, other, offset, (int) (end - offset));
      } else if (hereData || thereData) {
        end = Math.min(end, offset + BUFFER);
        mismatch = nonZero(hereData ? one : other, offset, (int) (end - offset));
      }
      if (mismatch >= 0) {
        print("Content mismatch at offset " + mismatch + "!");
        return false;
      }
      offset = end;
      line.update(offset, total);
    }
    return common == total || restIsZero(one.virtualSize() == total ? one : other, common, line);
  }

  /// Images of different sizes are the same when what the shorter one lacks is zero.
  private boolean restIsZero(FormatNode longer, long from, Progress line) throws CommandException {
    print("Warning: Image size mismatch!");
    LayerStatus status = LayerStatus.ofChain(longer);
    long total = longer.virtualSize();
    for (long offset = from; offset < total; ) {
      Extent extent = status(status, offset);
      long end = Math.min(total, extent.end());
      if (extent.state() == Extent.State.DATA) {
        end = Math.min(end, offset + BUFFER);
        long mismatch = nonZero(longer, offset, (int) (end - offset));
        if (mismatch >= 0) {
          print("Content mismatch at offset " + mismatch + "!");
          return false;
        }
      }
      offset = end;
      line.update(offset, total);
    }
    return true;
  }

  private static Extent status(LayerStatus status, long offset) throws CommandException {
    try {
      return status.at(offset);
    } catch (BlockException failure) {
      throw new CommandException(Tidemark.text(failure), CANNOT_MAP);
    }
  }

  /// The offset of the first sector in which the two differ, or -1.
  private long mismatch(BlockNode one, BlockNode other, long offset, int length)
      throws CommandException {
    ByteBuffer here = read(one, firstBuffer, offset, length);
    ByteBuffer there = read(other, secondBuffer, offset, length);
    int at = here.mismatch(there);
    return at < 0 ? -1 : offset + at - at % SECTOR;
  }

  /// The offset of the first sector that holds anything but zeroes, or -1.
  private long nonZero(BlockNode node, long offset, int length) throws CommandException {
    ByteBuffer bytes = read(node, firstBuffer, offset, length);
    if (Zeroes.isZero(bytes)) {
      return -1;
    }
    for (int at = 0; at < length; at += SECTOR) {
      if (!Zeroes.isZero(bytes.slice(at, Math.min(SECTOR, length - at)))) {
        return offset + at;
      }
    }
    throw new IllegalStateException("bytes changed while they were looked at");
  }

  private static ByteBuffer read(BlockNode node, ByteBuffer buffer, long offset, int length)
      throws CommandException {
    try {
      node.read(offset, buffer.clear().limit(length));
    } catch (BlockException failure) {
      throw new CommandException(Tidemark.text(failure), CANNOT_READ);
    }
    return buffer.flip();
  }

  private void print(String text) {
    talk.say(spec.commandLine().getOut(), text);
  }
}
