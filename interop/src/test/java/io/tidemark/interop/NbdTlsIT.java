// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.RawFormat;
import io.tidemark.cli.Tidemark;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.nbd.ServerLimits;
import io.tidemark.nbd.ServerTls;
import io.tidemark.nbd.TlsCredentials;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/// TLS with GnuTLS on the other side: qemu-img and nbdinfo read from our server, our client reads
/// and writes at qemu-nbd and nbdkit.
@Tag("interop")
class NbdTlsIT {
  private static final int SIZE = 8 << 20;
  private static final Path CERTIFICATES = Root.path().resolve("nbd/src/test/resources/tls/ours");

  private final ScratchFolder folder = new ScratchFolder();

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  private static byte[] random(int length) {
    byte[] bytes = new byte[length];
    new Random(11).nextBytes(bytes);
    return bytes;
  }

  @Test
  void qemuImgAndNbdinfoReadFromOurServer() throws IOException {
    Path disk = folder.resolve("disk.img");
    byte[] content = random(SIZE);
    Files.write(disk, content);
    var tls = new ServerTls(TlsCredentials.server(CERTIFICATES, true), true);
    try (var server = new ExportServer(ServerLimits.defaults(), Optional.of(tls));
        var node =
            new RawFormat()
                .open(FileNode.open(disk, OpenOptions.reading()), OpenOptions.reading())) {
      server.addExport(new Export("vda", node, "", true, List.of()));
      int port =
          server.listen(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0)).getPort();
      Path copy = folder.resolve("copy.img");
      List<String> words =
          List.of(
              "convert",
              "--object",
              "tls-creds-x509,id=t,endpoint=client,dir=" + CERTIFICATES,
              "--image-opts",
              "driver=nbd,host=localhost,export=vda,tls-creds=t,port=" + port,
              "-O",
              "raw",
              copy.toString());
      Tool.require("qemu-img").ok(words.toArray());
      assertThat(Files.mismatch(disk, copy)).isEqualTo(-1);
      // The same words for ours.
      Files.delete(copy);
      var said = new StringWriter();
      var out = new PrintWriter(said, true);
      var ours = new ArrayList<>(List.of("image"));
      ours.addAll(words);
      assertThat(Tidemark.run(out, out, ours.toArray(String[]::new))).as("%s", said).isZero();
      assertThat(Files.mismatch(disk, copy)).isEqualTo(-1);
      String uri = "nbds://localhost:" + port + "/vda?tls-certificates=" + CERTIFICATES;
      assertThat(Tool.require("nbdinfo").ok("--size", uri).out().strip())
          .isEqualTo(String.valueOf(SIZE));
      Tool.Result clear = Tool.require("nbdinfo").run("nbd://localhost:" + port + "/vda");
      assertThat(clear.exit()).as(clear.text()).isNotZero();
    }
  }

  /// Words of a server's command; `{sock}`, `{img}` and `{tls}` are filled in.
  static Stream<List<String>> servers() {
    return Stream.of(
        List.of(
            "qemu-nbd",
            "-t",
            "-e8",
            "-f",
            "raw",
            "-k",
            "{sock}",
            "--object",
            "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={tls}",
            "--tls-creds",
            "t",
            "{img}"),
        List.of(
            "nbdkit",
            "-f",
            "-U",
            "{sock}",
            "--tls=require",
            "--tls-verify-peer",
            "--tls-certificates={tls}",
            "file",
            "{img}"));
  }

  @ParameterizedTest
  @MethodSource("servers")
  void ourClientReadsAndWritesAtTheirs(List<String> words) throws Exception {
    Path disk = folder.resolve("disk.img");
    Path socket = folder.resolve("s.sock");
    Files.write(disk, new byte[SIZE]);
    Object[] rest =
        words.stream()
            .skip(1)
            .map(w -> w.replace("{sock}", socket.toString()).replace("{img}", disk.toString()))
            .map(w -> w.replace("{tls}", CERTIFICATES.toString()))
            .toArray();
    Process server = Tool.require(words.getFirst()).start(rest);
    try {
      NbdUri uri =
          NbdUri.unix(socket, "")
              .withTls(new NbdUri.Tls(Optional.of(CERTIFICATES), true, Optional.empty()));
      byte[] content = random(3_000_001);
      try (NbdClient client =
          Patience.await()
              .ignoreExceptionsInstanceOf(BlockException.class)
              .until(
                  () -> NbdClient.connect(uri, ClientOptions.defaults().withConnections(4)),
                  connected -> true)) {
        client.write(4097, ByteBuffer.wrap(content));
        client.flush();
        ByteBuffer back = ByteBuffer.allocate(content.length);
        client.read(4097, back);
        assertThat(back.array()).isEqualTo(content);
      }
      byte[] onDisk = Files.readAllBytes(disk);
      assertThat(ByteBuffer.wrap(onDisk, 4097, content.length).equals(ByteBuffer.wrap(content)))
          .isTrue();
    } finally {
      Tool.end(server);
    }
  }
}
