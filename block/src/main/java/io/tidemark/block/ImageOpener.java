// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ImageFormat;
import io.tidemark.linux.Folders;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;
import java.util.stream.Collectors;

/// Opens an image and the chain beneath it.
///
/// Backing images are opened read-only. Refused: a chain deeper than [#MAX_DEPTH], a chain that
/// meets the same file twice (by device and inode), a backing file without a recorded format
/// (unless probing is allowed).
///
/// Any thread may use an opener; it keeps nothing between calls.
public final class ImageOpener {
  /// Images in one chain.
  public static final int MAX_DEPTH = 200;

  /// Bytes of a file's start that formats are recognised by.
  static final int PROBE_BYTES = 512;

  /// Whether a backing file whose format is not recorded may be probed.
  public enum Probing {
    /// The daemon: a guest could have written what the probe finds (rule 4).
    REFUSED,
    /// `tidemark image`, as qemu-img without `-f`.
    ALLOWED
  }

  private static final class Formats {
    static final List<ImageFormat> ALL =
        ServiceLoader.load(ImageFormat.class, ImageOpener.class.getClassLoader()).stream()
            .map(ServiceLoader.Provider::get)
            .toList();
  }

  private final Probing probing;

  public ImageOpener(Probing probing) {
    this.probing = probing;
  }

  /// Opens `path` as `format` with its whole chain.
  ///
  /// @throws UnsupportedImageException for a format that is not known, and for the chains refused
  ///   above
  /// @throws TransportException when a file of the chain is missing or unreadable
  public FormatNode open(Path path, String format, OpenOptions options) throws BlockException {
    Map<Object, Path> seen = new HashMap<>();
    seen.put(identity(path), path);
    FormatNode top = openLayer(path, format, options);
    try {
      var beneath = new OpenOptions(true, options.lock(), options.runDir());
      FormatNode overlay = top;
      Path overlayPath = path;
      while (overlay.backingReference().isPresent()) {
        BackingReference reference = overlay.backingReference().get();
        Path backingPath = localPath(overlayPath, reference);
        if (seen.size() >= MAX_DEPTH) {
          throw new UnsupportedImageException(
              path + ": backing chain has more than " + MAX_DEPTH + " images");
        }
        FormatNode backing = openBacking(overlayPath, backingPath, reference, beneath, seen);
        overlay.attachBacking(backing);
        overlay = backing;
        overlayPath = backingPath;
      }
      return top;
    } catch (BlockException | RuntimeException e) {
      closeAfter(e, top);
      throw e;
    }
  }

  private FormatNode openBacking(
      Path overlay,
      Path backing,
      BackingReference reference,
      OpenOptions options,
      Map<Object, Path> seen)
      throws BlockException {
    try {
      Path earlier = seen.putIfAbsent(identity(backing), backing);
      if (earlier != null) {
        throw new UnsupportedImageException(
            overlay + ": backing chain is a loop: " + backing + " is " + earlier + " again");
      }
      return openLayer(backing, backingFormat(overlay, backing, reference), options);
    } catch (TransportException e) {
      throw new TransportException(overlay + ": backing file " + e.getMessage(), e);
    }
  }

  private String backingFormat(Path overlay, Path backing, BackingReference reference)
      throws BlockException {
    if (reference.format().isPresent()) {
      return reference.format().get();
    }
    return switch (probing) {
      case ALLOWED -> probe(backing);
      case REFUSED ->
          throw new UnsupportedImageException(
              overlay
                  + ": format of backing file "
                  + backing
                  + " is not recorded, and is not guessed");
    };
  }

