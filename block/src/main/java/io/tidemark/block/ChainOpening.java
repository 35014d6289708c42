// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.ImageOpener.Probing;
import io.tidemark.block.spi.ImageFormat;
import io.tidemark.block.spi.NamedFiles;
import io.tidemark.block.spi.ProtocolDriver;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// One opening of an image and what lies beneath it: the files met so far, by identity.
///
/// For one thread, once.
final class ChainOpening {
  /// Options of every layer that make no difference here.
  private static final Set<String> GENERIC =
      Set.of(
          "node-name",
          "auto-read-only",
          "discard",
          "detect-zeroes",
          "cache.direct",
          "cache.writeback");

  private final Probing probing;
  private final Map<Object, String> seen = new HashMap<>();

  ChainOpening(Probing probing) {
    this.probing = probing;
  }

  /// What lies beneath a layer, by its options or its header.
  ///
  /// @param format as recorded; absent when the source says it itself, or nobody does
  record Beneath(ImageSource source, Optional<String> format) {}

  record Layer(FormatNode node, Optional<Beneath> beneath) {}

  /// Opens a source and its chain.
  FormatNode chain(ImageSource source, Optional<String> format, OpenOptions options)
      throws BlockException {
    Layer layer = layer(source, format, options, true);
    FormatNode top = layer.node();
    try {
      // As QEMU, the layers beneath are as durable as the top when it gives a flush no meaning.
      OpenOptions reading = options.withReadOnly(true);
      FormatNode overlay = top;
      ImageSource above = source;
      while (layer.beneath().isPresent()) {
        if (seen.size() >= ImageOpener.MAX_DEPTH) {
          throw new UnsupportedImageException(
              source + ": backing chain has more than " + ImageOpener.MAX_DEPTH + " images");
        }
        Beneath beneath = layer.beneath().get();
        layer = backing(above, beneath, reading);
        overlay.attachBacking(layer.node());
        overlay = layer.node();
        above = beneath.source();
      }
      return top;
    } catch (BlockException | RuntimeException e) {
      closeAfter(e, top);
      throw e;
    }
  }

  private Layer backing(ImageSource overlay, Beneath beneath, OpenOptions options)
      throws BlockException {
    ImageSource source = beneath.source();
    Optional<String> format = beneath.format();
    if (format.isEmpty() && source.driver().isEmpty() && probing == Probing.REFUSED) {
      throw new UnsupportedImageException(
          overlay + ": format of backing file " + source + " is not recorded, and is not guessed");
    }
    try {
      boolean told = format.isPresent() || source.driver().isPresent();
      Layer layer = layer(source, format, options, told);
      if (!told && layer.beneath().isPresent()) {
        // A guest may have written the header that was found: it may not lead to further files.
        UnsupportedImageException refused = notTrusted(overlay, source, layer.node().format());
        closeAfter(refused, layer.node());
        throw refused;
      }
      return layer;
    } catch (TransportException e) {
      throw new TransportException(overlay + ": backing file " + e.getMessage(), e);
    }
  }

  private static UnsupportedImageException notTrusted(
      ImageSource overlay, ImageSource source, String format) {
    return new UnsupportedImageException(
        overlay
            + ": format of backing file "
            + source
            + " is not recorded; it looks like "
            + format
            + " that names further files, which is believed only of a recorded format (rebase -u -F "
            + format
            + " records it)");
  }

