// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ImageFormat;
import io.tidemark.linux.Folders;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Optional;

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
    /// `tidemark image`: what is found is believed, unless it names further files. qemu-img
    /// believes those as well, and so lets whoever writes a raw backing file read any file of the
    /// host.
    ALLOWED
  }

  private final Probing probing;
  private final Optional<Path> runDir;

  public ImageOpener(Probing probing) {
    this(probing, Optional.empty());
  }

  /// @param runDir for options that name none: where the log of a killed process is looked for
  public ImageOpener(Probing probing, Optional<Path> runDir) {
    this.probing = probing;
    this.runDir = runDir;
  }

  private OpenOptions withRunDir(OpenOptions options) {
    return options.runDir().isPresent() || runDir.isEmpty()
        ? options
        : options.withRunDir(runDir.get());
  }

  /// Opens `path` as `format` with its whole chain.
  ///
  /// @throws UnsupportedImageException for a format that is not known, and for the chains refused
  ///   above
  /// @throws TransportException when a file of the chain is missing or unreadable
  public FormatNode open(Path path, String format, OpenOptions options) throws BlockException {
    return open(ImageSource.of(path), Optional.of(format), options);
  }

  /// Opens `source` with its whole chain.
  ///
  /// @param format wins over what the source says; where neither says it, the top image is probed
  /// @throws UnsupportedImageException when the source is malformed or names a driver or an option
  ///   that is not known, and for the chains refused above
  /// @throws TransportException when a file of the chain is missing or unreadable
  public FormatNode open(ImageSource source, Optional<String> format, OpenOptions options)
      throws BlockException {
    return new ChainOpening(probing).chain(source, format, withRunDir(options));
  }

  /// Opens only this image: the caller attaches the backing node, or none (then unallocated ranges
  /// read as zeroes).
  public FormatNode openLayer(Path path, String format, OpenOptions options) throws BlockException {
    return openLayer(ImageSource.of(path), Optional.of(format), options);
  }

  /// As [#openLayer(Path, String, OpenOptions)], by source. A `backing` in the source is not looked
  /// at.
  public FormatNode openLayer(ImageSource source, Optional<String> format, OpenOptions options)
      throws BlockException {
    return new ChainOpening(probing).layer(source, format, withRunDir(options), true).node();
  }

  /// The format that the first bytes of the file show, `raw` when none matches.
  public String probe(Path path) throws BlockException {
    ByteBuffer head = ByteBuffer.allocate(PROBE_BYTES);
    try {
      FileIdentity.of(path);
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
    return Drivers.probe(head).name();
  }

  /// Where a backing reference found in `image` leads: relative names start at the image's folder.
  /// Empty when the name is not a local file: it has a protocol (`nbd://…`, `json:…`), or is no
  /// path at all. A leading `file:` is dropped, as QEMU does. `..` stays, because a folder may be a
  /// symbolic link.
  public static Optional<Path> resolve(Path image, BackingReference reference) {
    try {
      return resolve(ImageSource.of(image), reference).localFile();
    } catch (BlockException _) {
      return Optional.empty();
    }
  }

  /// What a backing reference found in `image` names. A relative name starts at the folder of the
  /// image's file, as it was named; a name inside `json:` at the folder of the process, as in QEMU.
  ///
  /// @throws UnsupportedImageException when the name is malformed, or relative and the image is not
  ///   a local file
  public static ImageSource resolve(ImageSource image, BackingReference reference)
      throws UnsupportedImageException {
    String name = reference.name();
    Optional<String> scheme = ImageSource.scheme(name);
    if (scheme.isPresent() && !name.startsWith("file:")) {
      return ImageSource.parse(name);
    }
    String rest = scheme.isPresent() ? name.substring("file:".length()) : name;
    Path path =
        FileProtocol.path(rest)
            .orElseThrow(() ->
                new UnsupportedImageException(
                    image + ": backing file '" + name + "' is not the name of a file"));
    if (path.isAbsolute()) {
      return ImageSource.of(path);
    }
    Path beside =
        image
            .localFile()
            .orElseThrow(() ->
                new UnsupportedImageException(
                    image
                        + ": backing file '"
                        + name
                        + "' is a relative name, and the image is not in a folder"));
    return ImageSource.of(beside.resolveSibling(path));
  }

  /// Creates a file and an image in it; both are on stable storage when it returns. The file must
  /// not exist. A file made by a call that then fails is removed.
  public void create(Path path, String format, CreateOptions options) throws BlockException {
    ImageFormat known = Drivers.format(path.toString(), format);
    FileNode file = FileNode.create(path);
    try (file) {
      known.create(file, options, new NewFiles(path));
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
    ImageFormat known = Drivers.format(path.toString(), format);
    try (FileNode file = FileNode.open(path, OpenOptions.readWrite())) {
      if (file.isDevice()) {
        file.writeZeroes(0, Math.min(file.virtualSize(), Zeroes.BLOCK), ZeroMode.MAY_UNMAP);
      } else {
        file.resize(0);
      }
      known.create(file, options, new NewFiles(path));
    }
  }

  /// Bytes that an image would take; see [ImageFormat#measure].
  public Measurement measure(String format, CreateOptions options, Optional<BlockNode> source)
      throws BlockException {
    return Drivers.format("new image", format).measure(options, source);
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
}
