// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/// A descriptor of our own for a socket whose channel hides its one.
///
/// It is found by marking: the channel's linger time, which does nothing while the socket is open,
/// is set to a number that no other socket of this process has, and the descriptor that shows it is
/// duplicated. Only calls that the JDK offers touch the channel.
///
/// While this is open the connection is too, though the channel be closed: so shut the socket down
/// before closing the channel where the peer, or a [Ring#poll], is to notice. [#close] is for the
/// thread that uses it.
public final class SocketDescriptor implements AutoCloseable {
  // Spec: Linux include/uapi/asm-generic/socket.h; struct linger is two ints: on, seconds.
  private static final int SOL_SOCKET = 1;
  private static final int SO_LINGER = 13;
  private static final int F_DUPFD_CLOEXEC = 1030;
  private static final int MSG_DONTWAIT = 0x40;
  private static final int MSG_NOSIGNAL = 0x4000;

  private static final int FIRST_MARK = 20_000;
  private static final int LAST_MARK = 60_000;
  private static final Object MARKING = new Object();
  private static int mark = FIRST_MARK; // guarded by MARKING

  private final String name;
  private final int number;
  private boolean closed;

  private SocketDescriptor(String name, int number) {
    this.name = name;
    this.number = number;
  }

  /// The descriptor of a connected socket that does not linger; empty when it cannot be told which
  /// one it is.
  public static Optional<SocketDescriptor> of(SocketChannel channel) throws IOException {
    synchronized (MARKING) {
      mark = mark == LAST_MARK ? FIRST_MARK : mark + 1;
      channel.setOption(StandardSocketOptions.SO_LINGER, mark);
      try {
        return find(mark, channel.toString());
      } finally {
        channel.setOption(StandardSocketOptions.SO_LINGER, -1);
      }
    }
  }

  private static Optional<SocketDescriptor> find(int wanted, String name) throws IOException {
    int found = -1;
    try (DirectoryStream<Path> all = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
      for (Path path : all) {
        int candidate = Integer.parseInt(path.getFileName().toString());
        if (linger(candidate) == wanted) {
          if (found >= 0) {
            return Optional.empty(); // a duplicate, or somebody's own option
          }
          found = candidate;
        }
      }
    }
    if (found < 0) {
      return Optional.empty();
    }
    int copy = Calls.fcntl(found, F_DUPFD_CLOEXEC, MemorySegment.NULL);
    if (copy < 0) {
      throw new LinuxException(name, "fcntl", -copy);
    }
    // The number may have gone to another file since it was looked at; the copy is what it is.
    if (linger(copy) != wanted) {
      Calls.close(copy);
      return Optional.empty();
    }
    return Optional.of(new SocketDescriptor(name, copy));
  }

  /// The linger time; -1 when it is off, or this is no socket.
  private static int linger(int descriptor) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment value = arena.allocate(2L * Integer.BYTES, Integer.BYTES);
      MemorySegment length = arena.allocateFrom(JAVA_INT, 2 * Integer.BYTES);
      int result = Calls.getsockopt(descriptor, SOL_SOCKET, SO_LINGER, value, length);
      return result < 0 || value.get(JAVA_INT, 0) == 0 ? -1 : value.get(JAVA_INT, 4);
    }
  }

  int number() {
    return number;
  }

  /// Receives what the socket has now into a direct buffer with room, and moves the position.
  /// Returns bytes; 0 when it has none, -1 at the end of the stream.
  ///
  /// A socket that a [Ring#poll] called readable may have none: the sender makes data visible
  /// before it tells who waits, and a read between the two takes what the telling is about.
  public int receive(ByteBuffer into) throws LinuxException {
    long received = Calls.recv(number, Calls.address(into), into.remaining(), MSG_DONTWAIT);
    if (received == -Errno.EAGAIN) {
      return 0;
    }
    if (received < 0) {
      throw new LinuxException(name, "recv", (int) -received);
    }
    into.position(into.position() + (int) received);
    return received == 0 ? -1 : (int) received;
  }

  /// Sends what the socket takes now from position to limit of a direct buffer, and moves the
  /// position. Returns bytes; 0 when it takes none.
  public int send(ByteBuffer from) throws LinuxException {
    long sent =
        Calls.send(number, Calls.address(from), from.remaining(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == -Errno.EAGAIN) {
      return 0;
    }
    if (sent < 0) {
      throw new LinuxException(name, "send", (int) -sent);
    }
    from.position(from.position() + (int) sent);
    return (int) sent;
  }

  @Override
  public void close() {
    if (!closed) {
      closed = true;
      Calls.close(number);
    }
  }
}
