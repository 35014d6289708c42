// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.qcow2.StaleLogs;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;
import java.util.Optional;

/// Where an image's log of acknowledged writes lies: in `log` of the run dir that the daemon takes
/// by itself, so that whoever opens the image next, this command or the daemon, finds it.
///
/// Without it `export serve` would sync at each write that takes a new cluster. With it, what a
/// client was told is written and did not flush is in the image after a kill as soon as Tidemark
/// has opened the image once; a program that opens it before, qemu-img say, sees an image that is
/// sound and lacks those writes, as after the death of qemu-nbd. When that program writes, the log
/// no longer fits and is refused, not replayed.
final class LogFolder {
  private LogFolder() {}

  /// For opening what another process may have left; empty when no log was ever made.
  static Optional<Path> present() {
    return place().filter(folder -> Files.isDirectory(folder, LinkOption.NOFOLLOW_LINKS));
  }

  /// For serving; empty where none can be made.
  static Optional<Path> made() {
    Optional<Path> place = place();
    if (place.isEmpty() || present().isPresent()) {
      return place;
    }
    try {
      Path folder = place.get();
      Path runDir = folder.resolve("..").normalize();
      if (!Files.isDirectory(runDir)) {
        // As the daemon makes it: others reach a socket in it.
        Files.createDirectory(
            runDir,
            PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwxr-xr-x")));
      }
      Files.createDirectory(
          folder,
          PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
      return place;
    } catch (IOException e) {
      return present(); // someone was faster, or there is no place for one
    }
  }

  /// Removes logs of images that are gone, beside the caller.
  static void tidy() {
    present().ifPresent(StaleLogs::removeBeside);
  }

  private static Optional<Path> place() {
    return place("root".equals(System.getProperty("user.name")), System.getenv());
  }

  static Optional<Path> place(boolean root, Map<String, String> environment) {
    try {
      return Optional.of(DaemonCommand.runDir(root, environment).resolve("log"));
    } catch (CommandException e) {
      return Optional.empty();
    }
  }
}
