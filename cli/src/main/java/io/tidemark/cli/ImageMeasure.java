// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Measurement;
import java.io.PrintWriter;
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

/// `tidemark image measure`: how large a file a conversion would make.
@Command(
    name = "measure",
    description = "Tells how many bytes a new image would take.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageMeasure implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin ShareOption share = new ShareOption();

  @Mixin OutputOption output = new OutputOption();

  @Option(
      names = "-O",
      paramLabel = "FORMAT",
      description = "format of the new image: raw (the default) or qcow2")
  String format = "raw";

  @Option(
      names = "-o",
      paramLabel = "NAME=VALUE,…",
      description = "options of the new image; help lists them")
  List<String> options = new ArrayList<>();

  @Option(names = "--size", paramLabel = "BYTES", description = "for an empty disk of this size")
  Optional<String> size = Optional.empty();

  @Option(
      names = {"-l", "--snapshot"},
      paramLabel = "SNAPSHOT",
      description = "measure a snapshot inside the image")
  Optional<String> snapshot = Optional.empty();

  @Parameters(arity = "0..1", paramLabel = "FILE", description = "for a copy of this image")
  Optional<String> file = Optional.empty();

  @Override
  public Integer call() throws BlockException, CommandException {
    FormatOptions wanted = new FormatOptions(file.orElse("new image"), format);
    if (FormatOptions.helpAsked(options)) {
      spec.commandLine().getOut().print(wanted.help());
      return ExitStatus.DONE.code();
    }
    if (file.isPresent() == size.isPresent()) {
      throw new CommandException("expecting either --size or the name of an image");
    }
    if (file.isEmpty() && (snapshot.isPresent() || input.format.isPresent())) {
      throw new CommandException("--size cannot be used with -f or -l");
    }
    wanted.addAll("new image", options);
    if (size.isPresent()) {
      print(measure(wanted, ImageSize.parse("--size", size.get()), Optional.empty()));
      return ExitStatus.DONE.code();
    }
    try (FormatNode node = input.open(file.get(), share.reading())) {
      BlockNode disk = snapshot.isPresent() ? SnapshotName.parse(snapshot.get()).view(node) : node;
      print(measure(wanted, disk.virtualSize(), Optional.of(disk)));
    }
    return ExitStatus.DONE.code();
  }

  private Measurement measure(FormatOptions wanted, long bytes, Optional<BlockNode> source)
      throws BlockException {
    Optional<BackingReference> backing =
        wanted.backingFile().map(name -> new BackingReference(name, wanted.backingFormat()));
    return input
        .files()
        .opener()
        .measure(format, new CreateOptions(bytes, backing, wanted.forFormat()), source);
  }

  private void print(Measurement found) {
    PrintWriter out = spec.commandLine().getOut();
    if (output.json()) {
      ImageJson.Members json = new ImageJson.Members();
      found.bitmaps().ifPresent(bytes -> json.put("bitmaps", bytes));
      json.put("required", found.required());
      json.put("fully-allocated", found.fullyAllocated());
      out.println(ImageJson.text(json));
    } else {
      out.println("required size: " + found.required());
      out.println("fully allocated size: " + found.fullyAllocated());
      found.bitmaps().ifPresent(bytes -> out.println("bitmaps size: " + bytes));
    }
  }
}
