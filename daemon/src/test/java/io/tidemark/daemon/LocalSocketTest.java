// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LocalSocketTest {
  @TempDir private Path dir;

  @Test
  void listensWithTheGivenPermissions() throws IOException {
    Path path = dir.resolve("s");
    try (ServerSocketChannel socket = LocalSocket.bind(path, "rw-------");
        SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
      assertThat(socket.isOpen()).isTrue();
      assertThat(client.isConnected()).isTrue();
      assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(path)))
          .isEqualTo("rw-------");
      assertThat(dir.resolve(".bind")).doesNotExist();
    }
  }

  @Test
  void socketThatNobodyListensOnIsReplaced() throws IOException {
    Path path = dir.resolve("s");
    LocalSocket.bind(path, "rw-------").close();
    assertThat(path).exists();
    try (ServerSocketChannel _ = LocalSocket.bind(path, "rw-rw-rw-");
        SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
      assertThat(client.isConnected()).isTrue();
    }
  }

  @Test
  void socketThatSomeoneListensOnIsLeftAlone() throws IOException {
    Path path = dir.resolve("s");
    try (ServerSocketChannel _ = LocalSocket.bind(path, "rw-------")) {
      assertThatThrownBy(() -> LocalSocket.bind(path, "rw-------")).hasMessageContaining("in use");
      try (SocketChannel client = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
        assertThat(client.isConnected()).isTrue();
      }
    }
  }

  @Test
  void fileThatIsNoSocketIsLeftAlone() throws IOException {
    Path path = Files.writeString(dir.resolve("s"), "precious");
    assertThatThrownBy(() -> LocalSocket.bind(path, "rw-------"))
        .hasMessageContaining("not a socket");
    assertThat(path).hasContent("precious");
  }

  @Test
  void pathTooLongForASocketIsSaidSo() {
    assertThatThrownBy(() -> LocalSocket.bind(dir.resolve("x".repeat(108)), "rw-------"))
        .hasMessageContaining("--run-dir");
  }

  @Test
  void folderHasOneOwnerAtATime() throws IOException {
    Path folder = dir.resolve("deep/state");
    try (OwnedFolder _ = OwnedFolder.take(folder, "rwx------")) {
      assertThatThrownBy(() -> OwnedFolder.take(folder, "rwx------"))
          .hasMessageContaining("in use by another tidemark daemon");
    }
    OwnedFolder.take(folder, "rwx------").close();
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(folder)))
        .isEqualTo("rwx------");
  }
}
