// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.CreateOptions;
import io.tidemark.block.Drive;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.AllocatedBytes;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// What a guest's request costs the garbage collector: nothing. A connection that makes an object
/// for each of 400,000 requests a second would have everyone wait for the collector.
class RequestAllocationTest {
  private static final int BLOCK = 4096;
  private static final int DEPTH = 16;
  private static final int BURSTS = 300;
  private static final long SIZE = 16 << 20;
  private static final int READ = 0;
  private static final int WRITE = 1;

  /// For what happens now and then: a lock that is inflated, a class that is loaded.
  private static final long MAX_BYTES_PER_REQUEST = 16;

  /// How the server's thread of a connection is called.
  private static final String CONNECTION = "nbd-client ";

  @TempDir Path folder;

  @ParameterizedTest
  @CsvSource({"raw,false", "qcow2,false", "qcow2,true"})
  void aRequestOfAGuestMakesNoObjects(String format, boolean extended) throws Exception {
    Path socket = folder.resolve("s.sock");
    try (var drive = new Drive("vda", image(format, extended));
        var server = new ExportServer()) {
      server.addExport(Export.of("", drive));
      server.listen(socket);
      try (var client = SocketChannel.open(StandardProtocolFamily.UNIX)) {
        client.connect(UnixDomainSocketAddress.of(socket));
        open(client);
        for (int type : new int[] {WRITE, READ}) {
          load(client, type); // gives each cluster its place, and the connection its buffers
          long before = AllocatedBytes.ofThread(CONNECTION);
          load(client, type);
          long each = (AllocatedBytes.ofThread(CONNECTION) - before) / (BURSTS * DEPTH);
          assertThat(each)
              .as("bytes on the heap for each of %d requests of type %d", BURSTS * DEPTH, type)
              .isLessThan(MAX_BYTES_PER_REQUEST);
        }
      }
    }
  }

  private FormatNode image(String format, boolean extended) throws IOException {
    Path file = folder.resolve("disk." + format);
    if (format.equals("raw")) {
      Files.write(file, new byte[(int) SIZE]);
    } else {
      Map<String, String> options = extended ? Map.of("extended_l2", "on") : Map.of();
      try (FileNode made = FileNode.create(file)) {
        Qcow2Image.create(made, new CreateOptions(SIZE, Optional.empty(), options));
      }
    }
    OpenOptions options = OpenOptions.readWrite().withRunDir(folder);
    return new ImageOpener(ImageOpener.Probing.REFUSED, Optional.of(folder))
        .open(file, format, options);
  }

  /// The old option EXPORT_NAME: the least that opens an export.
  private static void open(SocketChannel client) throws IOException {
    fill(client, ByteBuffer.allocate(18));
    ByteBuffer hello = ByteBuffer.allocate(4 + 16);
    hello.putInt(3).putLong(0x49484156454f5054L).putInt(1).putInt(0);
    client.write(hello.flip());
    fill(client, ByteBuffer.allocate(10));
  }

  /// Bursts of requests, each answered before the next.
  private static void load(SocketChannel client, int type) throws IOException {
    boolean write = type == WRITE;
    ByteBuffer requests = ByteBuffer.allocateDirect(DEPTH * (28 + (write ? BLOCK : 0)));
    ByteBuffer replies = ByteBuffer.allocateDirect(DEPTH * (16 + (write ? 0 : BLOCK)));
    for (int burst = 0; burst < BURSTS; burst++) {
      requests.clear();
      for (int i = 0; i < DEPTH; i++) {
        long block = (burst * 37L + i * 101L) % (SIZE / BLOCK);
        requests.putInt(0x25609513).putShort((short) 0).putShort((short) type).putLong(i);
        requests.putLong(block * BLOCK).putInt(BLOCK);
        requests.position(requests.position() + (write ? BLOCK : 0));
      }
      requests.flip();
      while (requests.hasRemaining()) {
        client.write(requests);
      }
      fill(client, replies.clear());
      for (int i = 0; i < DEPTH; i++) {
        assertThat(replies.getInt(i * (replies.capacity() / DEPTH) + 4)).isZero(); // its error
      }
    }
  }

  private static void fill(SocketChannel client, ByteBuffer into) throws IOException {
    while (into.hasRemaining()) {
      assertThat(client.read(into)).isPositive();
    }
  }
}
