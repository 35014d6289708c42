// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// An export as the file of an image, by each way of naming it.
class NbdProtocolTest {
  @TempDir Path folder;
  private Path socket = Path.of("");
  private final ExportServer server = new ExportServer();
  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.ALLOWED);

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.addExport(Export.of("vda", new MemoryNode(1 << 20)));
    server.addExport(Export.of("ro", new MemoryNode(4096, true)));
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private FormatNode open(ImageSource source) throws BlockException {
    return opener.open(source, Optional.empty(), OpenOptions.readWrite());
  }

  @Test
  void opensAnExportByUriOptionsJsonAndOldName() throws BlockException {
    for (ImageSource source :
        List.of(
            ImageSource.parse("nbd+unix:///vda?socket=" + socket),
            ImageSource.parse("nbd:unix:" + socket + ":exportname=vda"),
            ImageSource.parse(
                "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"export\":\"vda\",\"server\":{\"type\":\"unix\",\"path\":\""
                    + socket
                    + "\"}}}"),
            ImageSource.ofOptions(
                "driver=raw,size=1M,file.driver=nbd,file.export=vda,file.reconnect-delay=1,file.path="
                    + socket),
            ImageSource.ofOptions(
                "driver=nbd,export=vda,server.type=unix,server.path=" + socket))) {
      try (FormatNode node = open(source)) {
        assertThat(node.virtualSize()).isEqualTo(1 << 20);
        node.write(5, ByteBuffer.wrap(new byte[] {1}));
        node.reopen(true);
        assertThatThrownBy(() -> node.discard(0, 512)).isInstanceOf(ReadOnlyNodeException.class);
        node.reopen(false);
        node.discard(0, 512);
      }
    }
  }

  @Test
  void aReadOnlyExportIsNotOpenedForWriting() throws BlockException {
    ImageSource source = ImageSource.parse("nbd+unix:///ro?socket=" + socket);
    assertThatThrownBy(() -> open(source)).isInstanceOf(ReadOnlyNodeException.class);
    try (FormatNode node = opener.open(source, Optional.of("raw"), OpenOptions.reading())) {
      assertThatThrownBy(() -> node.reopen(false)).isInstanceOf(ReadOnlyNodeException.class);
    }
  }

  @Test
  void waitsForAServerThatIsStillToComeAsLongAsItIsTold() throws Exception {
    Path late = folder.resolve("late.sock");
    String options = "driver=raw,file.driver=nbd,file.export=vda,file.path=" + late;
    assertThatThrownBy(() -> open(ImageSource.ofOptions(options)))
        .isInstanceOf(TransportException.class);
    var opened = new CompletableFuture<Long>();
    Thread.ofPlatform()
        .start(() -> {
          try (FormatNode node = open(ImageSource.ofOptions(options + ",file.open-timeout=60"))) {
            opened.complete(node.virtualSize());
          } catch (BlockException | RuntimeException e) {
            opened.completeExceptionally(e);
          }
        });
    server.listen(late);
    assertThat(opened.get(60, TimeUnit.SECONDS)).isEqualTo(1 << 20);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "driver=raw,file.driver=nbd",
        "driver=nbd,server.type=inet,server.path=/x",
        "driver=nbd,host=h,port=x",
        "driver=nbd,path=/x,tls-creds=t",
        "driver=raw,file.filename=nbd:host",
        "driver=raw,file.filename=nbd:host:70000",
        "driver=raw,file.filename=nbd+vsock://2/x"
      })
  void refusesWhatItCannotReach(String options) {
    assertThatThrownBy(() -> open(ImageSource.ofOptions(options)))
        .isInstanceOf(UnsupportedImageException.class);
  }
}