  /// Opens one layer, and says what lies beneath it.
  ///
  /// @param mayNameFiles whether its header may lead to further files of the image
  Layer layer(
      ImageSource source, Optional<String> format, OpenOptions options, boolean mayNameFiles)
      throws BlockException {
    var given = new SourceOptions(source.text(), source.options());
    Optional<String> own = given.take("driver");
    Optional<String> driver = format.or(() -> own);
    OpenOptions how = generic(given, options);
    Optional<ProtocolDriver> protocol = driver.flatMap(Drivers::protocolNamed);
    if (driver.isPresent() && (protocol.isPresent() || FileProtocol.NAMES.contains(driver.get()))) {
      return bytes(driver.get(), given, how);
    }
    @Nullable ImageFormat known =
        driver.isPresent() ? Drivers.format(source.text(), driver.get()) : null;
    Optional<ImageSource> override = backingOption(source, given);
    Optional<String> backing = given.take("backing");
    if (backing.isPresent() && !backing.get().isEmpty()) {
      throw ImageSource.noSuchNode(given.source(), backing.get());
    }
    SourceOptions dataFile = given.takeUnder("data-file");
    BlockNode file = file(given, driver.isPresent(), how);
    try {
      ImageFormat chosen = known == null ? Drivers.probe(file) : known;
      if (chosen.name().equals("raw")) {
        file = WindowNode.of(file, given);
      }
      given.drop(chosen.openOptions());
      if (chosen.name().equals("raw") && (override.isPresent() || backing.isPresent())) {
        throw new UnsupportedImageException(
            given.source() + ": Block format 'raw' does not support the option 'backing'");
      }
      refuseRest(given, "Block format '" + chosen.name() + "' does not support the option");
      FormatNode node =
          chosen.open(file, how, named(source, dataFile, how, mayNameFiles, chosen.name()));
      if (known == null && node instanceof RawNode raw) {
        raw.keepUnrecognisable();
      }
      if (backing.isPresent()) {
        return new Layer(node, Optional.empty());
      }
      return new Layer(node, beneath(source, override, node));
    } catch (BlockException | RuntimeException e) {
      closeAfter(e, file);
      throw e;
    }
  }

  /// Bytes of a protocol as an image: QEMU calls its format by the protocol's name.
  private Layer bytes(String driver, SourceOptions given, OpenOptions how) throws BlockException {
    SourceOptions beneath = given.takeUnder("file");
    SourceOptions options = beneath.isEmpty() ? given : beneath;
    BlockNode file = protocol(Optional.of(driver), options, how);
    try {
      refuseRest(options, "Block protocol '" + driver + "' doesn't support the option");
      return new Layer(new RawNode(file, how.readOnly(), driver), Optional.empty());
    } catch (BlockException | RuntimeException e) {
      closeAfter(e, file);
      throw e;
    }
  }

  private static OpenOptions generic(SourceOptions given, OpenOptions options)
      throws BlockException {
    given.drop(GENERIC);
    OpenOptions how = options;
    if (given.takeFlag("read-only", how.readOnly())) {
      how = how.withReadOnly(true);
    }
    if (given.takeFlag("force-share", false)) {
      if (!how.readOnly()) {
        throw new UnsupportedImageException(
            given.source() + ": force-share=on can only be used with read-only images");
      }
      how = how.withoutLocks();
    }
    if (given.takeFlag("cache.no-flush", false)) {
      how = how.with(Durability.UNSAFE);
    }
    return how;
  }

  private static Optional<ImageSource> backingOption(ImageSource source, SourceOptions given) {
    SourceOptions beneath = given.takeUnder("backing");
    return beneath.isEmpty()
        ? Optional.empty()
        : Optional.of(new ImageSource(source.text(), beneath.all()));
  }

  private static Optional<Beneath> beneath(
      ImageSource source, Optional<ImageSource> override, FormatNode node) throws BlockException {
    if (override.isPresent()) {
      return Optional.of(new Beneath(override.get(), Optional.empty()));
    }
    Optional<BackingReference> reference = node.backingReference();
    return reference.isEmpty()
        ? Optional.empty()
        : Optional.of(
            new Beneath(ImageOpener.resolve(source, reference.get()), reference.get().format()));
  }

