// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TlsTest {
  private static final int SIZE = 16 << 20;

  private static final Path OURS = certificates("ours");
  private static final Path THEIRS = certificates("theirs");

  @TempDir Path folder;
  private final MemoryNode node = new MemoryNode(SIZE);
  private final List<ExportServer> servers = new ArrayList<>();

  private static Path certificates(String authority) {
    return Path.of("src/test/resources/tls", authority).toAbsolutePath();
  }

  @AfterEach
  void close() {
    servers.forEach(ExportServer::close);
  }

  private Path serve(boolean verifyPeer, boolean required) throws IOException {
    Path socket = folder.resolve("s" + servers.size());
    server(verifyPeer, required).listen(socket);
    return socket;
  }

  private ExportServer server(boolean verifyPeer, boolean required) throws IOException {
    var tls = new ServerTls(TlsCredentials.server(OURS, verifyPeer), required);
    var server = new ExportServer(ServerLimits.defaults(), Optional.of(tls));
    servers.add(server);
    server.addExport(Export.of("vda", node));
    return server;
  }

  private static NbdUri uri(Path socket, Path certificates, boolean verifyPeer) {
    return NbdUri.unix(socket, "vda")
        .withTls(new NbdUri.Tls(Optional.of(certificates), verifyPeer, Optional.empty()));
  }

  @Test
  void carriesLargeRequestsOfSeveralThreadsAtOnce() throws Exception {
    var options = ClientOptions.defaults().withConnections(2);
    var failure = new AtomicReference<Throwable>();
    try (NbdClient client = NbdClient.connect(uri(serve(true, true), OURS, true), options)) {
      var threads = new ArrayList<Thread>();
      for (int t = 0; t < 4; t++) {
        int lane = t;
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    writeAndReadBack(client, lane * (SIZE / 4), SIZE / 4, lane);
                  } catch (IOException | RuntimeException | Error e) {
                    failure.set(e);
                  }
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
    }
    assertThat(failure.get()).isNull();
  }

  private void writeAndReadBack(NbdClient client, int offset, int length, int seed)
      throws IOException {
    var random = new Random(seed);
    byte[] bytes = new byte[length];
    random.nextBytes(bytes);
    for (int at = 0; at < length; ) {
      int count = Math.min(length - at, 1 + random.nextInt(1 << 20));
      client.write(offset + at, ByteBuffer.wrap(bytes, at, count));
      at += count;
    }
    client.flush();
    ByteBuffer back = ByteBuffer.allocate(length);
    client.read(offset, back);
    assertThat(back.array()).isEqualTo(bytes);
    assertThat(node.copy(offset, length)).isEqualTo(bytes);
  }

  @Test
  void tellsNothingInTheClearWhenTlsIsRequired() throws IOException {
    Path socket = serve(false, true);
    assertThatThrownBy(() -> NbdClient.connect(NbdUri.unix(socket, "vda")))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("TLS");
    try (RawPeer peer = new RawPeer(socket).greeted()) {
      for (int option :
          new int[] {Wire.Option.LIST, Wire.Option.EXTENDED_HEADERS, Wire.Option.GO, 99}) {
        assertThat(peer.ask(option, RawPeer.infoData("vda")).getLast().type())
            .as("option %s", option)
            .isEqualTo(Wire.Rep.ERR_TLS_REQD);
      }
      peer.send(Wire.Option.EXPORT_NAME, "vda".getBytes(java.nio.charset.StandardCharsets.UTF_8));
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void servesBothWhenTlsIsOnlyOffered() throws IOException {
    Path socket = serve(false, false);
    try (NbdClient clear = NbdClient.connect(NbdUri.unix(socket, "vda"));
        NbdClient sealed = NbdClient.connect(uri(socket, OURS, true))) {
      assertThat(clear.virtualSize()).isEqualTo(sealed.virtualSize());
    }
  }

  @Test
  void refusesPeersThatAreNotSignedByItsAuthority() throws IOException {
    Path socket = serve(true, true);
    assertThatThrownBy(() -> NbdClient.connect(uri(socket, THEIRS, true)))
        .as("server's certificate")
        .isInstanceOf(TransportException.class);
    assertThatThrownBy(
            () -> {
              try (NbdClient client = NbdClient.connect(uri(socket, THEIRS, false))) {
                client.read(0, ByteBuffer.allocate(512));
              }
            })
        .as("client's certificate")
        .isInstanceOf(TransportException.class);
    Path unsigned = Files.createDirectory(folder.resolve("unsigned"));
    Files.copy(OURS.resolve("ca-cert.pem"), unsigned.resolve("ca-cert.pem"));
    assertThatThrownBy(
            () -> {
              try (NbdClient client = NbdClient.connect(uri(socket, unsigned, true))) {
                client.read(0, ByteBuffer.allocate(512));
              }
            })
        .as("no certificate")
        .isInstanceOf(TransportException.class);
    try (NbdClient client = NbdClient.connect(uri(serve(false, true), unsigned, true))) {
      client.read(0, ByteBuffer.allocate(512));
    }
  }

  @Test
  void holdsTheCertificateAgainstTheHost() throws IOException {
    InetSocketAddress address =
        server(false, true).listen(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    NbdUri uri = NbdUri.tcp("localhost", address.getPort(), "vda");
    var right = new NbdUri.Tls(Optional.of(OURS), true, Optional.empty());
    var wrong = new NbdUri.Tls(Optional.of(OURS), true, Optional.of("elsewhere.example"));
    NbdClient.connect(uri.withTls(right)).close();
    assertThatThrownBy(() -> NbdClient.connect(uri.withTls(wrong)))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("elsewhere.example");
  }

  @Test
  void takesNothingThatWasSaidBeforeTls() throws IOException {
    Path socket = serve(false, true);
    try (RawPeer peer = new RawPeer(socket).greeted()) {
      ByteBuffer both = ByteBuffer.allocate(32);
      both.putLong(Wire.Magic.OPTION).putInt(Wire.Option.STARTTLS).putInt(0);
      both.putLong(Wire.Magic.OPTION).putInt(Wire.Option.LIST).putInt(0);
      peer.out.write(both.array());
      assertThat(peer.closedByServer()).isTrue();
    }
    try (RawPeer peer = new RawPeer(socket).greeted()) {
      peer.ask(Wire.Option.STARTTLS, new byte[0]);
      peer.out.write(new byte[4096]);
      assertThat(peer.closedByServer()).isTrue();
    }
    NbdClient.connect(uri(socket, OURS, true)).close();
  }

  @Test
  void namesTheFileThatIsMissingOrWrong() throws IOException {
    Path empty = Files.createDirectory(folder.resolve("empty"));
    assertThatThrownBy(() -> TlsCredentials.server(empty, true))
        .hasMessageContaining("server-cert.pem: missing");
    Files.copy(OURS.resolve("server-cert.pem"), empty.resolve("server-cert.pem"));
    Files.copy(OURS.resolve("server-cert.pem"), empty.resolve("server-key.pem"));
    assertThatThrownBy(() -> TlsCredentials.server(empty, true))
        .hasMessageContaining("server-key.pem: found PEM block CERTIFICATE, wanted PRIVATE KEY");
    Files.writeString(empty.resolve("server-cert.pem"), "nothing");
    assertThatThrownBy(() -> TlsCredentials.server(empty, true))
        .hasMessageContaining("server-cert.pem");
  }

  @Test
  void aServerWithoutTlsIsNotSpokenToInTheClear() throws IOException {
    var plain = new ExportServer();
    servers.add(plain);
    plain.addExport(Export.of("vda", node));
    Path socket = folder.resolve("plain");
    plain.listen(socket);
    assertThatThrownBy(() -> NbdClient.connect(uri(socket, OURS, true)))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("speaks no TLS");
  }
}
