// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.nio.channels.FileChannel;
import org.jspecify.annotations.Nullable;

/// What a node that was opened read-only writes by.
record FileWriting(LinuxFile descriptor, FileChannel channel, @Nullable DirectFile direct) {
  static FileWriting to(LinuxFile reader, Direct opener) throws IOException {
    LinuxFile descriptor = LinuxFile.open(reader.reopenPath(), LinuxFile.Access.READ_WRITE);
    DirectFile direct = null;
    try {
      direct = opener.open(descriptor);
      return new FileWriting(
          descriptor,
          FileChannel.open(descriptor.reopenPath(), OpenFile.channelAccess(false)),
          direct);
    } catch (IOException | RuntimeException e) {
      if (direct != null) {
        OpenFile.closeAfter(e, direct);
      }
      OpenFile.closeAfter(e, descriptor);
      throw e;
    }
  }

  void close() throws IOException {
    try (descriptor;
        direct) {
      channel.close();
    }
  }

  /// Opens a file past the page cache, or does not.
  interface Direct {
    @Nullable DirectFile open(LinuxFile open) throws IOException;
  }
}
