// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/// A folder that one daemon at a time works in, shown by a lock on its file `lock`. The kernel
/// gives the lock back when the process ends, however it ends.
final class OwnedFolder implements AutoCloseable {
  private final FileChannel channel;

  private OwnedFolder(FileChannel channel) {
    this.channel = channel;
  }

  /// Makes the folder if it is not there.
  ///
  /// @param permissions of a folder that is made, as `rwx------`
  /// @throws IOException another daemon has it
  static OwnedFolder take(Path folder, String permissions) throws IOException {
    Set<PosixFilePermission> mode = PosixFilePermissions.fromString(permissions);
    if (!Files.isDirectory(folder)) {
      Files.createDirectories(folder);
      Files.setPosixFilePermissions(folder, mode);
    }
    Path file = folder.resolve("lock");
    FileChannel channel =
        FileChannel.open(
            file,
            Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE),
            PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    if (!locked(channel)) {
      channel.close();
      throw new IOException(folder + ": in use by another tidemark daemon");
    }
    return new OwnedFolder(channel);
  }

  private static boolean locked(FileChannel channel) throws IOException {
    try {
      @Nullable FileLock lock = channel.tryLock();
      return lock != null;
    } catch (OverlappingFileLockException e) {
      return false; // this very process has it
    } catch (IOException e) {
      channel.close();
      throw e;
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
