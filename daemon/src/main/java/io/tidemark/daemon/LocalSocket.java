// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.PosixFilePermissions;

/// Makes the sockets that clients connect to.
final class LocalSocket {
  /// sockaddr_un's path with its closing NUL is 108 bytes.
  static final int MAX_PATH_BYTES = 107;

  /// Clients that connected and are not yet taken.
  private static final int BACKLOG = 128;

  private LocalSocket() {}

  /// A listening socket at `path`, with these permissions from its first moment: it is bound in a
  /// folder that nobody else may enter, and moved into place. A socket that nobody listens on is
  /// replaced. The caller owns the folder of `path`.
  ///
  /// @param permissions as `rw-------`
  /// @throws IOException someone listens there, or something else is there
  static ServerSocketChannel bind(Path path, String permissions) throws IOException {
    Path folder = path.resolveSibling(".bind");
    Path hidden = folder.resolve("s");
    requireFits(path);
    requireFits(hidden);
    requireFree(path);
    Files.deleteIfExists(hidden);
    Files.deleteIfExists(folder);
    Files.createDirectory(
        folder, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    ServerSocketChannel channel = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    try {
      channel.bind(UnixDomainSocketAddress.of(hidden), BACKLOG);
      Files.setPosixFilePermissions(hidden, PosixFilePermissions.fromString(permissions));
      Files.move(hidden, path, StandardCopyOption.ATOMIC_MOVE);
      return channel;
    } catch (IOException e) {
      channel.close();
      throw e;
    } finally {
      Files.deleteIfExists(hidden);
      Files.deleteIfExists(folder);
    }
  }

  private static void requireFree(Path path) throws IOException {
    if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    if (!Files.readAttributes(path, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS)
        .isOther()) {
      throw new IOException(path + ": not a socket, wanted a free name or a socket left behind");
    }
    try (SocketChannel probe = SocketChannel.open(StandardProtocolFamily.UNIX)) {
      probe.connect(UnixDomainSocketAddress.of(path));
    } catch (IOException e) {
      return; // refused: nobody listens
    }
    throw new IOException(path + ": in use, another daemon listens there");
  }

  private static void requireFits(Path path) throws IOException {
    int bytes = path.toString().getBytes(UTF_8).length;
    if (bytes > MAX_PATH_BYTES) {
      throw new IOException(
          path
              + ": "
              + bytes
              + " bytes, a socket's path has at most "
              + MAX_PATH_BYTES
              + " (choose a shorter --run-dir)");
    }
  }
}
