// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import java.io.IOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/// An empty file in the run dir that says: this image is open for writing, and may hold what is not
/// durable. It is made before the image can be written and removed when the image was closed as it
/// should be, so one that no process holds was left by a killed one.
///
/// What such an image holds in the page cache was acknowledged to a guest that may live on, and a
/// flush of that guest promises it; where the image is not the one that the flush reaches, it is
/// synced first ([NodeGraph]). Of no use after a power cut, and harmless: what was not durable then
/// is gone. A mark of a file that is gone costs a later one with its inode number one sync.
///
/// Any thread may call; the run dir has one daemon.
final class WriteMark {
  /// Marks that images of this process have, with the number of images: one may be opened again
  /// before the last is closed. Guarded by itself.
  private static final Map<Path, Integer> HELD = new HashMap<>();

  private final Path file;
  private final Path image;
  private final boolean found; // a killed process left it
  private boolean ended; // guarded by HELD

  private WriteMark(Path file, Path image, boolean found) {
    this.file = file;
    this.image = image;
    this.found = found;
  }

  /// Marks an image that is about to be opened for writing.
  static WriteMark make(Path folder, Path image) throws IOException {
    Path file = fileOf(folder, image);
    synchronized (HELD) {
      boolean found = false;
      try {
        Files.createFile(file);
      } catch (FileAlreadyExistsException _) {
        found = !HELD.containsKey(file);
      }
      HELD.merge(file, 1, Integer::sum);
      return new WriteMark(file, image, found);
    }
  }

  private static Path fileOf(Path folder, Path image) throws IOException {
    Map<String, Object> which = Files.readAttributes(image, "unix:dev,ino");
    return folder.resolve("writing-" + which.get("dev") + "-" + which.get("ino"));
  }

  /// Whether a killed process had the image open for writing.
  static boolean isLeft(Path folder, Path image) throws IOException {
    Path file = fileOf(folder, image);
    synchronized (HELD) {
      return !HELD.containsKey(file) && Files.exists(file);
    }
  }

  /// What a killed process wrote into the image is durable.
  static void settled(Path folder, Path image) throws IOException {
    Path file = fileOf(folder, image);
    synchronized (HELD) {
      if (!HELD.containsKey(file)) {
        Files.deleteIfExists(file);
      }
    }
  }

  /// The image was not opened after all.
  void undo() throws IOException {
    end(!found);
  }

  /// The image was closed, and all that was written here is as durable as its user wanted.
  void remove() throws IOException {
    if (found) {
      HostImages.sync(image);
    }
    end(true);
  }

  /// Somebody else closes the image, or nobody could: as if this process were killed.
  void leave() {
    synchronized (HELD) {
      if (!ended) {
        HELD.computeIfPresent(file, (_, images) -> images == 1 ? null : images - 1);
        ended = true;
      }
    }
  }

  private void end(boolean remove) throws IOException {
    synchronized (HELD) {
      leave();
      if (remove && !HELD.containsKey(file)) {
        Files.deleteIfExists(file);
      }
    }
  }
}
