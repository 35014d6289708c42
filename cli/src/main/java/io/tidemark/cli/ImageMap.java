// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.FormatNode;
import io.tidemark.qcow2.Qcow2Image;
import java.io.IOException;
import java.io.PrintWriter;
import java.util.IdentityHashMap;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image map`: which layer holds which range, and where in its file.
@Command(
    name = "map",
    description = "Tells which image of a chain holds which range, and where.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageMap implements Callable<Integer> {
  /// One line of the map.
  ///
  /// @param present some layer holds the range, if only as zeroes
  /// @param zero it reads as zeroes
  /// @param data it has bytes in a file; with `zero`, in a hole of that file
  /// @param hostOffset -1: in no single place
  private record Entry(
      long start,
      long length,
      int depth,
      boolean present,
      boolean zero,
      boolean data,
      long hostOffset,
      String file) {
    boolean continuedBy(Entry next) {
      boolean place = hostOffset < 0 ? next.hostOffset < 0 : next.hostOffset == hostOffset + length;
      return place
          && depth == next.depth
          && present == next.present
          && zero == next.zero
          && data == next.data
          && (hostOffset < 0 || file.equals(next.file));
    }

    Entry with(Entry next) {
      return new Entry(start, length + next.length, depth, present, zero, data, hostOffset, file);
    }
  }

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin OutputOption output = new OutputOption();

  @Option(
      names = {"-s", "--start-offset"},
      paramLabel = "BYTES",
      description = "begin there")
  String start = "0";

  @Option(
      names = {"-l", "--max-length"},
      paramLabel = "BYTES",
      description = "end after that many")
  Optional<String> maxLength = Optional.empty();

  @Mixin ShareOption share = new ShareOption();

  @Parameters(paramLabel = "FILE")
  String file = "";

  private @Nullable Entry pending; // may still grow; null before the first
  private boolean begun;
  private final IdentityHashMap<BlockNode, Boolean> holes = new IdentityHashMap<>();

  @Override
  public Integer call() throws IOException, CommandException {
    long from = ImageSize.parse("start offset", start);
    long limit =
        maxLength.isPresent() ? ImageSize.parse("max length", maxLength.get()) : Long.MAX_VALUE;
    // One write a line would take most of the time of a long map.
    PrintWriter out =
        new PrintWriter(new java.io.BufferedWriter(spec.commandLine().getOut(), 1 << 16), false);
    try (FormatNode image = input.open(file, share.reading())) {
      long length = Math.min(limit, Math.max(0, image.virtualSize() - from));
      if (!output.json()) {
        out.printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
      }
      if (length > 0) {
        Extents.walk(
            image,
            from,
            length,
            (extent, depth, layer) -> {
              visit(out, extent, depth, layer);
              return true;
            });
      }
      finish(out, from);
    } catch (UnmappableException unmappable) {
      throw new CommandException(unmappable.text);
    } finally {
      out.flush();
    }
    return ExitStatus.DONE.code();
  }

  private void visit(PrintWriter out, Extent extent, int depth, BlockNode layer)
      throws BlockException {
    boolean data = extent.state() == Extent.State.DATA;
    if (data && extent.hostOffset() >= 0 && layer instanceof Qcow2Image image && holesIn(image)) {
      stored(out, extent, depth, image.file());
      return;
    }
    boolean present = extent.state() != Extent.State.UNALLOCATED;
    add(
        out,
        new Entry(
            extent.offset(),
            extent.length(),
            depth,
            present,
            !data,
            data,
            extent.hostOffset(),
            layer.name()));
  }

  /// Asked once for each image: it counts clusters.
  private boolean holesIn(Qcow2Image image) throws BlockException {
    Boolean known = holes.get(image);
    if (known == null) {
      known = image.dataMayLieInHoles();
      holes.put(image, known);
    }
    return known;
  }

  /// Bytes of a format may lie in a hole of the file, or past its end: then they are zeroes.
  private void stored(PrintWriter out, Extent extent, int depth, BlockNode file)
      throws BlockException {
    long host = extent.hostOffset();
    long inFile = Math.clamp(file.virtualSize() - host, 0L, extent.length());
    if (inFile > 0) {
      file.extents(
          host,
          inFile,
          piece -> {
            long offset = extent.offset() + (piece.offset() - host);
            boolean zero = piece.state() != Extent.State.DATA;
            add(
                out,
                new Entry(
                    offset, piece.length(), depth, true, zero, true, piece.offset(), file.name()));
            return true;
          });
    }
    if (inFile < extent.length()) {
      add(
          out,
          new Entry(
              extent.offset() + inFile,
              extent.length() - inFile,
              depth,
              true,
              true,
              true,
              host + inFile,
              file.name()));
    }
  }

  private void add(PrintWriter out, Entry entry) {
    Entry before = pending;
    if (before != null && before.continuedBy(entry)) {
      pending = before.with(entry);
      return;
    }
    if (before != null) {
      print(out, before, true);
    }
    pending = entry;
  }

  private void finish(PrintWriter out, long from) {
    Entry last = pending;
    if (last == null) {
      last = new Entry(from, 0, 0, false, false, false, -1, "");
    }
    print(out, last, false);
  }

  private void print(PrintWriter out, Entry entry, boolean more) {
    switch (output.layout) {
      case HUMAN -> human(out, entry);
      case JSON -> json(out, entry, more);
    }
  }

  private void human(PrintWriter out, Entry entry) {
    if (entry.data && entry.hostOffset < 0) {
      throw new UnmappableException(
          file
              + ": holds compressed clusters, which are in no one place of a file: use --output json");
    }
    if (entry.data && !entry.zero) {
      out.printf(
          "%-16s%-16s%-16s%s\n",
          hex(entry.start), hex(entry.length), hex(entry.hostOffset), entry.file);
    }
  }

  private void json(PrintWriter out, Entry entry, boolean more) {
    out.print(begun ? "" : "[");
    begun = true;
    out.print("{ \"start\": " + entry.start + ", \"length\": " + entry.length);
    out.print(", \"depth\": " + entry.depth + ", \"present\": " + entry.present);
    out.print(", \"zero\": " + entry.zero + ", \"data\": " + entry.data);
    if (entry.hostOffset >= 0) {
      out.print(", \"offset\": " + entry.hostOffset);
    }
    out.print(more ? "},\n" : "}]\n");
  }

  private static String hex(long value) {
    return value == 0 ? "0" : "0x" + Long.toHexString(value);
  }

  /// Ends the walk: the rest of the map cannot be shown.
  private static final class UnmappableException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    final String text;

    UnmappableException(String text) {
      super(text);
      this.text = text;
    }
  }
}
