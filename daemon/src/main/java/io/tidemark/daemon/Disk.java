// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/// The steps of which [FileStateStore] makes its promises, so that a test can cut the power between
/// any two. Only `sync` and `syncFolder` make anything durable.
interface Disk {
  /// Makes a folder, and those above it, if they are not there.
  ///
  /// @return the folders in which an entry was made
  List<Path> makeFolder(Path folder) throws IOException;

  /// Writes a new file and makes its bytes durable; its name is not yet.
  void writeAndSync(Path file, byte[] bytes) throws IOException;

  /// In one instant.
  void rename(Path from, Path to) throws IOException;

  /// False when it was not there.
  boolean delete(Path file) throws IOException;

  /// False when it was not there or is not empty.
  boolean deleteFolder(Path folder) throws IOException;

  /// Makes the folder's entries durable.
  void syncFolder(Path folder) throws IOException;

  byte[] read(Path file) throws IOException;

  /// Nothing when the folder is not there.
  List<Path> list(Path folder) throws IOException;

  /// The machine's own.
  Disk SYSTEM =
      new Disk() {
        @Override
        public List<Path> makeFolder(Path folder) throws IOException {
          if (Files.isDirectory(folder)) {
            return List.of();
          }
          Path above = folder.toAbsolutePath().getParent();
          if (above == null) {
            throw new NoSuchFileException(folder.toString());
          }
          List<Path> changed =
              Stream.concat(makeFolder(above).stream(), Stream.of(above)).distinct().toList();
          Files.createDirectory(
              folder,
              PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
          return changed;
        }

        @Override
        public void writeAndSync(Path file, byte[] bytes) throws IOException {
          try (FileChannel channel =
              FileChannel.open(
                  file,
                  Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE),
                  PosixFilePermissions.asFileAttribute(
                      PosixFilePermissions.fromString("rw-------")))) {
            ByteBuffer rest = ByteBuffer.wrap(bytes);
            while (rest.hasRemaining()) {
              channel.write(rest);
            }
            channel.force(true);
          }
        }

        @Override
        public void rename(Path from, Path to) throws IOException {
          try {
            Files.move(from, to, StandardCopyOption.ATOMIC_MOVE);
          } catch (AtomicMoveNotSupportedException e) {
            throw new IOException(to + ": cannot be replaced in one step", e);
          }
        }

        @Override
        public boolean delete(Path file) throws IOException {
          return Files.deleteIfExists(file);
        }

        @Override
        public boolean deleteFolder(Path folder) throws IOException {
          try {
            return Files.deleteIfExists(folder);
          } catch (DirectoryNotEmptyException e) {
            return false;
          }
        }

        @Override
        public void syncFolder(Path folder) throws IOException {
          try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
            channel.force(true);
          }
        }

        @Override
        public byte[] read(Path file) throws IOException {
          return Files.readAllBytes(file);
        }

        @Override
        public List<Path> list(Path folder) throws IOException {
          if (!Files.isDirectory(folder)) {
            return List.of();
          }
          try (Stream<Path> entries = Files.list(folder)) {
            return entries.sorted().toList();
          }
        }
      };
}
