// SPDX-License-Identifier: Apache-2.0
package io.tidemark.bench;

import io.tidemark.block.CreateOptions;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.qcow2.Qcow2Image;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/// A read's way through a qcow2 image without the read of the file: what lies there is unallocated,
/// so 512 bytes are looked up and zeroed.
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(1)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 3, time = 1)
public class MappingBenchmark {
  private static final long SIZE = 64L << 30;
  private static final long TABLE = 512L << 20; // guest bytes of an L2 table
  private static final int CLUSTER = 64 << 10;

  private Path folder;
  private Qcow2Image image;
  private final ByteBuffer bytes = ByteBuffer.allocateDirect(512);

  @Setup
  public void make() throws IOException {
    folder = Files.createTempDirectory("tidemark-bench");
    Path path = folder.resolve("image.qcow2");
    try (FileNode file = FileNode.create(path)) {
      Qcow2Image.create(file, CreateOptions.ofSize(SIZE));
    }
    OpenOptions options = OpenOptions.readWrite();
    image = Qcow2Image.open(FileNode.open(path, options), options.withRunDir(folder));
    for (long at = 0; at < SIZE; at += TABLE) {
      image.write(at, ByteBuffer.allocate(512)); // so that there is a table
    }
    image.flush();
  }

  @TearDown
  public void remove() throws IOException {
    image.close();
    Files.deleteIfExists(folder.resolve("image.qcow2"));
    Files.delete(folder);
  }

  private static long table() {
    return ThreadLocalRandom.current().nextLong(SIZE / TABLE) * TABLE;
  }

  @Benchmark
  public void lookUpAndZero512() throws IOException {
    long within = ThreadLocalRandom.current().nextLong(1, TABLE / CLUSTER) * CLUSTER;
    image.read(table() + within, bytes.clear());
  }

  @Benchmark
  public void read512() throws IOException {
    image.read(table(), bytes.clear());
  }
}
