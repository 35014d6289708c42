// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image info`.
@Command(
    name = "info",
    description = "Tells what an image is.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageInfo implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin OutputOption output = new OutputOption();

  @Option(names = "--backing-chain", description = "all images of the chain")
  boolean chain;

  @Mixin ShareOption share = new ShareOption();

  @Parameters(paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws IOException, CommandException {
    List<ImageFacts> layers = layers();
    PrintWriter out = spec.commandLine().getOut();
    if (!output.json()) {
      out.print(layers.stream().map(ImageFacts::human).collect(Collectors.joining("\n")));
    } else if (chain) {
      ImageJson.Elements all = new ImageJson.Elements();
      layers.forEach(layer -> all.add(layer.json()));
      out.println(ImageJson.text(all));
    } else {
      out.println(ImageJson.text(layers.getFirst().json()));
    }
    return ExitStatus.DONE.code();
  }

  private List<ImageFacts> layers() throws IOException, CommandException {
    List<ImageFacts> layers = new ArrayList<>();
    Set<Object> seen = new HashSet<>();
    Optional<ImageSource> source = Optional.of(input.source(file));
    Optional<String> layerFormat = input.format;
    do {
      ImageFacts layer = layer(source.get(), layerFormat);
      if (!seen.add(identity(source.get()))) {
        throw new CommandException(
            file + ": backing chain is a loop: meets " + source.get() + " twice");
      }
      if (layers.size() >= ImageOpener.MAX_DEPTH) {
        throw new CommandException(
            file + ": backing chain has more than " + ImageOpener.MAX_DEPTH + " images");
      }
      layers.add(layer);
      if (chain && layer.backing().isPresent() && layer.beneath().isEmpty()) {
        throw new CommandException(
            layer.name()
                + ": backing file '"
                + layer.backing().get().name()
                + "' cannot be found from here");
      }
      source = layer.beneath();
      layerFormat = layer.backing().flatMap(BackingReference::format);
    } while (chain && source.isPresent());
    return layers;
  }

  private static Object identity(ImageSource source) throws IOException {
    Optional<Path> path = source.localFile();
    Object key =
        path.isPresent()
            ? Files.readAttributes(path.get(), BasicFileAttributes.class).fileKey()
            : null;
    return key == null ? source.text() : key;
  }

  private ImageFacts layer(ImageSource source, Optional<String> layerFormat) throws BlockException {
    try (FormatNode node = input.files().opener().openLayer(source, layerFormat, share.reading())) {
      return ImageFacts.of(source, node);
    }
  }
}
