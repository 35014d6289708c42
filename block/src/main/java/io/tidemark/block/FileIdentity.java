// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.Map;

/// Which file it is, and of what kind.
record FileIdentity(long container, long inode, boolean device) {
  private static final int S_IFMT = 0170000;
  private static final int S_IFREG = 0100000;
  private static final int S_IFBLK = 0060000;

  /// Refuses what is neither a regular file nor a block device. Asked before opening, because
  /// opening a pipe would wait for its other end.
  static FileIdentity of(Path path) throws IOException {
    Map<String, Object> attributes =
        Files.readAttributes(path, "unix:mode,dev,ino", new LinkOption[0]);
    int type = attributes.get("mode") instanceof Integer mode ? mode & S_IFMT : 0;
    if (type != S_IFREG && type != S_IFBLK) {
      throw new UnsupportedImageException(
          path
              + ": neither a regular file nor a block device (file type 0"
              + Integer.toOctalString(type)
              + ")");
    }
    return new FileIdentity(
        attributes.get("dev") instanceof Long dev ? dev : -1,
        attributes.get("ino") instanceof Long inode ? inode : -1,
        type == S_IFBLK);
  }
}
