// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.net.ConnectException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.concurrent.ThreadLocalRandom;
import org.jspecify.annotations.Nullable;

/// A listening unix socket and its file.
///
/// The socket is made under another name in the same folder, given mode 0600, and renamed: so it
/// never stands open to others, a stale one is replaced in one step, and whoever sees the file can
/// connect.
final class UnixSocket {
  /// Spec: unix(7), `sun_path`, less the byte that ends it.
  static final int MAX_PATH_BYTES = 107;

  private static final int FILE_TYPE_MASK = 0170000;
  private static final int FILE_TYPE_SOCKET = 0140000;

  private UnixSocket() {}

  static ServerSocketChannel listen(Path path, int backlog) throws IOException {
    int bytes = path.toString().getBytes(UTF_8).length;
    if (bytes > MAX_PATH_BYTES) {
      throw new IOException(
          path + ": " + bytes + " bytes, a socket's path has at most " + MAX_PATH_BYTES);
    }
    if (Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      refuseUnlessStale(path);
    }
    int salt = ThreadLocalRandom.current().nextInt(1 << 20);
    Path temporary = path.resolveSibling("." + Integer.toHexString(salt));
    ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      bind(channel, path, temporary, backlog);
      return channel;
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  private static void bind(ServerSocketChannel channel, Path path, Path temporary, int backlog)
      throws IOException {
    try {
      channel.bind(UnixDomainSocketAddress.of(temporary), backlog);
    } catch (IOException e) {
      throw new IOException(path + ": cannot listen: " + e.getMessage(), e);
    }
    try {
      Files.setPosixFilePermissions(temporary, PosixFilePermissions.fromString("rw-------"));
      Files.move(
          temporary, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      Files.deleteIfExists(temporary);
      throw e;
    }
  }

  private static void refuseUnlessStale(Path path) throws IOException {
    int mode = (int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS);
    if ((mode & FILE_TYPE_MASK) != FILE_TYPE_SOCKET) {
      throw new FileAlreadyExistsException(path + ": is a file and no socket");
    }
    try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      probe.connect(UnixDomainSocketAddress.of(path));
    } catch (ConnectException _) {
      return; // refused: nobody listens
    }
    throw new FileAlreadyExistsException(path + ": another server listens here");
  }

  /// What tells this socket's file from one that replaced it.
  static @Nullable Object key(Path path) throws IOException {
    return Files.readAttributes(path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS)
        .fileKey();
  }
}
