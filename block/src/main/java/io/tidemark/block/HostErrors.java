// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.Errno;
import io.tidemark.linux.LinuxException;
import java.io.IOException;
import java.nio.channels.ClosedChannelException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.util.Set;

/// The one mapping from what the host's file calls throw to a [BlockException].
final class HostErrors {
  /// What the C library says in English for ENOSPC, EDQUOT and EFBIG; the JDK passes no number on.
  private static final Set<String> OUT_OF_SPACE =
      Set.of("No space left on device", "Disk quota exceeded", "File too large");

  /// The same in the language of the process, asked for when English does not match.
  private static final class Local {
    static final Set<String> OUT_OF_SPACE = Errno.outOfSpaceMessages();
  }

  private HostErrors() {}

  /// @param place the object and what was being done to it, e.g. `/a/b.img: write at 0x1000`
  static BlockException of(String place, IOException failure) {
    if (failure instanceof BlockException known) {
      return known;
    }
    String reason = reason(failure);
    if (isOutOfSpace(failure, reason)) {
      return new OutOfSpaceException(place + ": " + reason, failure);
    }
    return new TransportException(place + ": " + reason, failure);
  }

  private static boolean isOutOfSpace(IOException failure, String reason) {
    return switch (failure) {
      case LinuxException linux -> linux.outOfSpace();
      case FileSystemException _, ClosedChannelException _ -> OUT_OF_SPACE.contains(reason);
      default -> OUT_OF_SPACE.contains(reason) || Local.OUT_OF_SPACE.contains(reason);
    };
  }

  private static String reason(IOException failure) {
    return switch (failure) {
      case LinuxException linux -> linux.reason();
      case NoSuchFileException _ -> "no such file";
      case FileAlreadyExistsException _ -> "file exists already";
      case AccessDeniedException _ -> "permission denied";
      case ClosedChannelException _ -> "node is closed";
      case FileSystemException f when f.getReason() != null -> f.getReason();
      default -> failure.getMessage() == null ? failure.toString() : failure.getMessage();
    };
  }
}