  private static Path localPath(Path overlay, BackingReference reference) throws BlockException {
    return resolve(overlay, reference)
        .orElseThrow(() ->
            new UnsupportedImageException(
                overlay + ": backing file '" + reference.name() + "' is not a local file"));
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

  /// Opens only this image: the caller attaches the backing node, or none (then unallocated ranges
  /// read as zeroes).
  public FormatNode openLayer(Path path, String format, OpenOptions options) throws BlockException {
    ImageFormat known = format(path, format);
    FileNode file = FileNode.open(path, options);
    try {
      return known.open(file, options);
    } catch (BlockException | RuntimeException e) {
      closeAfter(e, file);
      throw e;
    }
  }

  /// The format that the first bytes of the file show, `raw` when none matches.
  public String probe(Path path) throws BlockException {
    ByteBuffer head = ByteBuffer.allocate(PROBE_BYTES);
    try {
      FileNode.Identity.of(path);
      try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
        int at = 0;
        while (head.hasRemaining()) {
          int count = channel.read(head, at);
          if (count < 0) {
            break;
          }
          at += count;
        }
      }
    } catch (IOException e) {
      throw HostErrors.of(path.toString(), e);
    }
    head.flip();
    for (ImageFormat format : Formats.ALL) {
      if (format.probe(head.duplicate())) {
        return format.name();
      }
    }
    return "raw";
  }

  /// Where a backing reference found in `image` leads: relative names start at the image's folder.
  /// Empty when the name is not a local file: it has a protocol (`nbd://…`, `json:…`), or is no
  /// path at all. A leading `file:` is dropped, as QEMU does. `..` stays, because a folder may be a
  /// symbolic link.
  public static Optional<Path> resolve(Path image, BackingReference reference) {
    String name = reference.name();
    if (name.startsWith("file:")) {
      name = name.substring("file:".length());
    } else {
      int colon = name.indexOf(':');
      int slash = name.indexOf('/');
      // qemu: a colon before the first slash ends a protocol's name
      if (colon >= 0 && (slash < 0 || colon < slash)) {
        return Optional.empty();
      }
    }
    if (name.isEmpty()) {
      return Optional.empty();
    }
    try {
      Path path = Path.of(name);
      return Optional.of(path.isAbsolute() ? path : image.resolveSibling(path));
    } catch (InvalidPathException _) {
      return Optional.empty();
    }
  }

  /// Creates a file and an image in it; both are on stable storage when it returns. The file must
  /// not exist. A file made by a call that then fails is removed.
  public void create(Path path, String format, CreateOptions options) throws BlockException {
    ImageFormat known = format(path, format);
    FileNode file = FileNode.create(path);
    try (file) {
      known.create(file, options);
      syncFolder(path);
    } catch (BlockException | RuntimeException e) {
      try {
        Files.deleteIfExists(path);
      } catch (IOException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  /// As [#create], but in a file or device that exists: what is in it is lost, whether or not the
  /// call then fails.
  public void createOver(Path path, String format, CreateOptions options) throws BlockException {
    ImageFormat known = format(path, format);
    try (FileNode file = FileNode.open(path, OpenOptions.readWrite())) {
      if (file.isDevice()) {
        file.writeZeroes(0, Math.min(file.virtualSize(), Zeroes.BLOCK), ZeroMode.MAY_UNMAP);
      } else {
        file.resize(0);
      }
      known.create(file, options);
    }
  }

  private static void syncFolder(Path path) throws BlockException {
    Path folder = path.toAbsolutePath().getParent();
    if (folder == null) {
      return;
    }
    try {
      Folders.sync(folder);
    } catch (IOException e) {
      throw HostErrors.of(folder + ": sync", e);
    }
  }

  private static ImageFormat format(Path path, String name) throws UnsupportedImageException {
    for (ImageFormat format : Formats.ALL) {
      if (format.name().equals(name)) {
        return format;
      }
    }
    throw new UnsupportedImageException(
        path
            + ": format '"
            + name
            + "' is not known; known are "
            + Formats.ALL.stream()
                .map(ImageFormat::name)
                .sorted()
                .collect(Collectors.joining(", ")));
  }

  private static void closeAfter(Exception failure, BlockNode node) {
    try {
      node.close();
    } catch (BlockException e) {
      failure.addSuppressed(e);
    }
  }
}
