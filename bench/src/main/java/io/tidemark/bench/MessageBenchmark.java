// SPDX-License-Identifier: Apache-2.0
package io.tidemark.bench;

import io.tidemark.block.FileNode;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/// NBD requests in bursts of 16 over a unix socket to a server in this process: what a message
/// costs, system calls shared by the burst. CACHE requests do nothing; reads take 512 bytes.
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@OperationsPerInvocation(MessageBenchmark.BURST)
@Fork(1)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 3, time = 1)
public class MessageBenchmark {
  static final int BURST = 16;
  private static final int REQUEST = 28;
  private static final int REPLY = 16;
  private static final int BYTES = 512;
  private static final int READ = 0;
  private static final int CACHE = 5;

  private Path folder;
  private FileNode file;
  private ExportServer server;
  private SocketChannel client;
  private final ByteBuffer reads = requests(READ);
  private final ByteBuffer hints = requests(CACHE);
  private final ByteBuffer replies = ByteBuffer.allocateDirect(BURST * (REPLY + BYTES));

  @Setup
  public void connect() throws IOException {
    folder = Files.createTempDirectory("tidemark-bench");
    file = FileNode.create(folder.resolve("disk.raw"));
    file.resize(1 << 20);
    server = new ExportServer();
    server.addExport(Export.of("", file));
    Path socket = folder.resolve("socket");
    server.listen(socket);
    client = SocketChannel.open(StandardProtocolFamily.UNIX);
    client.connect(UnixDomainSocketAddress.of(socket));
    receive(ByteBuffer.allocate(18));
    // Flags of the client, then NBD_OPT_EXPORT_NAME of the empty name, without padding.
    client.write(
        ByteBuffer.allocate(20).putInt(3).putLong(0x49484156454F5054L).putInt(1).putInt(0).flip());
    receive(ByteBuffer.allocate(10));
  }

  @TearDown
  public void close() throws IOException {
    client.close();
    server.close();
    file.close();
    Files.deleteIfExists(folder.resolve("socket"));
    Files.delete(folder.resolve("disk.raw"));
    Files.delete(folder);
  }

  private static ByteBuffer requests(int command) {
    ByteBuffer all = ByteBuffer.allocateDirect(BURST * REQUEST);
    for (int i = 0; i < BURST; i++) {
      all.putInt(0x25609513).putShort((short) 0).putShort((short) command).putLong(i);
      all.putLong((long) i * 4096).putInt(BYTES);
    }
    return all.flip();
  }

  private void receive(ByteBuffer into) throws IOException {
    while (into.hasRemaining()) {
      if (client.read(into) < 0) {
        throw new IOException("the server left");
      }
    }
  }

  private void exchange(ByteBuffer burst, int reply) throws IOException {
    client.write(burst.rewind());
    receive(replies.clear().limit(BURST * reply));
  }

  @Benchmark
  public void message() throws IOException {
    exchange(hints, REPLY);
  }

  @Benchmark
  public void readOf512() throws IOException {
    exchange(reads, REPLY + BYTES);
  }
}
