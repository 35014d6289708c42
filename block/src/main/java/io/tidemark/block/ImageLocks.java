// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.LinuxException;
import io.tidemark.linux.LinuxFile;
import java.nio.file.Path;
import java.util.EnumSet;
import java.util.Set;

/// QEMU's image locks: what a program does with an image, and what it lets others do meanwhile, as
/// shared locks on single bytes of the file (rule 12).
///
/// A program holds byte 100 + n for each permission n that it uses and byte 200 + n for each that
/// it denies to others. It takes its own bytes first and then looks whether anyone holds the
/// opposite ones; of two that come at once at least one sees the other, and gives up. The locks
/// belong to the open file description: they end when it is closed or its process dies, and not
/// when another descriptor of the file is closed. Two nodes of one process exclude each other as
/// two processes do.
///
/// qemu: 7.2, seen in `/proc/locks`: a writer of a qcow2 image uses consistent read, write and
/// resize, a reader consistent read; both deny write and resize. We hold raw images the same way.
final class ImageLocks {
  /// Permissions by QEMU's numbers. WRITE_UNCHANGED (2) is neither used nor denied by us.
  private enum Permission {
    CONSISTENT_READ(0, "consistent read"),
    WRITE(1, "write"),
    RESIZE(3, "resize");

    private final int number;
    private final String words;

    Permission(int number, String words) {
      this.number = number;
      this.words = words;
    }

    long usedByte() {
      return 100L + number;
    }

    long deniedByte() {
      return 200L + number;
    }
  }

  private static final Set<Permission> DENIED = EnumSet.of(Permission.WRITE, Permission.RESIZE);

  private static final Set<Permission> WRITING = EnumSet.of(Permission.WRITE, Permission.RESIZE);

  private ImageLocks() {}

  /// Takes the locks for reading, or for reading and writing. They end when `file` is closed, which
  /// the caller does also when this throws.
  static void take(Path path, LinuxFile file, boolean readOnly) throws BlockException {
    Set<Permission> used =
        readOnly ? EnumSet.of(Permission.CONSISTENT_READ) : EnumSet.allOf(Permission.class);
    try {
      for (Permission permission : used) {
        lock(path, file, permission.usedByte());
      }
      for (Permission permission : DENIED) {
        lock(path, file, permission.deniedByte());
      }
      for (Permission permission : used) {
        if (file.lockedElsewhere(permission.deniedByte(), 1)) {
          throw busy(path, "\"" + permission.words + "\"", "does not allow that");
        }
      }
      for (Permission permission : DENIED) {
        if (file.lockedElsewhere(permission.usedByte(), 1)) {
          throw busy(path, "shared \"" + permission.words + "\"", "does that");
        }
      }
    } catch (LinuxException e) {
      throw HostErrors.of(path + ": image lock", e);
    }
  }

  /// Adds a writer's locks to a reader's. When it throws, the reader's are left.
  static void upgrade(Path path, LinuxFile file) throws BlockException {
    try {
      take(path, file, false);
    } catch (BlockException e) {
      try {
        downgrade(path, file);
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  /// Gives back what a writer holds and a reader does not.
  static void downgrade(Path path, LinuxFile file) throws BlockException {
    try {
      for (Permission permission : WRITING) {
        file.unlock(permission.usedByte(), 1);
      }
    } catch (LinuxException e) {
      throw HostErrors.of(path + ": image lock", e);
    }
  }

  private static void lock(Path path, LinuxFile file, long at)
      throws BlockException, LinuxException {
    if (!file.lockShared(at, 1)) {
      throw new ImageBusyException(
          path + ": another process holds byte " + at + " of the image locked exclusively");
    }
  }

  private static ImageBusyException busy(Path path, String lock, String what) {
    return new ImageBusyException(
        path + ": cannot get " + lock + " lock: another user of the image " + what);
  }
}
