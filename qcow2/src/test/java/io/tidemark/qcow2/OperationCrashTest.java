// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Shortest;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// Everything that can be done to an image, mixed, and cut off: by a power cut, with and without a
/// log that is of no use after it, and by the death of the process, with and without a log.
class OperationCrashTest {
  private static final String BOOT = "00112233445566778899aabbccddeeff";
  private static final String NEXT_BOOT = "ffeeddccbbaa99887766554433221100";

  /// Of a short list, every step; of a long one, some step that lies before this one.
  private static final int STEPS = 400;

  @TempDir Path runDir;

  /// An image and how it ends, all decided by a seed.
  private final class Setting {
    private final long seed;
    private final long size;
    private final boolean backed;
    private final boolean logged;
    private final boolean powerCut;
    private final Durability durability;
    private final Map<String, String> options;

    Setting(long seed) {
      var random = new Random(seed);
      this.seed = seed;
      size = (1 + random.nextInt(400)) * 1024L;
      backed = random.nextInt(3) == 0;
      logged = random.nextBoolean();
      powerCut = random.nextInt(3) != 0;
      durability =
          logged || !powerCut || random.nextBoolean()
              ? Durability.ACKNOWLEDGED
              : Durability.FLUSHED;
      options = options(random);
    }

    private static Map<String, String> options(Random random) {
      if (random.nextInt(4) == 0) {
        return Map.of("cluster_size", random.nextBoolean() ? "16k" : "32k", "extended_l2", "on");
      }
      int bits = 9 + random.nextInt(6);
      boolean v2 = random.nextInt(10) == 0;
      return Map.of(
          "cluster_size", "" + (1 << bits),
          "compat", v2 ? "0.10" : "1.1",
          "refcount_bits", v2 ? "16" : "" + (2 << random.nextInt(6)),
          "compression_type", !v2 && bits % 2 == 0 ? "zstd" : "zlib");
    }

    CrashingFile create() throws BlockException {
      var file = new CrashingFile(seed);
      Optional<BackingReference> backing =
          backed
              ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
              : Optional.empty();
      Qcow2Image.create(file, new CreateOptions(size, backing, options));
      return file;
    }

    private BlockNode base() throws BlockException {
      var file = CrashingFile.ofSize(7, 200 * 1024);
      byte[] bytes = new byte[200 * 1024];
      new Random(size).nextBytes(bytes);
      file.write(0, ByteBuffer.wrap(bytes));
      return file;
    }

    private Optional<LogPlace> log(String boot) {
      var identity = new ChangeLog.Identity(boot, 1, seed, 3);
      return logged
          ? Optional.of(new LogPlace(identity.logIn(runDir), identity))
          : Optional.empty();
    }

    Qcow2Image open(CrashingFile file, Optional<LogPlace> log) throws BlockException {
      var image = Qcow2Image.open(file, OpenOptions.readWrite(), durability, log);
      if (backed) {
        image.attachBacking(base());
      }
      return image;
    }

    /// Does the operations until the file's step `cut`, and looks at what that left.
    ///
    /// @return whether all were done before
    boolean holds(List<ImageOperation> operations, long cut) throws Exception {
      Optional<LogPlace> log = log(BOOT);
      if (log.isPresent()) {
        ChangeLog.delete(log.get().path());
      }
      CrashingFile file = create();
      var run = new OperationRun(open(file, log), () -> open(file.reopen(), log));
      file.cutPowerAt(cut);
      boolean done = false;
      try {
        run.run(operations);
        run.holdsExactly();
        CheckResult result = run.image().check();
        assertThat(result.leaks() + result.corruptions()).as("%s", result.findings()).isZero();
        done = true;
      } catch (BlockException e) {
        assertThat(e).hasStackTraceContaining("power is cut");
      } finally {
        ChangeLog left = run.image().log();
        if (left != null) {
          left.close(); // the kernel lets go of the dead process's file
        }
      }
      if (!powerCut) {
        judge(run, file.copy(), log, seed);
        return done;
      }
      for (int i = 0; i < 3; i++) {
        judge(run, file.crash(cut * 31 + i), i == 0 ? log(NEXT_BOOT) : Optional.empty(), seed + i);
      }
      return done;
    }

    private void judge(OperationRun run, CrashingFile left, Optional<LogPlace> log, long salt)
        throws Exception {
      OperationRun further;
      try (Qcow2Image image = open(left, log)) {
        run.judge(image, powerCut);
        sound(image);
        // It can be worked on, and stays sound.
        further = new OperationRun(image, () -> open(left.reopen(), log));
      }
      try (Qcow2Image image = open(left.reopen(), log)) {
        further = new OperationRun(image, () -> open(left.reopen(), log));
        further.run(ImageOperation.random(new Random(salt), 4));
        further.holdsExactly();
        sound(further.image());
        further.image().close();
      }
    }

    private void sound(Qcow2Image image) throws BlockException {
      CheckResult result = image.check();
      assertThat(result.sound()).as("%s", result.findings()).isTrue();
    }
  }

  @ParameterizedTest
  @Seeds(1000)
  void whateverIsCutOffIsWholeOrNotAtAll(long seed) throws Exception {
    var random = new Random(~seed);
    var setting = new Setting(seed);
    boolean everyStep = seed % 10 == 0;
    List<ImageOperation> operations = ImageOperation.random(random, everyStep ? 6 : 40);
    long cut = everyStep ? 1 : 1 + random.nextInt(1 + random.nextInt(STEPS));
    try {
      while (!setting.holds(operations, cut) && everyStep) {
        cut++;
      }
    } catch (Exception | AssertionError e) {
      throw shortened(setting, operations, cut, e);
    }
  }

  private static AssertionError shortened(
      Setting setting, List<ImageOperation> operations, long cut, Throwable failure) {
    long[] at = {cut};
    List<ImageOperation> fewest =
        Shortest.of(
            operations,
            100,
            fewer -> {
              for (long earlier = 1; earlier <= at[0]; earlier++) {
                try {
                  if (setting.holds(fewer, earlier)) {
                    return false;
                  }
                } catch (Exception | AssertionError _) {
                  at[0] = earlier;
                  return true;
                }
              }
              return false;
            });
    return new AssertionError(
        "fails when cut off at step "
            + cut
            + "; shortened: at step "
            + at[0]
            + " of "
            + fewest
            + " with "
            + setting.options
            + (setting.powerCut ? ", power cut" : ", process killed"),
        failure);
  }
}