  /// Opens what holds the bytes of a format.
  private BlockNode file(SourceOptions given, boolean driverKnown, OpenOptions how)
      throws BlockException {
    Optional<String> node = given.take("file");
    if (node.isPresent()) {
      throw ImageSource.noSuchNode(given.source(), node.get());
    }
    SourceOptions options = given.takeUnder("file");
    if (options.isEmpty()) {
      throw new UnsupportedImageException(
          given.source()
              + (driverKnown
                  ? ": A block device must be specified for \"file\""
                  : ": Must specify either driver or file"));
    }
    OpenOptions own = generic(options, how);
    Optional<String> driver = options.take("driver");
    if (driver.isPresent() && Drivers.isFormat(driver.get())) {
      var beneath = new ImageSource(given.source(), options.all());
      return chain(beneath, driver, own);
    }
    BlockNode file = protocol(driver, options, own);
    try {
      refuseRest(
          options, "Block protocol '" + driver.orElse("file") + "' doesn't support the option");
      return file;
    } catch (BlockException e) {
      closeAfter(e, file);
      throw e;
    }
  }

  private BlockNode protocol(Optional<String> driver, SourceOptions options, OpenOptions how)
      throws BlockException {
    Optional<String> name = Optional.ofNullable(options.all().get("filename"));
    Optional<String> scheme =
        driver.isPresent() ? Optional.empty() : name.flatMap(ImageSource::scheme);
    Optional<ProtocolDriver> found =
        driver.isPresent()
            ? driver.flatMap(Drivers::protocolNamed)
            : scheme.flatMap(Drivers::protocolOfScheme);
    if (found.isPresent()) {
      meet(Map.entry(found.get().names(), options.all()), options.source());
      return found.get().open(options, how);
    }
    if (scheme.isPresent()) {
      throw new UnsupportedImageException(
          options.source() + ": Unknown protocol '" + scheme.get() + "'");
    }
    if (driver.isPresent() && !FileProtocol.NAMES.contains(driver.get())) {
      throw Drivers.unknown(options.source(), driver.get());
    }
    Optional<Path> path = name.flatMap(FileProtocol::path);
    if (path.isPresent()) {
      meet(identity(path.get()), path.get().toString());
    }
    return FileProtocol.open(driver, options, how);
  }

  /// Refuses a file that is in the chain already.
  private void meet(Object identity, String name) throws BlockException {
    String earlier = seen.putIfAbsent(identity, name);
    if (earlier != null) {
      throw new UnsupportedImageException(
          name + ": backing chain is a loop: it is " + earlier + " again");
    }
  }

  /// Device and inode, so that links and other spellings of a name are the same file.
  private static Object identity(Path path) throws BlockException {
    try {
      Object key = Files.readAttributes(path, BasicFileAttributes.class).fileKey();
      return key == null ? path.toRealPath() : key;
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
  }

  /// Opens the further files of an image.
  private NamedFiles named(
      ImageSource image,
      SourceOptions override,
      OpenOptions how,
      boolean mayNameFiles,
      String format) {
    return name -> {
      if (!override.isEmpty()) {
        OpenOptions own = generic(override, how);
        return protocol(override.take("driver"), override, own);
      }
      if (!mayNameFiles) {
        throw new UnsupportedImageException(
            image
                + ": names the data file "
                + name
                + ", which is believed only when the image's format is told, not guessed ("
                + format
                + ")");
      }
      ImageSource named = ImageOpener.resolve(image, new BackingReference(name, Optional.empty()));
      Path path =
          named
              .localFile()
              .orElseThrow(() ->
                  new UnsupportedImageException(
                      image + ": data file '" + name + "' is not a local file"));
      meet(identity(path), path.toString());
      return FileNode.open(path, how);
    };
  }

  private static void refuseRest(SourceOptions options, String words)
      throws UnsupportedImageException {
    if (!options.isEmpty()) {
      throw new UnsupportedImageException(
          options.source() + ": " + words + " '" + options.rest().first() + "'");
    }
  }

  static void closeAfter(Exception failure, BlockNode node) {
    try {
      node.close();
    } catch (BlockException e) {
      failure.addSuppressed(e);
    }
  }
}
