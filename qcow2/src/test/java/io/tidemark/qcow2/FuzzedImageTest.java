// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.CreateOptions;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Small images, changed by a fuzzer (Jazzer) that watches which code they reach: every use of one
/// gives a value or an error in words, in a small heap and bounded time. In a process of its own,
/// as [MutatedImageTest]. `-Dfuzz.seconds=N` for longer. The image that fails is kept, and its
/// place printed.
class FuzzedImageTest {
  private static final String HEAP = "-Xmx256m";

  /// Images where no time is given: the same ones each time.
  private static final long RUNS = 3000;

  private static final long SECONDS = Long.getLong("fuzz.seconds", 0L);
  private static final int MAX_BYTES = 256 << 10;

  @TempDir Path folder;

  private void seed(String name, Map<String, String> options) throws Exception {
    var file = new CrashingFile(1);
    Qcow2Image.create(file, new CreateOptions(32 << 10, Optional.empty(), options));
    byte[] data = new byte[3000];
    new Random(1).nextBytes(data);
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      image.write(1000, ByteBuffer.wrap(data));
      image.writeZeroes(8000, 5000, ZeroMode.NO_UNMAP);
      image.writeCompressed(
          image.clusterSize() * 3, ByteBuffer.allocate((int) image.clusterSize()));
      image.snapshots().orElseThrow().create("one", Instant.EPOCH);
      if (image.bitmapStore().isPresent()) {
        image.bitmapStore().get().add("b0", 4096);
      }
      image.write(20_000, ByteBuffer.wrap(data));
    }
    file.writeTo(folder.resolve(name));
  }

  @Test
  void everyUseOfAnImageThatAFuzzerMadeGivesAValueOrAnError() throws Exception {
    seed("narrow", Map.of("cluster_size", "512"));
    seed("old", Map.of("cluster_size", "512", "compat", "0.10"));
    seed("bits", Map.of("cluster_size", "1024", "refcount_bits", "2"));
    seed("zstd", Map.of("cluster_size", "512", "compression_type", "zstd"));
    seed("wide", Map.of("cluster_size", "4096", "refcount_bits", "64"));
    String classes =
        System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    Path kept = Files.createDirectories(Path.of("target", "fuzz")).toAbsolutePath();
    Process run =
        new ProcessBuilder(
                List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    HEAP,
                    "-XX:+UseSerialGC",
                    "-XX:+EnableDynamicAgentLoading",
                    "--enable-native-access=ALL-UNNAMED",
                    "-Djava.util.logging.config.file=/dev/null",
                    "-cp",
                    classes,
                    "com.code_intelligence.jazzer.Jazzer",
                    "--target_class=" + FuzzedImage.class.getName(),
                    "--instrumentation_includes=io.tidemark.qcow2.**",
                    "--reproducer_path=" + kept,
                    "-artifact_prefix=" + kept + "/",
                    SECONDS > 0 ? "-max_total_time=" + SECONDS : "-runs=" + RUNS,
                    "-max_len=" + MAX_BYTES,
                    "-rss_limit_mb=0", // the heap is what is bounded
                    "-timeout=" + HostileRun.LIMIT_SECONDS,
                    "-seed=1",
                    "-print_final_stats=1",
                    folder.toString()))
            .redirectErrorStream(true)
            .start();
    String said = new String(run.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    int exit = run.waitFor();
    said.lines()
        .filter(line -> line.contains("DONE") || line.contains("INITED"))
        .forEach(System.out::println);
    assertThat(exit).as(said).isZero();
    assertThat(said).as("the images are told apart by what they reach").contains("NEW");
  }
}
