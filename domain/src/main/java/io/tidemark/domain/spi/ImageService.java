// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/// What the domain room asks about image files, running or not. Used with every driver. No call
/// changes a file but [#create], [#publish], the deletes and those about snapshots.
public interface ImageService {
  /// A backing file as the image's header records it.
  record Backing(String name, Optional<String> format) {}

  /// A bitmap stored in an image.
  record StoredBitmap(
      String name, long granularityBytes, boolean inconsistent, boolean recording) {}

  /// What an image's header says.
  ///
  /// @param backingPath the recorded backing file as an absolute path, relative names resolved;
  ///   absent when there is none
  record Image(
      Path file,
      String format,
      long virtualSizeBytes,
      Optional<Backing> backing,
      Optional<Path> backingPath,
      List<StoredBitmap> bitmaps) {}

  /// What stands at a path, links followed.
  enum FileKind {
    REGULAR,
    BLOCK_DEVICE,
    DIRECTORY,
    OTHER
  }

  /// @param lengthBytes of a regular file; 0 for anything else
  record FileStatus(FileKind kind, long lengthBytes) {}

  /// What stands at `file`; empty when nothing does. Kind `MISSING_FILE` when its folder is missing
  /// or may not be searched.
  Optional<FileStatus> status(Path file) throws DriverException;

  /// Whether both names lead to one file that is there, links followed.
  boolean same(Path one, Path other);

  /// Reads a header as `format`, sharing the file with a writer.
  Image inspect(Path file, String format) throws DriverException;

  /// The image and what lies beneath, active layer first, as libvirt walks it: a recorded backing
  /// format is trusted, an unrecorded one refused; a loop or a missing file is an error that names
  /// it.
  List<Image> chain(Path file, String format) throws DriverException;

  /// The format the file's bytes show, `raw` when none. Only where a libvirt flag means it
  /// (REUSE_EXT without RAW).
  String probe(Path file) throws DriverException;

  /// Creates an image in a new or empty file, or on a block device. What is in a file is never
  /// overwritten (kind `GENERIC`). When it fails, a file that was not there before is not there
  /// after.
  void create(Path file, String format, long virtualSizeBytes, Optional<Backing> backing)
      throws DriverException;

  /// Keeps the disk of an image that nobody has open as it is now, inside the image. Synced.
  void createSnapshot(Path file, String format, String name, Instant date) throws DriverException;

  /// Removes a snapshot from inside an image that nobody has open. Kind `NOT_FOUND` when there is
  /// none of that name.
  void deleteSnapshot(Path file, String format, String name) throws DriverException;

  /// Makes the disk of an image that nobody has open as it was in a snapshot inside it.
  void applySnapshot(Path file, String format, String name) throws DriverException;

  ImageSizes sizes(Path file, String format) throws DriverException;

  /// Bytes of a file or device as they are now, whoever writes it; fewer than `length` at its end.
  ByteBuffer peek(Path file, long offset, int length) throws DriverException;

  /// Gives a complete, flushed file its final name in the same folder, durably: when the call
  /// returns, the name survives a power cut. An existing `file` is never replaced (kind `GENERIC`,
  /// and `temporary` is as it was).
  void publish(Path temporary, Path file) throws DriverException;

  /// Removes a regular file; never a device node.
  void delete(Path file) throws DriverException;

  /// What tells a file from any other that may have its name later: its device, inode and, where
  /// the file system keeps it, birth. Of a file that the caller has just made: its times may
  /// change.
  String identity(Path file) throws DriverException;

  /// As [#delete], of the file with this identity; another one stays (kind `GENERIC`).
  void delete(Path file, String identity) throws DriverException;
}
