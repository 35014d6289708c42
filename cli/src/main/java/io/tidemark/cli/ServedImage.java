// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.UnsupportedImageException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
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

  private ServedImage(String name, FormatNode image, BlockNode disk) {
    this.image = image;
    this.drive = new Drive(name, disk);
    this.store = image.bitmapStore();
  }

  /// Takes an open image, and closes it when this fails.
  ///
  /// @param snapshot an internal snapshot, by id or name, to be served in place of the disk
  static ServedImage of(FormatNode image, Optional<String> snapshot) throws BlockException {
    try {
      BlockNode disk = image;
      if (snapshot.isPresent()) {
        SnapshotStore snapshots =
            image
                .snapshots()
                .orElseThrow(() ->
                    new UnsupportedImageException(
                        image.name() + ": format " + image.format() + " has no snapshots"));
        disk = snapshots.view(snapshot.get());
      }
      var served = new ServedImage(image.name(), image, disk);
      served.loadBitmaps();
      return served;
    } catch (BlockException | RuntimeException failure) {
      closeAfter(failure, image);
      throw failure;
    }
  }

  /// Puts an empty image that nobody else sees over `base`: what is written goes there and is gone
  /// with the process. Its file is in the folder for temporary files, and has no name there.
  static FormatNode overlay(FormatNode base, ImageOpener opener) throws IOException {
    try {
      Path folder = Files.createTempDirectory("tidemark-snapshot");
      Path file = folder.resolve("overlay.qcow2");
      try {
        var nothing = Optional.<BackingReference>empty();
        opener.create(file, "qcow2", new CreateOptions(base.virtualSize(), nothing, Map.of()));
        OpenOptions options = OpenOptions.readWrite().with(Durability.FLUSHED);
        FormatNode top = opener.openLayer(ImageSource.of(file), Optional.of("qcow2"), options);
        top.attachBacking(base);
        return top;
      } finally {
        Files.deleteIfExists(file);
        Files.delete(folder);
      }
    } catch (IOException | RuntimeException failure) {
      closeAfter(failure, base);
      throw failure;
    }
  }

  private static void closeAfter(Exception failure, FormatNode node) {
    try {
      node.close();
    } catch (BlockException second) {
      failure.addSuppressed(second);
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

  /// A bitmap to offer with the image: its own, else the first of that name down its chain, which
  /// nobody writes to. Empty when there is none.
  Optional<DirtyBitmap> bitmap(String name) throws BlockException {
    Optional<DirtyBitmap> own = bitmaps.stream().filter(b -> b.name().equals(name)).findFirst();
    if (own.isPresent() || holds(store, name)) {
      return own;
    }
    Optional<BlockNode> layer = image.backing();
    while (layer.isPresent() && layer.get() instanceof FormatNode beneath) {
      Optional<BitmapStore> other = beneath.bitmapStore();
      if (holds(other, name)) {
        return inconsistent(other, name)
            ? Optional.empty()
            : Optional.of(other.orElseThrow().load(name));
      }
      layer = beneath.backing();
    }
    return Optional.empty();
  }

  private static boolean holds(Optional<BitmapStore> store, String name) {
    return store.filter(bitmaps -> bitmaps.holds(name)).isPresent();
  }

  private static boolean inconsistent(Optional<BitmapStore> store, String name) {
    return store.stream()
        .flatMap(s -> s.stored().stream())
        .anyMatch(stored -> stored.name().equals(name) && stored.inconsistent());
  }

  /// Why [#bitmap] found nothing.
  CommandException noBitmap(String name) {
    boolean inconsistent = inconsistent(store, name);
    Optional<BlockNode> layer = image.backing();
    while (layer.isPresent() && layer.get() instanceof FormatNode beneath) {
      inconsistent |= inconsistent(beneath.bitmapStore(), name);
      layer = beneath.backing();
    }
    return new CommandException(
        drive.name()
            + ": bitmap '"
            + name
            + (inconsistent
                ? "' is inconsistent: the image was not closed cleanly; remove it and take a full"
                    + " backup"
                : "' is in no image of the chain"));
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
