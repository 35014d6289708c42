// SPDX-License-Identifier: Apache-2.0
package io.tidemark.bench;

import io.tidemark.block.ByteRange;
import io.tidemark.block.DirtyBitmap;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

/// What a guest's write pays for each bitmap of its drive, and what a backup pays to find the next
/// extent.
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(1)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 3, time = 1)
public class BitmapBenchmark {
  private static final long SIZE = 1L << 40;

  private final DirtyBitmap bitmap = new DirtyBitmap("bitmap", SIZE, 64 * 1024);
  private final DirtyBitmap sparse = new DirtyBitmap("sparse", SIZE, 64 * 1024);

  {
    for (long at = 0; at < SIZE; at += 100L << 20) {
      sparse.set(at, 1);
    }
  }

  private static long anywhere() {
    return ThreadLocalRandom.current().nextLong(SIZE >> 12) << 12;
  }

  @Benchmark
  public void setOfFourKiB() {
    bitmap.set(anywhere(), 4096);
  }

  @Benchmark
  public void setOfOneMiB() {
    bitmap.set(anywhere() & -(1L << 20), 1 << 20);
  }

  @Benchmark
  public Optional<ByteRange> nextDirtyOneInA1600() {
    return sparse.nextDirty(anywhere(), 64 << 20);
  }
}
