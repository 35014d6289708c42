// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/// Who opened the other end of a Unix socket, as the kernel recorded it at connect.
///
/// A `SocketChannel` hides its descriptor; where names suffice,
/// `jdk.net.ExtendedSocketOptions.SO_PEERCRED` gives user and group of one.
public record PeerCredentials(int pid, int uid, int gid) {
  // Spec: Linux include/uapi/asm-generic/socket.h; struct ucred is three ints.
  private static final int SOL_SOCKET = 1;
  private static final int SO_PEERCRED = 17;

  /// @param descriptor a connected Unix socket
  public static PeerCredentials of(int descriptor) throws LinuxException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment credentials = arena.allocate(3L * Integer.BYTES, Integer.BYTES);
      MemorySegment length = arena.allocateFrom(ValueLayout.JAVA_INT, 3 * Integer.BYTES);
      int result = Calls.getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, credentials, length);
      if (result < 0) {
        throw new LinuxException("socket " + descriptor, "getsockopt", -result);
      }
      return new PeerCredentials(
          credentials.getAtIndex(ValueLayout.JAVA_INT, 0),
          credentials.getAtIndex(ValueLayout.JAVA_INT, 1),
          credentials.getAtIndex(ValueLayout.JAVA_INT, 2));
    }
  }
}
