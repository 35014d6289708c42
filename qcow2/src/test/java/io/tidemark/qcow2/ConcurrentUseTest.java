// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

class ConcurrentUseTest {
  /// The disk is dealt out in slices to the threads in turn, so that neighbours in one cluster
  /// belong to different threads.
  private static final int SLICE = 1024;

  private static final int THREADS = 6;
  private static final int SIZE = 3 << 20;
  private static final int OPERATIONS = 400;

  @TempDir Path dir;

  private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

  @ParameterizedTest
  @Seeds(6)
  void threadsThatShareClustersLoseNothing(long seed) throws Exception {
    var random = new Random(seed);
    int bits = List.of(9, 12, 16, 16, 14, 10).get((int) (seed % 6));
    Path path = dir.resolve("disk.qcow2");
    byte[] beneath = new byte[SIZE / 2];
    random.nextBytes(beneath);
    var base = CrashingFile.ofSize(1, beneath.length);
    base.write(0, ByteBuffer.wrap(beneath));
    try (var file = FileNode.create(path)) {
      Qcow2Image.create(
          file,
          new CreateOptions(
              SIZE,
              Optional.of(new BackingReference("base.raw", Optional.of("raw"))),
              Map.of(
                  "cluster_size",
                  "" + (1 << bits),
                  "extended_l2",
                  seed % 6 == 3 || seed % 6 == 4 ? "on" : "off")));
    }
    byte[] expected = new byte[SIZE];
    System.arraycopy(beneath, 0, expected, 0, beneath.length);
    OpenOptions options = OpenOptions.readWrite();
    if (seed % 2 == 0) {
      options = options.withRunDir(dir);
    }
    var image =
        Qcow2Image.open(
            FileNode.open(path, options),
            options,
            seed % 3 == 0 ? Durability.FLUSHED : Durability.ACKNOWLEDGED);
    image.attachBacking(base);
    var threads = new ArrayList<Thread>();
    for (int t = 0; t < THREADS; t++) {
      int mine = t;
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try {
                  work(image, expected, mine, new Random(seed * 100 + mine));
                } catch (Throwable e) {
                  failure.compareAndSet(null, e);
                }
              }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    if (failure.get() != null) {
      throw new AssertionError("seed " + seed, failure.get());
    }
    byte[] now = new byte[SIZE];
    image.read(0, ByteBuffer.wrap(now));
    assertThat(Arrays.mismatch(now, expected)).isEqualTo(-1);
    CheckResult result = image.check();
    assertThat(result.sound()).as("%s", result.findings()).isTrue();
    image.close();
    try (var again =
        Qcow2Image.open(FileNode.open(path, OpenOptions.reading()), OpenOptions.reading())) {
      again.attachBacking(CrashingFile.ofSize(1, 0));
      result = again.check();
      assertThat(result.corruptions() + result.leaks() + result.checkErrors())
          .as("%s", result.findings())
          .isZero();
    }
  }

  private void work(Qcow2Image image, byte[] expected, int mine, Random random)
      throws BlockException {
    int slices = SIZE / SLICE / THREADS;
    for (int i = 0; i < OPERATIONS && failure.get() == null; i++) {
      int slice = random.nextInt(3) == 0 ? random.nextInt(slices) : random.nextInt(60);
      int offset = (slice * THREADS + mine) * SLICE;
      int length = 1 + random.nextInt(SLICE);
      switch (random.nextInt(10)) {
        case 0 -> image.flush();
        case 1 -> {
          image.writeZeroes(
              offset, length, random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP);
          Arrays.fill(expected, offset, offset + length, (byte) 0);
        }
        case 2 -> {
          image.discard(offset, SLICE);
          Arrays.fill(expected, offset, offset + SLICE, (byte) 0);
        }
        case 3, 4, 5 -> {
          byte[] bytes = new byte[SLICE];
          image.read(offset, ByteBuffer.wrap(bytes));
          int differs = Arrays.mismatch(bytes, 0, SLICE, expected, offset, offset + SLICE);
          if (differs >= 0) {
            throw new AssertionError("byte " + (offset + differs) + " differs");
          }
        }
        default -> {
          byte[] bytes = new byte[length];
          random.nextBytes(bytes);
          image.write(offset, ByteBuffer.wrap(bytes));
          System.arraycopy(bytes, 0, expected, offset, length);
        }
      }
    }
  }
}
