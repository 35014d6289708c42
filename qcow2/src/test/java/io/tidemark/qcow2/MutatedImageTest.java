// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;

/// Images that QEMU made, mutated by seed: every use gives a value or an error in words, in a heap
/// of [#HEAP], in bounded time. `-Dhostile.seconds=N` for longer, `-Dseed=N` to begin elsewhere:
/// the seed that fails is printed, and is the first one then.
class MutatedImageTest {
  /// An L1 table has 32 MiB at most, and a change of snapshots holds four of them and what the open
  /// image has.
  private static final String HEAP = "-Xmx256m";

  private static final long SEED = Long.getLong("seed", 1L);
  private static final long SECONDS = Long.getLong("hostile.seconds", 6L);

  @Test
  void everyUseOfAMutatedImageGivesAValueOrAnError() throws Exception {
    String classes =
        System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));
    Process run =
        new ProcessBuilder(
                List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    HEAP,
                    "-XX:+UseSerialGC",
                    "--enable-native-access=ALL-UNNAMED",
                    "-Djava.util.logging.config.file=/dev/null",
                    "-cp",
                    classes,
                    HostileRun.class.getName(),
                    "" + SEED,
                    "" + SECONDS))
            .redirectErrorStream(true)
            .start();
    String said = new String(run.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    System.out.print(said);
    assertThat(run.waitFor()).as(said).isZero();
  }
}
