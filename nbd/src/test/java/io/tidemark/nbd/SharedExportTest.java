// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.Drive;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.BlockHistory;
import io.tidemark.testkit.RacingRequests;
import io.tidemark.testkit.Seeds;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// One export under several clients whose requests overlap: what each of them sees is what some
/// order of the requests explains ([BlockHistory]).
class SharedExportTest {
  private static final int SIZE = 1 << 20;
  private static final int CLIENTS = 6;
  private static final int REQUESTS = 150;
  private static final int MAX_BURST = 5;

  /// Past it a burst ends: it and its answers fit into the socket's buffers, so that nobody has to
  /// read while he writes.
  private static final int MAX_BURST_BYTES = 60_000;

  private static final int MAX_REQUEST = 40_000;

  @TempDir Path folder;
  private Path socket;
  private final ExportServer server = new ExportServer();
  private final ConcurrentLinkedQueue<Throwable> faults = new ConcurrentLinkedQueue<>();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  private interface Client {
    void run() throws IOException;
  }

  private void together(List<Client> clients) throws InterruptedException {
    var threads = new ArrayList<Thread>();
    for (Client client : clients) {
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try {
                  client.run();
                } catch (IOException | RuntimeException | Error e) {
                  faults.add(e);
                }
              }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    if (!faults.isEmpty()) {
      throw new AssertionError("a client failed", faults.peek());
    }
  }

  private FileNode file() throws IOException {
    Path image = folder.resolve("disk.raw");
    Files.write(image, new byte[SIZE]);
    return FileNode.open(image, OpenOptions.readWrite());
  }

  /// Every connection sends bursts, which the server answers together.
  @ParameterizedTest
  @Seeds(3)
  void burstsOfSeveralConnectionsOnAFileAreLinearizable(long seed) throws Exception {
    try (FileNode file = file()) {
      server.addExport(Export.of("vda", file));
      bursts(seed, new BlockHistory(file));
    }
  }

  @ParameterizedTest
  @Seeds(3)
  void burstsOfSeveralConnectionsOnADriveAreLinearizable(long seed) throws Exception {
    try (var drive = new Drive("vda", file())) {
      server.addExport(Export.of("vda", drive));
      bursts(seed, new BlockHistory(drive));
    }
  }

  private void bursts(long seed, BlockHistory history) throws Exception {
    var clients = new ArrayList<Client>();
    for (int i = 0; i < CLIENTS; i++) {
      var requests = new RacingRequests(seed, i, history, MAX_REQUEST);
      int framing = i % 3;
      clients.add(() -> {
        try (RawPeer peer = new RawPeer(socket).greeted()) {
          switch (framing) {
            case 0 -> {} // simple replies
            case 1 -> peer.structured();
            default -> peer.extended();
          }
          peer.go("vda");
          for (int sent = 0; sent < REQUESTS; ) {
            sent += burst(peer, requests, requests.burst(MAX_BURST));
          }
        }
      });
    }
    together(clients);
    history.check();
  }

  /// Requests sent by one write of the socket, and all of their answers.
  private static int burst(RawPeer peer, RacingRequests requests, int most) throws IOException {
    Map<Long, BlockHistory.Request> open = new HashMap<>();
    Map<Long, byte[]> read = new HashMap<>();
    var bytes = new ByteArrayOutputStream();
    long cookie = 0;
    int payload = 0;
    while (cookie < most && payload < MAX_BURST_BYTES) {
      BlockHistory.Request request = requests.next();
      boolean reads = request.kind() == BlockHistory.Kind.READ;
      byte[] data = request.kind() == BlockHistory.Kind.WRITE ? request.payload() : new byte[0];
      int flags = !reads && requests.forced() ? Wire.CommandFlag.FUA : 0;
      bytes.writeBytes(
          peer.bytesOf(
              command(request.kind()), flags, cookie, request.offset(), request.length(), data));
      if (reads) {
        read.put(cookie, new byte[request.length()]);
      }
      open.put(cookie++, request);
      payload += request.length();
    }
    peer.out.write(bytes.toByteArray());
    while (!open.isEmpty()) {
      answer(peer.next(of -> read.getOrDefault(of, new byte[0]).length), open, read);
    }
    return (int) cookie;
  }

  private static int command(BlockHistory.Kind kind) {
    return switch (kind) {
      case READ -> Wire.Command.READ;
      case WRITE -> Wire.Command.WRITE;
      case ZERO -> Wire.Command.WRITE_ZEROES;
      case TRIM -> Wire.Command.TRIM;
    };
  }

  private static void answer(
      RawPeer.Reply reply, Map<Long, BlockHistory.Request> open, Map<Long, byte[]> read)
      throws IOException {
    BlockHistory.Request request = open.get(reply.cookie());
    if (request == null || reply.error() != 0) {
      throw new IOException("cookie " + reply.cookie() + ", error " + reply.error());
    }
    byte[] bytes = read.get(reply.cookie());
    if (bytes != null && reply.chunk() == -1) {
      System.arraycopy(reply.payload(), 0, bytes, 0, bytes.length);
    } else if (bytes != null && reply.chunk() == Wire.Chunk.OFFSET_DATA) {
      var data = reply.data();
      int at = (int) (data.getLong() - request.offset());
      data.get(bytes, at, data.remaining());
    }
    if (reply.done()) {
      open.remove(reply.cookie());
      if (bytes == null) {
        request.answered();
      } else {
        request.answered(bytes);
      }
    }
  }

  /// Our own client, over several connections that act as one.
  @ParameterizedTest
  @Seeds(2)
  void threadsOfAClientWithSeveralConnectionsAreLinearizable(long seed) throws Exception {
    try (FileNode file = file();
        var drive = new Drive("vda", file)) {
      server.addExport(Export.of("vda", drive));
      var options = ClientOptions.defaults().withConnections(3);
      try (NbdClient one = NbdClient.connect(NbdUri.unix(socket, "vda"), options);
          NbdClient other = NbdClient.connect(NbdUri.unix(socket, "vda"))) {
        var history = new BlockHistory(one);
        var clients = new ArrayList<Client>();
        for (int i = 0; i < CLIENTS; i++) {
          var requests = new RacingRequests(seed, i, history, 300_000);
          NbdClient client = i < 4 ? one : other;
          clients.add(() -> {
            for (int n = 0; n < REQUESTS; n++) {
              history.send(requests.next(), client);
              if (requests.forced()) {
                client.flush();
              }
            }
          });
        }
        together(clients);
        history.check();
      }
    }
  }
}
