// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.qcow2.Qcow2Image;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;
import tools.jackson.databind.node.ArrayNode;
import tools.jackson.databind.node.JsonNodeFactory;
import tools.jackson.databind.node.ObjectNode;

/// `tidemark image info`.
@Command(
    name = "info",
    description = "Tells what an image is.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageInfo implements Callable<Integer> {
  private static final DateTimeFormatter DATE =
      DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss", Locale.ROOT);

  @Spec CommandSpec spec = CommandSpec.create();

  @Option(
      names = "-f",
      paramLabel = "FORMAT",
      description = "format of the image; default: what its first bytes show")
  Optional<String> format = Optional.empty();

  @Option(names = "--output", paramLabel = "human|json", description = "layout of the answer")
  OutputFormat output = OutputFormat.HUMAN;

  @Option(names = "--backing-chain", description = "all images of the chain")
  boolean chain;

  @Option(
      names = {"-U", "--force-share"},
      description = "read beside a writer")
  boolean forceShare;

  @Parameters(paramLabel = "FILE")
  String file = "";

  /// @param backingPath where the recorded backing file leads; empty: there is none, or it is not a
  ///   local file
  private record Layer(
      Path path,
      String format,
      long virtualSize,
      long allocatedBytes,
      Optional<BackingReference> backing,
      Optional<Path> backingPath,
      Optional<Qcow2Image.Information> qcow2,
      List<BitmapStore.Stored> bitmaps) {
    boolean dirty() {
      return qcow2.map(Qcow2Image.Information::dirty).orElse(false);
    }

    /// The backing file's name as the user would have to give it.
    String fullBackingName(BackingReference reference) {
      return backingPath.map(Path::toString).orElse(reference.name());
    }
  }

  @Override
  public Integer call() throws IOException, CommandException {
    List<Layer> layers = layers();
    PrintWriter out = spec.commandLine().getOut();
    switch (output) {
      case HUMAN -> {
        String separator = "";
        for (Layer layer : layers) {
          out.print(separator + human(layer));
          separator = "\n";
        }
      }
      case JSON -> {
        ArrayNode all = JsonNodeFactory.instance.arrayNode();
        layers.forEach(layer -> all.add(json(layer)));
        out.println(ImageJson.text(chain ? all : all.get(0)));
      }
    }
    return ExitStatus.DONE.code();
  }

  private List<Layer> layers() throws IOException, CommandException {
    ImageFiles files = new ImageFiles();
    List<Layer> layers = new ArrayList<>();
    Set<Object> seen = new HashSet<>();
    Optional<Path> path = Optional.of(ImageFiles.path(file));
    Optional<String> layerFormat = format;
    do {
      Layer layer = layer(files, path.get(), layerFormat);
      Object key = Files.readAttributes(path.get(), BasicFileAttributes.class).fileKey();
      if (!seen.add(key == null ? path.get() : key)) {
        throw new CommandException(
            file + ": backing chain is a loop: meets " + path.get() + " twice");
      }
      if (layers.size() >= ImageOpener.MAX_DEPTH) {
        throw new CommandException(
            file + ": backing chain has more than " + ImageOpener.MAX_DEPTH + " images");
      }
      layers.add(layer);
      if (chain && layer.backing.isPresent() && layer.backingPath.isEmpty()) {
        throw new CommandException(
            layer.path + ": backing file '" + layer.backing.get().name() + "' is not a local file");
      }
      path = layer.backingPath;
      layerFormat = layer.backing.flatMap(BackingReference::format);
    } while (chain && path.isPresent());
    return layers;
  }

  private Layer layer(ImageFiles files, Path path, Optional<String> layerFormat)
      throws BlockException {
    try (FormatNode node = files.openLayer(path, layerFormat, ImageFiles.reading(forceShare))) {
      Optional<BackingReference> backing = node.backingReference();
      long allocated = node.allocatedBytes();
      return new Layer(
          path,
          node.format(),
          node.virtualSize(),
          allocated >= 0 ? allocated : node.file().allocatedBytes(),
          backing,
          backing.flatMap(reference -> ImageOpener.resolve(path, reference)),
          node instanceof Qcow2Image image ? Optional.of(image.information()) : Optional.empty(),
          node.bitmapStore().map(BitmapStore::stored).orElse(List.of()));
    }
  }

  private static String human(Layer layer) {
    StringBuilder text = new StringBuilder();
    text.append("image: ").append(layer.path).append('\n');
    text.append("file format: ").append(layer.format).append('\n');
    text.append("virtual size: ")
        .append(ImageSize.human(layer.virtualSize))
        .append(" (" + layer.virtualSize + " bytes)\n");
    text.append("disk size: ")
        .append(layer.allocatedBytes < 0 ? "unavailable" : ImageSize.human(layer.allocatedBytes))
        .append('\n');
    layer.qcow2.ifPresent(q -> text.append("cluster_size: ").append(q.clusterSize()).append('\n'));
    if (layer.dirty()) {
      text.append("cleanly shut down: no\n");
    }
    layer.backing.ifPresent(reference -> {
      text.append("backing file: ").append(reference.name());
      String full = layer.fullBackingName(reference);
      if (!full.equals(reference.name())) {
        text.append(" (actual path: ").append(full).append(')');
      }
      text.append('\n');
      reference
          .format()
          .ifPresent(f -> text.append("backing file format: ").append(f).append('\n'));
    });
    layer.qcow2.ifPresent(q -> {
      snapshots(text, q.snapshots());
      text.append("Format specific information:\n");
      specific(text, q, layer.bitmaps);
    });
    return text.toString();
  }

  private static void snapshots(StringBuilder text, List<InternalSnapshot> snapshots) {
    if (snapshots.isEmpty()) {
      return;
    }
    text.append("Snapshot list:\n");
    text.append(snapshotLine("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT"));
    for (InternalSnapshot snapshot : snapshots) {
      Duration clock = snapshot.guestClock();
      text.append(
          snapshotLine(
              snapshot.id(),
              snapshot.name(),
              ImageSize.human(snapshot.vmStateBytes()),
              DATE.format(snapshot.date().atZone(ZoneId.systemDefault())),
              "%02d:%02d:%02d.%03d"
                  .formatted(
                      clock.toHours(),
                      clock.toMinutesPart(),
                      clock.toSecondsPart(),
                      clock.toMillisPart()),
              snapshot.instructions().isPresent()
                  ? Long.toUnsignedString(snapshot.instructions().getAsLong())
                  : ""));
    }
  }

  private static String snapshotLine(
      String id, String tag, String size, String date, String clock, String instructions) {
    return String.format(
        Locale.ROOT, "%-9s %-16s %8s%20s%13s%11s\n", id, tag, size, date, clock, instructions);
  }

  private static void specific(
      StringBuilder text, Qcow2Image.Information q, List<BitmapStore.Stored> bitmaps) {
    boolean version3 = !q.compat().equals("0.10");
    text.append("    compat: ").append(q.compat()).append('\n');
    text.append("    compression type: ").append(q.compressionType()).append('\n');
    if (version3) {
      text.append("    lazy refcounts: ").append(q.lazyRefcounts()).append('\n');
    }
    if (!bitmaps.isEmpty()) {
      text.append("    bitmaps:\n");
    }
    for (int i = 0; i < bitmaps.size(); i++) {
      BitmapStore.Stored bitmap = bitmaps.get(i);
      text.append("        [" + i + "]:\n            flags:\n");
      List<String> flags = flags(bitmap);
      for (int f = 0; f < flags.size(); f++) {
        text.append("                [" + f + "]: " + flags.get(f) + "\n");
      }
      text.append("            name: ").append(bitmap.name()).append('\n');
      text.append("            granularity: ").append(bitmap.granularity()).append('\n');
    }
    text.append("    refcount bits: ").append(q.refcountBits()).append('\n');
    if (version3) {
      text.append("    corrupt: ").append(q.corrupt()).append('\n');
      text.append("    extended l2: ").append(q.extendedL2()).append('\n');
    }
  }

  private static List<String> flags(BitmapStore.Stored bitmap) {
    List<String> flags = new ArrayList<>();
    if (bitmap.inconsistent()) {
      flags.add("in-use");
    }
    if (bitmap.enabled()) {
      flags.add("auto");
    }
    return flags;
  }

  private static ObjectNode json(Layer layer) {
    ObjectNode image = ImageJson.object();
    layer
        .qcow2
        .filter(q -> !q.snapshots().isEmpty())
        .ifPresent(q -> snapshots(image.putArray("snapshots"), q));
    layer
        .backing
        .flatMap(BackingReference::format)
        .ifPresent(f -> image.put("backing-filename-format", f));
    image.put("virtual-size", layer.virtualSize);
    image.put("filename", layer.path.toString());
    layer.qcow2.ifPresent(q -> image.put("cluster-size", q.clusterSize()));
    image.put("format", layer.format);
    if (layer.allocatedBytes >= 0) {
      image.put("actual-size", layer.allocatedBytes);
    }
    layer.qcow2.ifPresent(q -> {
      ObjectNode specific = image.putObject("format-specific").put("type", layer.format);
      specific(specific.putObject("data"), q, layer.bitmaps);
    });
    layer.backing.ifPresent(reference -> {
      image.put("full-backing-filename", layer.fullBackingName(reference));
      image.put("backing-filename", reference.name());
    });
    return image.put("dirty-flag", layer.dirty());
  }

  private static void snapshots(ArrayNode array, Qcow2Image.Information q) {
    for (InternalSnapshot snapshot : q.snapshots()) {
      Instant date = snapshot.date();
      ObjectNode one = array.addObject();
      snapshot.instructions().ifPresent(count -> one.put("icount", count));
      one.put("vm-clock-nsec", snapshot.guestClock().toNanosPart())
          .put("name", snapshot.name())
          .put("date-sec", date.getEpochSecond())
          .put("date-nsec", date.getNano())
          .put("vm-clock-sec", snapshot.guestClock().toSeconds())
          .put("id", snapshot.id())
          .put("vm-state-size", snapshot.vmStateBytes());
    }
  }

  private static void specific(
      ObjectNode data, Qcow2Image.Information q, List<BitmapStore.Stored> bitmaps) {
    boolean version3 = !q.compat().equals("0.10");
    data.put("compat", q.compat());
    data.put("compression-type", q.compressionType());
    if (version3) {
      data.put("lazy-refcounts", q.lazyRefcounts());
    }
    if (!bitmaps.isEmpty()) {
      ArrayNode array = data.putArray("bitmaps");
      for (BitmapStore.Stored bitmap : bitmaps) {
        ObjectNode one = array.addObject();
        ArrayNode flags = one.putArray("flags");
        flags(bitmap).forEach(flags::add);
        one.put("name", bitmap.name()).put("granularity", bitmap.granularity());
      }
    }
    data.put("refcount-bits", q.refcountBits());
    if (version3) {
      data.put("corrupt", q.corrupt());
      data.put("extended-l2", q.extendedL2());
    }
  }
}
