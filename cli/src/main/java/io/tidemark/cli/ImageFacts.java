// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.qcow2.ImageInformation;
import io.tidemark.qcow2.Qcow2Image;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// What `tidemark image info` tells of one image of a chain.
///
/// @param name the file, or the text that names the image
/// @param beneath where the recorded backing file leads; empty: there is none, or it cannot be told
record ImageFacts(
    String name,
    String format,
    long virtualSize,
    long allocatedBytes,
    Optional<BackingReference> backing,
    Optional<ImageSource> beneath,
    Optional<ImageInformation> qcow2,
    List<BitmapStore.Stored> bitmaps) {
  static ImageFacts of(ImageSource source, FormatNode node) throws BlockException {
    if (node instanceof Qcow2Image image) {
      image.requireSnapshots();
    }
    Optional<BackingReference> backing = node.backingReference();
    long allocated = node.allocatedBytes();
    return new ImageFacts(
        shown(source),
        node.format(),
        node.virtualSize(),
        allocated >= 0 ? allocated : node.file().allocatedBytes(),
        backing,
        backing.flatMap(reference -> beneath(source, reference)),
        node instanceof Qcow2Image image ? Optional.of(image.information()) : Optional.empty(),
        node.bitmapStore().map(BitmapStore::stored).orElse(List.of()));
  }

  private static Optional<ImageSource> beneath(ImageSource image, BackingReference reference) {
    try {
      return Optional.of(ImageOpener.resolve(image, reference));
    } catch (BlockException _) {
      return Optional.empty();
    }
  }

  /// A file's name so that it could not be taken for a URI.
  private static String shown(ImageSource source) {
    String name = source.localFile().map(Path::toString).orElse(source.text());
    int colon = name.indexOf(':');
    int slash = name.indexOf('/');
    boolean scheme = colon >= 0 && (slash < 0 || colon < slash);
    return scheme && source.localFile().isPresent() ? "./" + name : name;
  }

  private boolean dirty() {
    return qcow2.map(ImageInformation::dirty).orElse(false);
  }

  /// The backing file's name as the user would have to give it. qemu: what is beneath `./image` is
  /// beneath the same `./`.
  private Optional<String> fullBackingName() {
    String folder = name.startsWith("./") ? "./" : "";
    return beneath
        .map(ImageFacts::shown)
        .map(full -> full.indexOf('/') < 0 ? folder.concat(full) : full);
  }

  /// For people.
  String human() {
    StringBuilder text = new StringBuilder();
    text.append("image: ").append(name).append('\n');
    text.append("file format: ").append(format).append('\n');
    text.append("virtual size: ")
        .append(ImageSize.human(virtualSize))
        .append(" (" + virtualSize + " bytes)\n");
    text.append("disk size: ")
        .append(allocatedBytes < 0 ? "unavailable" : ImageSize.human(allocatedBytes))
        .append('\n');
    qcow2.ifPresent(q -> text.append("cluster_size: ").append(q.clusterSize()).append('\n'));
    if (dirty()) {
      text.append("cleanly shut down: no\n");
    }
    backing.ifPresent(reference -> {
      text.append("backing file: ").append(reference.name());
      Optional<String> full = fullBackingName();
      if (full.isEmpty()) {
        text.append(" (cannot determine actual path)");
      } else if (!full.get().equals(reference.name())) {
        text.append(" (actual path: ").append(full.get()).append(')');
      }
      text.append('\n');
      reference
          .format()
          .ifPresent(f -> text.append("backing file format: ").append(f).append('\n'));
    });
    qcow2.ifPresent(q -> {
      text.append(SnapshotList.text(q.snapshots()));
      text.append("Format specific information:\n");
      specific(text, q, bitmaps);
    });
    return text.toString();
  }

  private static void specific(
      StringBuilder text, ImageInformation q, List<BitmapStore.Stored> bitmaps) {
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
    if (q.dataFile().isPresent()) {
      text.append("    data file: ").append(q.dataFile().get()).append('\n');
      text.append("    data file raw: ").append(q.dataFileRaw()).append('\n');
    }
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

  ImageJson.Members json() {
    ImageJson.Members image = new ImageJson.Members();
    qcow2
        .filter(q -> !q.snapshots().isEmpty())
        .ifPresent(q -> snapshots(image.putArray("snapshots"), q));
    backing
        .flatMap(BackingReference::format)
        .ifPresent(f -> image.put("backing-filename-format", f));
    image.put("virtual-size", virtualSize);
    image.put("filename", name);
    qcow2.ifPresent(q -> image.put("cluster-size", q.clusterSize()));
    image.put("format", format);
    if (allocatedBytes >= 0) {
      image.put("actual-size", allocatedBytes);
    }
    qcow2.ifPresent(q -> {
      ImageJson.Members specific = image.putObject("format-specific").put("type", format);
      specific(specific.putObject("data"), q, bitmaps);
    });
    backing.ifPresent(reference -> {
      fullBackingName().ifPresent(full -> image.put("full-backing-filename", full));
      image.put("backing-filename", reference.name());
    });
    return image.put("dirty-flag", dirty());
  }

  private static void snapshots(ImageJson.Elements array, ImageInformation q) {
    for (InternalSnapshot snapshot : q.snapshots()) {
      Instant date = snapshot.date();
      ImageJson.Members one = array.addObject();
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
      ImageJson.Members data, ImageInformation q, List<BitmapStore.Stored> bitmaps) {
    boolean version3 = !q.compat().equals("0.10");
    data.put("compat", q.compat());
    data.put("compression-type", q.compressionType());
    if (version3) {
      data.put("lazy-refcounts", q.lazyRefcounts());
    }
    if (!bitmaps.isEmpty()) {
      ImageJson.Elements array = data.putArray("bitmaps");
      for (BitmapStore.Stored bitmap : bitmaps) {
        ImageJson.Members one = array.addObject();
        ImageJson.Elements flags = one.putArray("flags");
        flags(bitmap).forEach(flags::add);
        one.put("name", bitmap.name()).put("granularity", bitmap.granularity());
      }
    }
    data.put("refcount-bits", q.refcountBits());
    if (q.dataFile().isPresent()) {
      data.put("data-file", q.dataFile().get());
      data.put("data-file-raw", q.dataFileRaw());
    }
    if (version3) {
      data.put("corrupt", q.corrupt());
      data.put("extended-l2", q.extendedL2());
    }
  }
}
