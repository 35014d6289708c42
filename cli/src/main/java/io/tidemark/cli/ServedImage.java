// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// An image while `export serve` offers it, with the persistent bitmaps it holds.
///
/// While it may be written, every consistent bitmap of the image is marked in use there and records
/// in memory; [#close] writes them back. So whatever ends the process otherwise leaves bitmaps that
/// say of themselves that they cannot be trusted, and never one that misses a write.
final class ServedImage implements AutoCloseable {
  private final FormatNode image;
  private final Drive drive;
  private final Optional<BitmapStore> store;
  private final List<DirtyBitmap> bitmaps = new ArrayList<>();

  private ServedImage(Path path, FormatNode image) {
    this.image = image;
    this.drive = new Drive(path.toString(), image);
    this.store = image.bitmapStore();
  }

  /// Opens an image with its chain.
  static ServedImage open(Path path, String format, boolean readOnly) throws BlockException {
    OpenOptions options = readOnly ? OpenOptions.reading() : OpenOptions.readWrite();
    Optional<Path> logs = readOnly ? LogFolder.present() : LogFolder.made();
    if (logs.isPresent()) {
      options = options.withRunDir(logs.get());
    }
    FormatNode image = new ImageFiles().opener().open(path, format, options);
    try {
      var served = new ServedImage(path, image);
      served.loadBitmaps();
      return served;
    } catch (BlockException | RuntimeException failure) {
      try {
        image.close();
      } catch (BlockException second) {
        failure.addSuppressed(second);
      }
      throw failure;
    }
  }

  private void loadBitmaps() throws BlockException {
    if (store.isEmpty()) {
      return;
    }
    for (BitmapStore.Stored stored : store.get().stored()) {
      if (!stored.inconsistent()) {
        DirtyBitmap bitmap = store.get().load(stored.name());
        bitmap.setEnabled(stored.enabled());
        bitmaps.add(bitmap);
      }
    }
    if (image.readOnly() || bitmaps.isEmpty()) {
      return;
    }
    store.get().claim();
    try (var _ = drive.drain()) {
      bitmaps.forEach(drive::addBitmap);
    }
  }

  Drive drive() {
    return drive;
  }

  /// A bitmap to offer with the image.
  DirtyBitmap bitmap(String name) throws CommandException {
    for (DirtyBitmap bitmap : bitmaps) {
      if (bitmap.name().equals(name)) {
        return bitmap;
      }
    }
    boolean inconsistent =
        store.stream()
            .flatMap(s -> s.stored().stream())
            .anyMatch(stored -> stored.name().equals(name));
    throw new CommandException(
        drive.name()
            + ": bitmap '"
            + name
            + (inconsistent
                ? "' is inconsistent: the image was not closed cleanly; remove it and take a full"
                    + " backup"
                : "' is not in the image"));
  }

  /// Flushes what clients wrote, writes the bitmaps back and closes the image. Nothing may use the
  /// drive any more.
  @Override
  public void close() throws BlockException {
    try (image) {
      if (!image.readOnly()) {
        drive.flush();
        if (store.isPresent() && !bitmaps.isEmpty()) {
          store.get().store(bitmaps);
        }
      }
    }
  }
}
