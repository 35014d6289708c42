// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static java.nio.file.LinkOption.NOFOLLOW_LINKS;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.linux.Errno;
import io.tidemark.linux.Folders;
import io.tidemark.linux.LinuxException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/// Image files by the engine's own formats. Holds nothing open between calls; any thread may call.
///
/// Readers take no image lock and tolerate a writer beside them: what they tell is the header,
/// which a running domain does not change.
public final class EngineImageService implements ImageService {
  // Spec: inode(7)
  private static final int S_IFMT = 0170000;
  private static final int S_IFREG = 0100000;
  private static final int S_IFBLK = 0060000;
  private static final int S_IFDIR = 0040000;

  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);

  public EngineImageService() {}

  @Override
  public Optional<FileStatus> status(Path file) throws DriverException {
    int type;
    long length;
    try {
      Map<String, Object> found = Files.readAttributes(file, "unix:mode,size");
      type = (int) found.getOrDefault("mode", 0) & S_IFMT;
      length = (long) found.getOrDefault("size", 0L);
    } catch (NoSuchFileException e) {
      if (Files.isDirectory(folderOf(file))) {
        return Optional.empty();
      }
      throw new DriverException(Kind.MISSING_FILE, file + ": no such folder", e);
    } catch (AccessDeniedException e) {
      throw new DriverException(Kind.MISSING_FILE, file + ": its folder may not be searched", e);
    } catch (FileSystemException e) {
      throw new DriverException(Kind.MISSING_FILE, DriverErrors.textOf(e), e); // ENOTDIR, ELOOP
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be looked at", e);
    }
    return Optional.of(
        switch (type) {
          case S_IFREG -> new FileStatus(FileKind.REGULAR, length);
          case S_IFBLK -> new FileStatus(FileKind.BLOCK_DEVICE, 0);
          case S_IFDIR -> new FileStatus(FileKind.DIRECTORY, 0);
          default -> new FileStatus(FileKind.OTHER, 0);
        });
  }

  @Override
  public boolean same(Path one, Path other) {
    try {
      return Files.isSameFile(one, other) && Files.exists(one);
    } catch (IOException _) {
      return false;
    }
  }

  @Override
  public Image inspect(Path file, String format) throws DriverException {
    try (FormatNode node = open(file, format)) {
      Optional<Backing> backing =
          node.backingReference().map(found -> new Backing(found.name(), found.format()));
      Optional<Path> backingPath =
          node.backingReference().flatMap(found -> ImageOpener.resolve(file, found));
      List<StoredBitmap> bitmaps =
          node.bitmapStore().map(BitmapStore::stored).orElse(List.of()).stream()
              .map(found ->
                  new StoredBitmap(
                      found.name(), found.granularity(), found.inconsistent(), found.enabled()))
              .toList();
      return new Image(file, format, node.virtualSize(), backing, backingPath, bitmaps);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  @Override
  public List<Image> chain(Path file, String format) throws DriverException {
    var images = new ArrayList<Image>();
    Set<Object> met = new HashSet<>();
    Path next = file;
    String nextFormat = format;
    while (true) {
      if (!met.add(inode(next))) {
        throw DriverErrors.generic(
            file + ": the backing chain is a loop, it meets " + next + " twice");
      }
      if (images.size() == ImageOpener.MAX_DEPTH) {
        throw new DriverException(
            Kind.UNSUPPORTED,
            file + ": the backing chain is deeper than " + ImageOpener.MAX_DEPTH + " images");
      }
      Image image = inspect(next, nextFormat);
      images.add(image);
      if (image.backing().isEmpty()) {
        return List.copyOf(images);
      }
      Backing backing = image.backing().get();
      Path above = next;
      next =
          image
              .backingPath()
              .orElseThrow(() ->
                  new DriverException(
                      Kind.UNSUPPORTED,
                      above + ": backing file " + backing.name() + " is not a local file"));
      nextFormat =
          backing
              .format()
              .orElseThrow(() ->
                  new DriverException(
                      Kind.UNSUPPORTED,
                      above
                          + ": the format of backing file "
                          + backing.name()
                          + " is not recorded, and is never guessed"));
      if (Files.notExists(next)) {
        throw new DriverException(
            Kind.MISSING_FILE, next + ": no such file, backing file of " + above);
      }
    }
  }

  @Override
  public String probe(Path file) throws DriverException {
    requireThere(file);
    try {
      return opener.probe(file);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  @Override
  public void create(Path file, String format, long virtualSizeBytes, Optional<Backing> backing)
      throws DriverException {
    Optional<BackingReference> reference =
        backing.map(wanted -> new BackingReference(wanted.name(), wanted.format()));
    var options = new CreateOptions(virtualSizeBytes, reference, Map.of());
    try {
      if (takesAnImage(file)) {
        opener.createOver(file, format, options);
      } else {
        opener.create(file, format, options);
      }
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Whether something is there under that name that an image may be written over.
  private static boolean takesAnImage(Path file) throws DriverException {
    if (Files.notExists(file)) {
      return false;
    }
    long length;
    try {
      BasicFileAttributes there = Files.readAttributes(file, BasicFileAttributes.class);
      if (!there.isRegularFile()) {
        return there.isOther();
      }
      length = there.size();
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be looked at", e);
    }
    if (length > 0) {
      throw DriverErrors.generic(file + ": is there already and is not empty");
    }
    return true;
  }

  /// A change of the snapshots inside an image.
  @FunctionalInterface
  private interface SnapshotChange {
    void on(SnapshotStore snapshots) throws BlockException;
  }

  @Override
  public void createSnapshot(Path file, String format, String name, Instant date)
      throws DriverException {
    changeSnapshots(file, format, snapshots -> snapshots.create(name, date));
  }

  @Override
  public void deleteSnapshot(Path file, String format, String name) throws DriverException {
    changeSnapshots(file, format, snapshots -> snapshots.delete(name));
  }

  @Override
  public void applySnapshot(Path file, String format, String name) throws DriverException {
    changeSnapshots(file, format, snapshots -> snapshots.apply(name));
  }

  /// What lies beneath is not opened: a snapshot concerns the image's own tables.
  private void changeSnapshots(Path file, String format, SnapshotChange change)
      throws DriverException {
    requireThere(file);
    try (FormatNode node = opener.openLayer(file, format, OpenOptions.readWrite())) {
      SnapshotStore snapshots =
          node.snapshots()
              .orElseThrow(() ->
                  new DriverException(
                      Kind.UNSUPPORTED, file + ": " + format + " keeps no snapshots"));
      change.on(snapshots);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  @Override
  public ImageSizes sizes(Path file, String format) throws DriverException {
    try (FormatNode node = open(file, format)) {
      return GuestDrive.sizes(node);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  @Override
  public ByteBuffer peek(Path file, long offset, int length) throws DriverException {
    requireThere(file);
    ByteBuffer bytes = ByteBuffer.allocate(length);
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      long at = offset;
      while (bytes.hasRemaining()) {
        int count = channel.read(bytes, at);
        if (count < 0) {
          break;
        }
        at += count;
      }
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be read", e);
    }
    return bytes.flip();
  }

  /// Where the file system cannot rename without replacing, a second name is made, which fails when
  /// the name is taken, and the first one removed: a crash between the two leaves both names for
  /// the one complete file.
  @Override
  public void publish(Path temporary, Path file) throws DriverException {
    requireThere(temporary);
    Path folder = folderOf(file);
    if (!folder.equals(folderOf(temporary))) {
      throw DriverErrors.generic(temporary + ": not in the folder of " + file);
    }
    try {
      rename(temporary, file, folder);
      Folders.sync(folder);
    } catch (FileAlreadyExistsException e) {
      throw new DriverException(
          Kind.GENERIC, file + ": is there already, " + temporary + " keeps its name", e);
    } catch (IOException e) {
      throw DriverErrors.of(temporary + ": cannot be named " + file, e);
    }
  }

  private static void rename(Path temporary, Path file, Path folder) throws IOException {
    try {
      Folders.renameNoReplace(temporary, file);
    } catch (LinuxException e) {
      if (e.errno() == Errno.EEXIST) {
        throw new FileAlreadyExistsException(file.toString());
      }
      // Spec: rename(2), EINVAL: the file system does not know the flag.
      if (!e.unsupported() && e.errno() != Errno.EINVAL) {
        throw e;
      }
      linkAndUnlink(temporary, file, folder);
    }
  }

  static void linkAndUnlink(Path temporary, Path file, Path folder) throws IOException {
    Files.createLink(file, temporary);
    Folders.sync(folder);
    Files.delete(temporary);
  }

  @Override
  public void delete(Path file) throws DriverException {
    requireThere(file);
    if (!Files.isRegularFile(file, NOFOLLOW_LINKS)) {
      throw DriverErrors.generic(file + ": not a regular file, it is not removed");
    }
    try {
      Files.delete(file);
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be removed", e);
    }
  }

  @Override
  public String identity(Path file) throws DriverException {
    try {
      return identityOf(file);
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be looked at", e);
    }
  }

  /// The birth last; nothing where it is not kept.
  private static String identityOf(Path file) throws IOException {
    io.tidemark.linux.FileStatus found = io.tidemark.linux.FileStatus.of(file);
    OptionalLong birth = found.birthNanos();
    return found.device()
        + ":"
        + found.inode()
        + ":"
        + (birth.isPresent() ? birth.getAsLong() : "");
  }

  @Override
  public void delete(Path file, String identity) throws DriverException {
    requireThere(file);
    String found;
    try {
      found = identityOf(file);
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be looked at", e);
    }
    if (!found.equals(identity)) {
      throw DriverErrors.generic(
          file + ": is another file (" + found + ") than was made (" + identity + "), it stays");
    }
    delete(file);
  }

  private FormatNode open(Path file, String format) throws BlockException, DriverException {
    requireThere(file);
    return opener.openLayer(HostImages.of(file), Optional.of(format), OpenOptions.forceShare());
  }

  private static void requireThere(Path file) throws DriverException {
    if (Files.notExists(file, NOFOLLOW_LINKS)) {
      throw new DriverException(Kind.MISSING_FILE, file + ": no such file");
    }
  }

  private static Object inode(Path file) throws DriverException {
    requireThere(file);
    try {
      return Files.getAttribute(file, "unix:dev") + ":" + Files.getAttribute(file, "unix:ino");
    } catch (NoSuchFileException e) {
      throw new DriverException(Kind.MISSING_FILE, file + ": no such file", e);
    } catch (IOException e) {
      throw DriverErrors.of(file + ": cannot be looked at", e);
    }
  }

  private static Path folderOf(Path file) throws DriverException {
    Path folder = file.toAbsolutePath().normalize().getParent();
    if (folder == null) {
      throw DriverErrors.generic(file + ": is a folder");
    }
    return folder;
  }
}
